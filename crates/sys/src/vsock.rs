//! Connections between a machine and its host: `vsock(7)`, `linux/vm_sockets.h`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The address of the host, `VMADDR_CID_HOST`.
pub const HOST_CID: u32 = 2;

/// A stream to `port` of the machine `cid`, closed on exec. Waits until the other side has answered.
///
/// # Errors
/// `EAFNOSUPPORT` for a kernel without vsock, `ENODEV` without the device, `ECONNRESET` when nobody listens.
pub fn connect(cid: u32, port: u32) -> io::Result<OwnedFd> {
    // SAFETY: socket takes numbers only.
    let raw = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: sockaddr_vm holds numbers only, for which zero is valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: `address` is a sockaddr_vm of the length given and lives through the call.
    let result = unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(fd)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_layout_of_sockaddr_vm() {
        assert_eq!(size_of::<libc::sockaddr_vm>(), 16);
        assert_eq!(std::mem::offset_of!(libc::sockaddr_vm, svm_port), 4);
        assert_eq!(std::mem::offset_of!(libc::sockaddr_vm, svm_cid), 8);
    }
}
