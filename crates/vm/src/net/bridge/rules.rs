//! The rules of the network and those of its machines, as changes of nftables. Pure, but for their commit.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use firebuild_sys::nftables::{
    Batch, Family, Hook, Policy, Protocol as Transport, Rule, Socket, Table,
};
use rustix::io::Errno;

use super::subnet::Subnet;
use super::{BRIDGE, TABLE};
use crate::spec::{BridgeNetwork, PortPublish, Protocol};

const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);
/// Clouds give out the host's credentials at 169.254.169.254; the rest is the host's own link.
const LINK_LOCAL: (Ipv4Addr, u8) = (Ipv4Addr::new(169, 254, 0, 0), 16);

/// Changes that may be a table's owner's.
pub(super) struct Owned<'a> {
    make: Box<dyn Fn(bool) -> Batch + 'a>,
}

/// Makes changes as the owner of their table, or, for a kernel before 5.12, as anybody.
pub(super) fn commit(socket: &Socket, changes: Owned<'_>) -> io::Result<()> {
    let Owned { make } = changes;
    match make(true).commit(socket) {
        Err(error) if is_unknown(&error) => make(false).commit(socket),
        made => made,
    }
}

fn is_unknown(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Deletes the tables of this name. That there are none is no error: those of an owner went with it.
pub(super) fn delete(socket: &Socket, name: &str) -> io::Result<()> {
    let mut outcome = Ok(());
    for family in [Family::Ip, Family::Netdev] {
        let mut batch = Batch::new();
        batch.delete_table(Table { family, name });
        let deleted = match batch.commit(socket) {
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_unknown(&error) => Ok(()),
            deleted => deleted,
        };
        outcome = outcome.and(deleted);
    }
    outcome
}

/// The rules of the network.
pub(super) fn network(subnet: &Subnet) -> Batch {
    let table = Table {
        family: Family::Ip,
        name: TABLE,
    };
    let from_guests = || Rule::new().from_link(BRIDGE);
    let to_guests = || Rule::new().to_link(BRIDGE);
    let mut batch = Batch::new();
    batch.add_table(table, false);
    let mut chain = |name: &str, hook: Hook<'_>, rules: &[Rule]| {
        batch.add_chain(table, name, hook, Policy::Accept);
        for rule in rules {
            batch.add_rule(table, name, rule);
        }
    };
    chain(
        "raw",
        Hook::Raw,
        &[
            from_guests().to_network(LOOPBACK.0, LOOPBACK.1).drop(),
            from_guests().from_network(LOOPBACK.0, LOOPBACK.1).drop(),
            from_guests().to_network(LINK_LOCAL.0, LINK_LOCAL.1).drop(),
        ],
    );
    chain(
        "forward",
        Hook::Forward,
        &[
            // Between guests: comes here where br_netfilter is on, or by a published port.
            from_guests().to_link(BRIDGE).accept(),
            to_guests().of_known_connections().accept(),
            to_guests().redirected().accept(),
            // A neighbour that sends to the guest's own address: only published ports lead inside.
            to_guests().drop(),
        ],
    );
    let ours = (subnet.network(), subnet.prefix());
    chain(
        "postrouting",
        Hook::NatPostrouting,
        &[
            Rule::new()
                .from_network(ours.0, ours.1)
                .not_to_link(BRIDGE)
                .masquerade(),
            // A guest that is redirected to a guest, and this host by its loopback: the answer has to come back here.
            to_guests()
                .redirected()
                .from_network(ours.0, ours.1)
                .masquerade(),
            to_guests()
                .redirected()
                .from_network(LOOPBACK.0, LOOPBACK.1)
                .masquerade(),
        ],
    );
    batch
}

/// The rules of a machine's published ports.
pub(super) fn published<'a>(
    name: &'a str,
    publish: &'a [PortPublish],
    guest: Ipv4Addr,
) -> Owned<'a> {
    let make = move |owned| {
        let table = Table {
            family: Family::Ip,
            name,
        };
        let mut batch = Batch::new();
        batch.add_table(table, owned);
        batch.add_chain(table, "prerouting", Hook::NatPrerouting, Policy::Accept);
        batch.add_chain(table, "output", Hook::NatOutput, Policy::Accept);
        for port in publish {
            let Some(rule) = port_rule(port, guest) else {
                continue;
            };
            // Nothing that arrives is for the loopback.
            if !port.listen_ip().is_loopback() {
                batch.add_rule(table, "prerouting", &rule);
            }
            batch.add_rule(table, "output", &rule);
        }
        batch
    };
    Owned {
        make: Box::new(make),
    }
}

/// `None` for IPv6, which the check of a spec refuses.
fn port_rule(port: &PortPublish, guest: Ipv4Addr) -> Option<Rule> {
    let IpAddr::V4(host) = port.listen_ip() else {
        return None;
    };
    let rule = if host.is_unspecified() {
        Rule::new().to_this_host()
    } else {
        Rule::new().to_network(host, 32)
    };
    let transport = match port.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    };
    Some(
        rule.to_port(transport, port.host_port)
            .redirect(guest, port.guest_port),
    )
}

/// Lets a machine speak for its own address only: IPv4 and ARP, nothing else.
pub(super) fn only_own_address<'a>(
    name: &'a str,
    network: &'a BridgeNetwork,
    guest: Ipv4Addr,
) -> Owned<'a> {
    let make = move |owned| {
        let table = Table {
            family: Family::Netdev,
            name,
        };
        let chain = "ingress";
        let mut batch = Batch::new();
        batch.add_table(table, owned);
        batch.add_chain(table, chain, Hook::Ingress(&network.tap), Policy::Drop);
        let rules = [
            Rule::new().not_from_hardware(network.mac.0).drop(),
            Rule::new().ipv4_from(guest).accept(),
            Rule::new().arp_from(guest).accept(),
            // Who asks whether an address is free has none yet: RFC 5227.
            Rule::new().arp_from(Ipv4Addr::UNSPECIFIED).accept(),
        ];
        for rule in &rules {
            batch.add_rule(table, chain, rule);
        }
        batch
    };
    Owned {
        make: Box::new(make),
    }
}
