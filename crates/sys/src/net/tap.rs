//! Taps, links whose frames a program gives and takes: `linux/if_tun.h`, `Documentation/networking/tuntap.rst`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// Ethernet frames, without a header of the device, with one of virtio: what a VMM wants, Firecracker for one.
const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Makes a tap that stays until it is deleted. `owner` is the user who may open it beside those with `CAP_NET_ADMIN`.
///
/// # Errors
/// `EBUSY` when there is a link of that name, `EINVAL` for a name that is too long, `EPERM`, `ENOENT` for a kernel without
/// `/dev/net/tun`.
pub fn add(name: &str, owner: Option<u32>) -> io::Result<()> {
    let made = attach(name, FLAGS | libc::IFF_TUN_EXCL)?;
    if let Some(owner) = owner {
        set(made.as_fd(), libc::TUNSETOWNER, libc::c_ulong::from(owner))?;
    }
    set_persistent(made.as_fd(), true)
}

/// Opens a tap that is there, for reading and writing its frames.
///
/// # Errors
/// `EBUSY` when somebody holds it, `ENODEV` when there is none, `EPERM`.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    // Without a look, one that is not there would be made.
    super::link_index(name)?;
    attach(name, FLAGS)
}

/// As [`open`], for frames without the header of virtio: every one is whole, and no longer than the link's MTU.
///
/// # Errors
/// As [`open`].
pub fn open_plain(name: &str) -> io::Result<OwnedFd> {
    super::link_index(name)?;
    attach(name, FLAGS & !libc::IFF_VNET_HDR)
}

/// Whether a tap outlives its holder.
///
/// # Errors
/// `EINVAL` for a descriptor that is no tap's.
pub fn set_persistent(tap: BorrowedFd<'_>, persistent: bool) -> io::Result<()> {
    set(tap, libc::TUNSETPERSIST, libc::c_ulong::from(persistent))
}

fn attach(name: &str, flags: libc::c_int) -> io::Result<OwnedFd> {
    let device = rustix::fs::open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // SAFETY: ifreq holds numbers, characters and a pointer, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(rustix::io::Errno::INVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = u16::try_from(flags).expect("the flags of a tap are 16 bits");
    request.ifr_ifru.ifru_flags = flags.cast_signed();
    // SAFETY: the command reads an ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    check(result)?;
    Ok(device)
}

/// For the commands that take their value for a pointer.
fn set(tap: BorrowedFd<'_>, command: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: these commands take a number and no pointer.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), command, value) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
