//! Pairs of Ethernet links: `veth(4)`, `linux/veth.h`, `linux/if_link.h`, `linux/ethtool.h`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::link::{IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO};
use super::{IFLA_MTU, RTM_NEWLINK, link_message, request};
use crate::netlink::{NLM_F_CREATE, NLM_F_EXCL, attribute, text};

const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_STXCSUM: u32 = 0x17;

/// The far end of a pair.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address.
    pub address: [u8; 6],
    /// The network namespace that it is made in.
    pub namespace: BorrowedFd<'a>,
}

/// Makes a pair of links with this MTU in bytes: what is sent by one arrives at the other. The near end is in the network
/// namespace of the calling thread; both are down.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` in both namespaces, `EOPNOTSUPP` for a kernel without such links, `EEXIST`, `EINVAL`.
pub fn add_pair(name: &str, mtu: u32, peer: Peer<'_>) -> io::Result<()> {
    let mut far = link_message(0, 0, 0);
    attribute(&mut far, IFLA_IFNAME, &text(peer.name));
    attribute(&mut far, IFLA_ADDRESS, &peer.address);
    attribute(&mut far, IFLA_MTU, &mtu.to_ne_bytes());
    attribute(
        &mut far,
        IFLA_NET_NS_FD,
        &peer.namespace.as_raw_fd().to_ne_bytes(),
    );
    let mut data = Vec::new();
    attribute(&mut data, VETH_INFO_PEER, &far);
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, b"veth");
    attribute(&mut info, IFLA_INFO_DATA, &data);
    let mut body = link_message(0, 0, 0);
    attribute(&mut body, IFLA_IFNAME, &text(name));
    attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
    attribute(&mut body, IFLA_LINKINFO, &info);
    request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body)
}

/// Lets the kernel compute checksums and cut segments before it sends by this link, as for hardware that can do neither.
/// Otherwise a frame leaves a veth with both undone, since nobody between two ends of one kernel needs them.
///
/// # Errors
/// `ENODEV`, `EOPNOTSUPP` for a link that cannot do without, `EPERM`.
pub fn finish_frames_in_software(name: &str) -> io::Result<()> {
    /// `struct ethtool_value`.
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut value = EthtoolValue {
        command: ETHTOOL_STXCSUM,
        data: 0,
    };
    // SAFETY: ifreq holds numbers, characters and a pointer, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(rustix::io::Errno::NODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names a value of the type that the command takes; both live through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
