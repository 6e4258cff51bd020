//! The private bridge of root's machines: a tap for each of them, addresses from a pool, NAT, published ports.
//!
//! ```text
//!  guest ══ tap ══╗                      table ip firebuild           uplink
//!  guest ══ tap ══╬══ bridge 10.251.0.1 ── forward, masquerade ────── eth0 ── outside
//!  guest ══ tap ══╝        ▲
//!             table ip firebuild-ID: published ports, from outside and from this host
//! ```
//!
//! Everything is made by netlink, when the first machine wants it, and gone with the last one. Who has what is written
//! into files before it is made (`place`), and each address is held by the lock of its file: so the next start, or
//! `purge`, finds what a killed owner left and removes that and nothing else ([`sweep`]). The rules of a machine belong to
//! a netlink socket of its owner, where the kernel knows that, and vanish with it by themselves.
//!
//! `docs/design/0004-bridge-network.md` has the reasons. There is one network, [`BRIDGE`], for each network namespace;
//! others would differ by their names, subnets and rules, which stand in its record already.

mod error;
mod host;
mod namespace;
mod place;
mod rules;
mod subnet;
mod sweep;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use firebuild_guest_proto::{Cidr, Interface, InterfaceRef, MacAddress, Route};
use firebuild_sys::net::{link, link_up, tap};
use firebuild_sys::nftables::Socket;

use super::ports;
use crate::run_dir::SHORT_ID_BYTES;
use crate::spec::{BridgeNetwork, PortPublish};
use error::{Failures, io_error, rules_error};
pub use error::{NetworkError, NetworkErrorKind};
use place::{Lease, LeaseRecord, Place};
use subnet::Subnet;
pub use sweep::{Swept, sweep};

/// Name of the bridge.
pub const BRIDGE: &str = "firebuild0";
/// Names of taps begin like this, and go on with the short id of the machine.
const TAP: &str = "fb";
/// Names of tables begin like this; that of the network is this, those of machines go on with `-` and the short id.
const TABLE: &str = "firebuild";

/// What a machine wants of the network.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Name of the machine.
    pub id: &'a str,
    /// The user who opens the tap; `None` leaves that to root.
    pub owner: Option<u32>,
    /// Ports of the host that lead to ports of the guest.
    pub publish: &'a [PortPublish],
    /// Network namespace to do it in; `None` is that of the caller.
    pub netns: Option<&'a Path>,
    /// The address that it is to have; `None` is the first free one.
    pub address: Option<Ipv4Addr>,
    /// Addresses that guests have to reach, so that none of them falls into the subnet: name servers.
    pub reachable: &'a [IpAddr],
}

/// A machine's part of the network, until it leaves.
#[derive(Debug)]
pub struct Joined {
    subnet: Subnet,
    network: BridgeNetwork,
    table: String,
    namespace: Option<OwnedFd>,
    /// `None` once it has left.
    lease: Option<Lease>,
    /// Owns the rules.
    rules: Option<Socket>,
    /// Listen on the published ports, so that nobody else on this host takes them.
    ports: Vec<OwnedFd>,
    notices: Vec<String>,
}

/// What [`join`] would most likely give, for a plan that is only shown: nothing is made or asked.
#[must_use]
pub fn planned(id: &str, netns: Option<&Path>, publish: &[PortPublish]) -> BridgeNetwork {
    BridgeNetwork {
        tap: format!("{TAP}{}", short(id)),
        mac: mac_of(
            Subnet::first()
                .guests()
                .next()
                .unwrap_or(Ipv4Addr::LOCALHOST),
        ),
        netns: netns.map(Path::to_owned),
        address: None,
        publish: publish.to_vec(),
    }
}

/// Makes a machine a part of the network; what of it is not there yet is made. Needs root.
///
/// # Errors
/// A published port that is taken, no free address, a link of our name that is not ours, what the kernel refuses. Then
/// nothing of it is left.
pub fn join(wanted: &Wanted<'_>) -> Result<Joined, NetworkError> {
    let namespace = wanted.netns.map(namespace::open).transpose()?;
    let inside = namespace.as_ref().map(AsFd::as_fd);
    let mut joined = namespace::inside(inside, || join_here(wanted))??;
    joined.namespace = namespace;
    Ok(joined)
}

fn join_here(wanted: &Wanted<'_>) -> Result<Joined, NetworkError> {
    if !rustix::process::geteuid().is_root() {
        return Err(NetworkError::not_root());
    }
    let ports = ports::hold(wanted.publish).map_err(NetworkError::port)?;
    // One for all, and kept: where there are tables, closing one waits for every processor (`nft_rcv_nl_event`).
    let socket = Socket::open().map_err(io_error("cannot talk to nftables"))?;
    let place = Place::enter().map_err(io_error("cannot keep the record of the network"))?;
    // Whatever cannot be removed is in nobody's way: the next attempt, or `purge`, tells it.
    sweep::dead_leases(&place, &mut Failures::default(), &mut Vec::new());
    let mut network = planned(wanted.id, wanted.netns, wanted.publish);
    let table = format!("{TABLE}-{}", short(wanted.id));
    let record = LeaseRecord::new(wanted.id, &network.tap, &table);
    let taken = host::network(&place, wanted, &socket)
        .and_then(|subnet| Ok((subnet, place.take(&subnet, &record, wanted.address)?)));
    let (subnet, lease) = match taken {
        Ok(taken) => taken,
        Err(error) => {
            // Half a network is no use to anyone, unless it is used.
            drop(sweep::unused_network(place));
            return Err(error);
        }
    };
    drop(place);
    network.mac = mac_of(lease.address());
    network.address = wanted.address;
    // From here on it is `Joined` that knows what there is, and takes it away should the rest fail.
    let mut joined = Joined {
        subnet,
        network,
        table,
        namespace: None,
        lease: Some(lease),
        rules: Some(socket),
        ports,
        notices: Vec::new(),
    };
    joined.make_tap(wanted.owner)?;
    joined.make_rules()?;
    Ok(joined)
}

impl Joined {
    fn make_tap(&self, owner: Option<u32>) -> Result<(), NetworkError> {
        let name = &self.network.tap;
        tap::add(name, owner).map_err(io_error("cannot make the tap of the machine"))?;
        // What the kernel itself would say by a port of a bridge is nothing for guests.
        host::no_ipv6(name);
        link::join_bridge(name, BRIDGE)
            .and_then(|()| link_up(name))
            .map_err(io_error(
                "cannot connect the tap of the machine with its bridge",
            ))
    }

    fn make_rules(&mut self) -> Result<(), NetworkError> {
        let (Some(socket), Some(lease)) = (&self.rules, &self.lease) else {
            return Ok(());
        };
        let address = lease.address();
        let spoofing = rules::only_own_address(&self.table, &self.network, address);
        if let Err(error) = rules::commit(socket, spoofing) {
            self.notices.push(format!(
                "this kernel cannot keep the guests on {BRIDGE} from taking each other's addresses (nftables of the family \
                 netdev: {error})"
            ));
        }
        if !self.network.publish.is_empty() {
            let published = rules::published(&self.table, &self.network.publish, address);
            rules::commit(socket, published)
                .map_err(rules_error("cannot make the rules of the published ports"))?;
        }
        Ok(())
    }

    /// What a backend has to know.
    #[must_use]
    pub fn network(&self) -> &BridgeNetwork {
        &self.network
    }

    /// What the guest sets up.
    #[must_use]
    pub fn interface(&self) -> Interface {
        let addresses = self.lease.iter().map(|lease| Cidr {
            address: lease.address().into(),
            prefix: self.subnet.prefix(),
        });
        Interface {
            select: InterfaceRef::Mac(self.network.mac),
            addresses: addresses.collect(),
            routes: vec![Route::default_via(self.subnet.gateway().into())],
            mtu: None,
        }
    }

    /// Things that people should be told once.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Gives everything back, and goes on past what cannot be removed. With the last machine the network goes. Gives what
    /// stayed, and why.
    #[must_use]
    pub fn leave(mut self) -> Vec<(String, io::Error)> {
        self.leave_now().into_list()
    }

    fn leave_now(&mut self) -> Failures {
        let Some(lease) = self.lease.take() else {
            return Failures::default();
        };
        let (table, tap) = (&self.table, &self.network.tap);
        let socket = self.rules.take();
        let left = namespace::inside(self.namespace.as_ref().map(AsFd::as_fd), || {
            let mut failures = Failures::default();
            failures.note("the rules of the machine", || {
                let socket = socket.map_or_else(Socket::open, Ok)?;
                rules::delete(&socket, table)
            });
            failures.note(tap, || host::delete_tap(tap));
            match Place::enter() {
                Ok(place) => {
                    let kept = failures.is_empty();
                    // With something left, the file stays for the next attempt; its lock goes.
                    failures.note("the address of the machine", || lease.give_back(kept));
                    failures.append(sweep::unused_network(place));
                }
                Err(error) => failures.push("the record of the network", error),
            }
            failures
        });
        self.ports.clear();
        left.unwrap_or_else(|error| {
            let mut failures = Failures::default();
            failures.push("the network of the machine", io::Error::other(error));
            failures
        })
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        // After `leave` nothing is left to do. Without it there is nobody to tell; the record stays for `purge`.
        drop(self.leave_now());
    }
}

/// Opens the tap of a machine; `plain` is for frames without a header of virtio. It vanishes when the last descriptor of it
/// is closed.
///
/// # Errors
/// When the kernel refuses: no such link, held by somebody else.
pub fn open_tap(name: &str, netns: Option<&Path>, plain: bool) -> io::Result<OwnedFd> {
    let namespace = netns
        .map(namespace::open)
        .transpose()
        .map_err(io::Error::other)?;
    namespace::inside(namespace.as_ref().map(AsFd::as_fd), || {
        let held = match plain {
            true => tap::open_plain(name)?,
            false => tap::open(name)?,
        };
        tap::set_persistent(held.as_fd(), false)?;
        Ok(held)
    })
    .map_err(io::Error::other)?
}

/// The beginning of a machine's name by which things of it are named.
fn short(id: &str) -> &str {
    id.get(..SHORT_ID_BYTES).unwrap_or(id)
}

/// Hardware address of whoever has this address in the network. So a guest that gets the address of an earlier one is who
/// the others believe it to be.
fn mac_of(address: Ipv4Addr) -> MacAddress {
    let [a, b, c, d] = address.octets();
    MacAddress([0x02, 0xfb, a, b, c, d])
}

#[cfg(test)]
mod tests;
