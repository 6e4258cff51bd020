//! The network: `lo`, and the interfaces of the configuration with their addresses and routes.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};

use firebuild_guest_proto::{FailureReason, Interface, InterfaceRef, MacAddress};
use firebuild_sys::net::{
    add_address, add_route, link_up, no_duplicate_address_detection, no_link_local_address, set_mtu,
};

use crate::error::InitError;
use crate::journal::Journal;
use crate::wait::Devices;

/// Sets everything up, and gives the names of the interfaces.
///
/// IPv6 that does not work is told and left out (a kernel may lack it); IPv4 that does not work is an error.
pub(crate) fn configure(
    interfaces: &[Interface],
    devices: &Devices,
    journal: &mut Journal,
) -> Result<Vec<String>, InitError> {
    if let Err(error) = link_up("lo") {
        journal.warning(&format!("cannot bring up lo: {error}"));
    }
    let mut names = Vec::with_capacity(interfaces.len());
    for interface in interfaces {
        let name = devices
            .find(|| find(&interface.select))
            .ok_or_else(|| missing(&interface.select))?;
        set_up(&name, interface, journal)?;
        names.push(name);
    }
    Ok(names)
}

fn set_up(name: &str, interface: &Interface, journal: &mut Journal) -> Result<(), InitError> {
    if let Some(mtu) = interface.mtu
        && let Err(error) = set_mtu(name, mtu)
    {
        journal.warning(&format!("cannot set the MTU of {name} to {mtu}: {error}"));
    }
    let ipv6 = interface
        .addresses
        .iter()
        .any(|cidr| cidr.address.is_ipv6());
    // Whoever gives the addresses knows that nobody else has them; IPv6 is to work from the application's first moment.
    if ipv6 && let Err(error) = no_duplicate_address_detection(name) {
        journal.debug(&format!("IPv6 of {name} begins later: {error}"));
    }
    let own = interface
        .addresses
        .iter()
        .find_map(|cidr| link_local(cidr.address));
    if own.is_some()
        && let Err(error) = no_link_local_address(name)
    {
        journal.debug(&format!("{name} has another link-local address: {error}"));
    }
    for cidr in &interface.addresses {
        let outcome = add_address(name, cidr.address, cidr.prefix);
        judge(
            outcome,
            cidr.address.is_ipv6(),
            format!("cannot give {name} the address {cidr}"),
            journal,
        )?;
    }
    link_up(name).map_err(|error| InitError::setup(format!("cannot bring up {name}"), error))?;
    for route in &interface.routes {
        let cidr = route.destination;
        let destination = (cidr.prefix > 0).then_some((cidr.address, cidr.prefix));
        // A default route without a gateway has its family from nothing else.
        let destination = destination.or(route.gateway.is_none().then_some((cidr.address, 0)));
        let outcome = add_route(name, destination, route.gateway);
        judge(
            outcome,
            cidr.address.is_ipv6(),
            format!("cannot set the route to {cidr} by {name}"),
            journal,
        )?;
    }
    let gateways = interface.routes.iter().filter_map(|route| route.gateway);
    if let (Some(address), Some(gateway)) = (own, gateways.filter_map(link_local).next())
        && let Err(error) = present(name, address, gateway)
    {
        journal.debug(&format!("cannot be seen by {gateway}: {error}"));
    }
    Ok(())
}

/// Lets the gateway see this link-local address: to send anything there the kernel asks for the gateway's hardware address,
/// and that question has ours. passt sends clients of the host's `::1` where it has seen the guest.
fn present(name: &str, address: Ipv6Addr, gateway: Ipv6Addr) -> std::io::Result<()> {
    let index = fs_err::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    let index = index.trim_end().parse().map_err(std::io::Error::other)?;
    let at = |address, port| SocketAddrV6::new(address, port, 0, index);
    let socket = UdpSocket::bind(at(address, 0))?;
    // The port of those who throw everything away.
    socket.send_to(&[], at(gateway, 9)).map(drop)
}

fn link_local(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
        _ => None,
    }
}

fn judge(
    outcome: std::io::Result<()>,
    is_ipv6: bool,
    step: String,
    journal: &mut Journal,
) -> Result<(), InitError> {
    match outcome {
        Err(error) if is_ipv6 => {
            journal.warning(&format!("{step}: {error}"));
            Ok(())
        }
        outcome => outcome.map_err(|error| InitError::setup(step, error)),
    }
}

fn missing(select: &InterfaceRef) -> InitError {
    let text = match select {
        InterfaceRef::Mac(mac) => {
            format!("no network interface with the address {mac} has appeared")
        }
        InterfaceRef::Name(name) => format!("no network interface {name} has appeared"),
    };
    InitError::new(
        FailureReason::Setup,
        text + " (is its driver among the kernel's modules?)",
    )
}

/// The name of an interface, once it is there.
fn find(select: &InterfaceRef) -> Option<String> {
    for entry in fs_err::read_dir("/sys/class/net").ok()?.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_it = match select {
            InterfaceRef::Name(wanted) => name == *wanted,
            InterfaceRef::Mac(wanted) => {
                let address = fs_err::read_to_string(entry.path().join("address"));
                address.is_ok_and(|text| text.trim_end().parse::<MacAddress>() == Ok(*wanted))
            }
        };
        if is_it {
            return Some(name);
        }
    }
    None
}
