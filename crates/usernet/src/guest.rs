//! The guest's fixed addresses, and passt's arguments for them.
//!
//! Nothing is asked by DHCP: every guest sees the same private network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use firebuild_guest_proto::net::{Cidr, Interface, InterfaceRef, MacAddress, Route};

use crate::host::HostNetwork;
use crate::publish::{PortPublish, Protocol};

/// Hardware address of the guest's interface; locally administered.
pub const GUEST_MAC: MacAddress = MacAddress([0x02, 0xfb, 0x00, 0x00, 0x00, 0x15]);
/// Hardware address of the gateway.
pub const GATEWAY_MAC: MacAddress = MacAddress([0x02, 0xfb, 0x00, 0x00, 0x00, 0x02]);
/// IPv4 address of the guest; the network has 24 bits.
pub const GUEST_IPV4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// IPv4 gateway of the guest.
pub const GATEWAY_IPV4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Where name servers on the host's loopback are reached (UDP).
pub const DNS_IPV4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// IPv6 address of the guest; the network has 64 bits. Unique local, so IPv4 is preferred for names that have both.
pub const GUEST_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xfb, 0, 0, 0, 0, 0, 0x15);
/// Link-local address of the guest. One of its own making would come up to a second after its link, and a client at the
/// host's `::1`, for whom passt looks for the guest there, would wait for ten.
pub const GUEST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xfb, 0x15);
/// IPv6 gateway of the guest. Link-local: only then passt lets the guest's answers to clients at the host's `::1` through.
pub const GATEWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xfb, 2);
/// MTU of the guest's interface in bytes: the largest that passt takes; its segments are cut by the host's sockets.
pub const MTU: u32 = 65520;

/// What the guest has to set up: an interface and name servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestNetwork {
    /// The interface with its addresses and routes.
    pub interface: Interface,
    /// Name servers.
    pub nameservers: Vec<IpAddr>,
    /// Search list.
    pub search: Vec<String>,
}

/// What a guest behind user-mode networking sets up on this host. IPv4 always: its published ports are reached from the
/// host without any route; IPv6 where the host has a way out.
#[must_use]
pub fn guest_network(host: &HostNetwork) -> GuestNetwork {
    let mut addresses = vec![Cidr {
        address: GUEST_IPV4.into(),
        prefix: 24,
    }];
    let mut routes = vec![Route::default_via(GATEWAY_IPV4.into())];
    let ipv6 = host.ipv6_route.is_some();
    if ipv6 {
        addresses.extend([GUEST_IPV6, GUEST_LINK_LOCAL].map(|address| Cidr {
            address: address.into(),
            prefix: 64,
        }));
        routes.push(Route::default_via(GATEWAY_IPV6.into()));
    }
    let reachable = |server: &IpAddr| ipv6 || server.is_ipv4();
    let mut nameservers: Vec<IpAddr> = host.nameservers.iter().copied().filter(reachable).collect();
    if nameservers.is_empty() {
        nameservers.push(DNS_IPV4.into());
    }
    let interface = Interface {
        select: InterfaceRef::Mac(GUEST_MAC),
        addresses,
        routes,
        mtu: Some(MTU),
    };
    GuestNetwork {
        interface,
        nameservers,
        search: host.search.clone(),
    }
}

/// What `/etc/resolv.conf` says where there is this network: the host's file with the name servers of the network.
#[must_use]
pub fn resolv_conf(network: &GuestNetwork, host: &[u8]) -> Vec<u8> {
    let mut text: String = network
        .nameservers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    for line in String::from_utf8_lossy(host).lines() {
        let word = line.split_whitespace().next();
        if matches!(word, Some("search" | "domain" | "options" | "sortlist")) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.into_bytes()
}

/// Arguments of passt for a guest with these published ports and this MTU in bytes. `socket` is the number of the descriptor
/// that leads to the guest, `ready` that of the pipe on which it reports that it listens.
#[must_use]
pub fn passt_args(
    publish: &[PortPublish],
    host: &HostNetwork,
    mtu: u32,
    socket: i32,
    ready: i32,
) -> Vec<String> {
    let ipv6 = host.ipv6_route.is_some();
    let mut args: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(|&word| word.to_owned()));
    add(&["--foreground", "--quiet", "--stderr"]);
    add(&[
        "--fd",
        &socket.to_string(),
        "--pid",
        &format!("/proc/self/fd/{ready}"),
    ]);
    if !ipv6 {
        add(&["--ipv4-only"]);
    }
    match (&host.ipv4_route, &host.ipv6_route) {
        // It finds both by itself, or needs to find one only.
        (Some(_), _) => {}
        // Without an interface for a family it leaves that family out; ports on IPv4 are wanted on every host.
        (None, Some(interface)) => add(&["--interface", interface]),
        (None, None) => add(&["--interface", "lo"]),
    }
    add(&[
        "--mac-addr",
        &GATEWAY_MAC.to_string(),
        "--mtu",
        &mtu.to_string(),
    ]);
    add(&[
        "--address",
        &GUEST_IPV4.to_string(),
        "--netmask",
        "24",
        "--gateway",
        &GATEWAY_IPV4.to_string(),
    ]);
    if ipv6 {
        add(&[
            "--address",
            &GUEST_IPV6.to_string(),
            "--gateway",
            &GATEWAY_IPV6.to_string(),
        ]);
    }
    // Nothing is asked by DHCP. The gateway's address leads to the host's loopback here: the guard stands before it.
    add(&["--no-dhcp", "--no-dhcpv6", "--no-ra"]);
    if guest_network(host).nameservers == [IpAddr::V4(DNS_IPV4)] {
        add(&["--dns-forward", &DNS_IPV4.to_string()]);
    }
    for port in publish {
        let option = if port.protocol == Protocol::Udp {
            "--udp-ports"
        } else {
            "--tcp-ports"
        };
        add(&[
            option,
            &format!(
                "{}/{}:{}",
                port.listen_ip(),
                port.host_port,
                port.guest_port
            ),
        ]);
    }
    args
}

#[cfg(test)]
mod tests;
