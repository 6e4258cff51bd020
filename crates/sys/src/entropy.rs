//! Entropy for the kernel's random numbers: `random(4)`, `linux/random.h`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The most that [`add`] takes at once, in bytes. The kernel hashes all of it; more than its state holds is of no use.
pub const MAX_BYTES: usize = 512;

/// `_IOW('R', 3, int[2])`, as x86, ARM and RISC-V number ioctls.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;

/// `struct rand_pool_info`, with room for as much as [`add`] takes.
#[repr(C)]
struct PoolInfo {
    entropy_count: i32,
    buf_size: i32,
    buf: [u8; MAX_BYTES],
}

/// Mixes bytes that nobody else knows into the pool of `/dev/random` (which `device` is open for) and credits 8 bits for
/// each: `RNDADDENTROPY`. Bytes beyond [`MAX_BYTES`] are left out.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `ENOTTY` for another device.
pub fn add(device: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let bytes = &bytes[..bytes.len().min(MAX_BYTES)];
    let size = i32::try_from(bytes.len()).expect("at most 512");
    let mut info = PoolInfo {
        entropy_count: size * 8,
        buf_size: size,
        buf: [0; MAX_BYTES],
    };
    info.buf[..bytes.len()].copy_from_slice(bytes);
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: `info` is laid out as struct rand_pool_info, `buf_size` is no more than `buf` holds, and the kernel only
    // reads it.
    let result = unsafe { libc::ioctl(fd, RNDADDENTROPY, &raw const info) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::{PoolInfo, add};

    #[test]
    fn the_layout_of_rand_pool_info() {
        assert_eq!(offset_of!(PoolInfo, entropy_count), 0);
        assert_eq!(offset_of!(PoolInfo, buf_size), 4);
        assert_eq!(offset_of!(PoolInfo, buf), 8);
    }

    #[test]
    fn another_device_is_refused_and_the_right_one_takes_it_from_root() {
        let null = fs_err::File::open("/dev/null").unwrap();
        assert!(add(&null, b"x").is_err());
        let random = fs_err::File::open("/dev/random").unwrap();
        // Nothing is credited: the bytes are known to everybody.
        match add(&random, b"") {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
        }
    }
}
