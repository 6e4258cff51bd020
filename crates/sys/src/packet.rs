//! Ethernet frames of a link: `packet(7)`, `linux/if_packet.h`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `PACKET_IGNORE_OUTGOING` of `linux/if_packet.h`, since Linux 4.20.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// `ETH_P_ALL`, in network byte order as the address wants it.
const EVERY_PROTOCOL: u16 = 0x0003_u16.to_be();

/// A socket for the frames of the link with this index in the network namespace of the calling thread: what arrives on the
/// link is read, one frame at a time; what is written leaves by it. Frames that others send by the link are not seen.
/// Closed on exec, and it keeps its network namespace.
///
/// # Errors
/// `EPERM` without `CAP_NET_RAW`, `EAFNOSUPPORT` for a kernel without such sockets, `ENODEV`.
pub fn open(link: u32) -> io::Result<OwnedFd> {
    // Protocol 0 hears nothing until it is bound, so no frame of another link gets in.
    let fd = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let yes: libc::c_int = 1;
    // SAFETY: the option takes an int, which lives through the call, with its size.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            (&raw const yes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    // SAFETY: sockaddr_ll holds numbers only, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = EVERY_PROTOCOL;
    address.sll_ifindex = i32::try_from(link).map_err(io::Error::other)?;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a sockaddr_ll of the length given and lives through the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(fd)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
