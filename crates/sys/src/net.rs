//! Links, addresses and routes by rtnetlink: `rtnetlink(7)`, `linux/rtnetlink.h`.
//!
//! What an init or a network namespace needs to get a network: bring a link up, give it addresses, set routes; and the links
//! themselves: [`veth`], [`tap`], bridges in [`link`]. Each call is one message and one acknowledgement. Everything acts on the network namespace of the calling thread.

pub mod link;
pub mod tap;
pub mod veth;

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::netlink::{self, NLM_F_CREATE, NLM_F_REPLACE, attribute};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const IFF_UP: u32 = 1;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x02;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_HOST: u8 = 254;
const RTN_UNICAST: u8 = 1;

/// The index of a link in this network namespace.
///
/// # Errors
/// `ENODEV` when there is no link of that name.
pub fn link_index(name: &str) -> io::Result<u32> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .or_else(|_| {
        socket_with(
            AddressFamily::UNIX,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
    })?;
    Ok(name_to_index(socket, name)?)
}

/// Brings a link up, `lo` for one.
///
/// # Errors
/// `ENODEV` when there is no such link, `EPERM`.
pub fn link_up(name: &str) -> io::Result<()> {
    let body = link_message(link_index(name)?, IFF_UP, IFF_UP);
    request(RTM_NEWLINK, 0, &body)
}

/// Sets the largest packet that a link carries, in bytes.
///
/// # Errors
/// `ENODEV`, `EINVAL` for a size that the link does not take, `EPERM`.
pub fn set_mtu(name: &str, bytes: u32) -> io::Result<()> {
    let mut body = link_message(link_index(name)?, 0, 0);
    attribute(&mut body, IFLA_MTU, &bytes.to_ne_bytes());
    request(RTM_NEWLINK, 0, &body)
}

/// Makes a link take IPv6 addresses as they are, the link-local one that the kernel gives it included: without duplicate
/// address detection, during which (1 to 2 s) they cannot be used. For links whose neighbours cannot have the same one.
/// Call it before [`link_up`].
///
/// # Errors
/// `ENOENT` when there is no such link, or no IPv6; `EACCES`, `EROFS`.
pub fn no_duplicate_address_detection(name: &str) -> io::Result<()> {
    fs_err::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0")
}

/// Keeps the kernel from giving a link a link-local address of its own making: it is to have another one. Call it before
/// [`link_up`].
///
/// # Errors
/// As [`no_duplicate_address_detection`].
pub fn no_link_local_address(name: &str) -> io::Result<()> {
    fs_err::write(format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode"), "1")
}

/// Gives a link an address with a prefix length in bits; setting it again changes nothing. IPv6 addresses can be used at
/// once (no duplicate address detection).
///
/// # Errors
/// `ENODEV`, `EINVAL` for a prefix that is too long, `EAFNOSUPPORT` or `EACCES` for a kernel without that protocol,
/// `EPERM`.
pub fn add_address(name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    give_address(name, address, prefix, RT_SCOPE_UNIVERSE)
}

/// Gives a link, `lo` for one, an address that this host alone uses: nothing that goes elsewhere is sent from it.
///
/// # Errors
/// As [`add_address`].
pub fn add_host_address(name: &str, address: Ipv4Addr) -> io::Result<()> {
    give_address(name, address.into(), 32, RT_SCOPE_HOST)
}

fn give_address(name: &str, address: IpAddr, prefix: u8, scope: u8) -> io::Result<()> {
    let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut body = vec![family(address), prefix, flags, scope];
    body.extend(link_index(name)?.to_ne_bytes());
    let bytes = octets(address);
    attribute(&mut body, IFA_LOCAL, &bytes);
    attribute(&mut body, IFA_ADDRESS, &bytes);
    request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &body)
}

/// Sets a route: what goes to `destination` (an address and a prefix length; `None` is the default route) leaves by the
/// link `name`, to `gateway` or, without one, directly. The protocol is that of whichever address is given, IPv4 when
/// none is.
///
/// # Errors
/// `ENETUNREACH` when the gateway cannot be reached by the link, `EINVAL` for addresses of different protocols, `ENODEV`,
/// `EPERM`.
pub fn add_route(
    name: &str,
    destination: Option<(IpAddr, u8)>,
    gateway: Option<IpAddr>,
) -> io::Result<()> {
    let example = gateway.or(destination.map(|(address, _)| address));
    let family = example.map_or(family(IpAddr::from([0, 0, 0, 0])), family);
    if destination.is_some_and(|(address, _)| self::family(address) != family) {
        return Err(io::Error::from(rustix::io::Errno::INVAL));
    }
    let prefix = destination.map_or(0, |(_, prefix)| prefix);
    let scope = if gateway.is_some() || example.is_some_and(|address| address.is_ipv6()) {
        RT_SCOPE_UNIVERSE
    } else {
        RT_SCOPE_LINK
    };
    let mut body = vec![
        family,
        prefix,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        scope,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    if let Some((address, _)) = destination {
        attribute(&mut body, RTA_DST, &octets(address));
    }
    if let Some(gateway) = gateway {
        attribute(&mut body, RTA_GATEWAY, &octets(gateway));
    }
    attribute(&mut body, RTA_OIF, &link_index(name)?.to_ne_bytes());
    request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &body)
}

fn family(address: IpAddr) -> u8 {
    // AF_INET and AF_INET6 of `linux/socket.h`.
    if address.is_ipv4() { 2 } else { 10 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// `struct ifinfomsg`: family, padding, type, index, flags, which flags change.
fn link_message(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for field in [index, flags, change] {
        body.extend(field.to_ne_bytes());
    }
    body
}

/// One message to the kernel, and its answer.
fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    netlink::request(&netlink::socket(None)?, kind, flags, body)
}

#[cfg(test)]
mod tests;
