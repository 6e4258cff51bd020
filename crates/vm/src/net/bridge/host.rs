//! The host's side of the network: the bridge, its address, forwarding, its rules.

use std::io;

use firebuild_sys::net::{add_address, link, link_index, link_up};
use firebuild_sys::nftables::{Family, Socket};
use fs_err as fs;
use rustix::io::Errno;

use super::error::{Failures, NetworkError, NetworkErrorKind, io_error, rules_error};
use super::place::{NetworkRecord, Place};
use super::subnet::{Subnet, taken};
use super::{BRIDGE, TABLE, Wanted, mac_of, rules};

/// Switches forwarding on and off for a whole network namespace: `ip-sysctl.rst`.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const ROUTES: &str = "/proc/thread-self/net/route";

/// The network, made as far as it is not there. Its record is written first.
pub(super) fn network(
    place: &Place,
    wanted: &Wanted<'_>,
    socket: &Socket,
) -> Result<Subnet, NetworkError> {
    let record = place
        .network()
        .map_err(io_error("cannot read the record of the network"))?;
    let (subnet, record) = match record.and_then(|it| Some((Subnet::of(it.subnet)?, it))) {
        Some(known) => known,
        None => record_new(place, wanted)?,
    };
    if link_index(BRIDGE).is_err() {
        make_bridge(&subnet, socket)
            .map_err(rules_error("cannot make the bridge of the network"))?;
    }
    make_rules(&subnet, socket).map_err(rules_error("cannot make the rules of the network"))?;
    if record.forwarding_was_off {
        set_forwarding(true).map_err(io_error("cannot switch forwarding on"))?;
    }
    Ok(subnet)
}

fn record_new(place: &Place, wanted: &Wanted<'_>) -> Result<(Subnet, NetworkRecord), NetworkError> {
    if link_index(BRIDGE).is_ok() {
        return Err(NetworkError::foreign());
    }
    let routes = fs::read_to_string(ROUTES).map_err(io_error("cannot read the host's routes"))?;
    let subnet = Subnet::free(&taken(&routes, wanted.reachable)).ok_or_else(|| {
        NetworkError::new(
            NetworkErrorKind::NoSubnet,
            "no subnet for the bridge network: this host has routes into all of 10.251.0.0/16 and 172.30.0.0/16; use \
             --network=user",
        )
    })?;
    let record = NetworkRecord::new(BRIDGE, TABLE, &subnet, !is_forwarding(), wanted.netns);
    place
        .write_network(&record)
        .map_err(io_error("cannot record the network"))?;
    Ok((subnet, record))
}

fn make_bridge(subnet: &Subnet, socket: &Socket) -> io::Result<()> {
    let gateway = subnet.gateway();
    link::add_bridge(BRIDGE, mac_of(gateway).0)?;
    let configured = || -> io::Result<()> {
        // A guest could make itself the host's IPv6 router by an advertisement.
        no_ipv6(BRIDGE);
        // Ports that are published on the host's loopback: packets of 127.0.0.1 leave by the bridge and their answers come
        // back. What guests send to the loopback is dropped by the rules, before anything is routed.
        fs::write(
            format!("/proc/sys/net/ipv4/conf/{BRIDGE}/route_localnet"),
            "1",
        )?;
        add_address(BRIDGE, gateway.into(), subnet.prefix())
    };
    // The rules stand before the bridge is up: no packet passes without them.
    let made = configured()
        .and_then(|()| make_rules(subnet, socket))
        .and_then(|()| link_up(BRIDGE));
    if made.is_err() {
        // A bridge that is half made would be taken for a whole one.
        let _ = link::delete(BRIDGE);
    }
    made
}

/// The rules, unless they are there; somebody may have flushed all rules of the host.
fn make_rules(subnet: &Subnet, socket: &Socket) -> io::Result<()> {
    if socket
        .tables(Family::Ip)?
        .iter()
        .any(|table| table == TABLE)
    {
        return Ok(());
    }
    rules::network(subnet).commit(socket)
}

/// Removes what the record tells of. `Ok` when nothing of it is left.
pub(super) fn remove(record: &NetworkRecord) -> Failures {
    let mut failures = Failures::default();
    failures.note("the rules of the network", || {
        rules::delete(&Socket::open()?, TABLE)
    });
    failures.note(&record.bridge, delete_bridge);
    failures.note("forwarding", || {
        if record.forwarding_was_off && is_forwarding() && !other_bridges()? {
            set_forwarding(false)?;
        }
        Ok(())
    });
    failures
}

fn delete_bridge() -> io::Result<()> {
    let links = link::links()?;
    let Some(bridge) = links
        .iter()
        .find(|link| link.name == BRIDGE && link.kind.as_deref() == Some("bridge"))
    else {
        return Ok(());
    };
    let ports: Vec<&str> = links
        .iter()
        .filter(|link| link.master == Some(bridge.index))
        .map(|link| link.name.as_str())
        .collect();
    if !ports.is_empty() {
        return Err(io::Error::other(format!(
            "links that are not firebuild's are ports of it: {}",
            ports.join(", ")
        )));
    }
    link::delete(BRIDGE)
}

/// Whether another program has a bridge here, and so wants forwarding that it found switched on.
fn other_bridges() -> io::Result<bool> {
    Ok(link::links()?
        .iter()
        .any(|link| link.kind.as_deref() == Some("bridge") && link.name != BRIDGE))
}

/// Deletes a tap by name, if there is a tap of that name.
pub(super) fn delete_tap(name: &str) -> io::Result<()> {
    let is_tap = link::links()?
        .iter()
        .any(|link| link.name == name && link.kind.as_deref() == Some("tun"));
    if !is_tap {
        return Ok(());
    }
    match link::delete(name) {
        // It went with the VMM meanwhile.
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(()),
        deleted => deleted,
    }
}

/// As far as the kernel knows IPv6 and lets it be switched off.
pub(super) fn no_ipv6(link: &str) {
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1");
}

fn is_forwarding() -> bool {
    fs::read_to_string(FORWARDING).is_ok_and(|text| text.trim() == "1")
}

fn set_forwarding(on: bool) -> io::Result<()> {
    fs::write(FORWARDING, if on { "1" } else { "0" })
}
