//! The network that the steps of a build share: a namespace with one link, whose frames come out of it by descriptor.
//!
//! ```text
//!  namespace of the steps             namespace of nobody
//!  lo, eth0 ═══════ veth ═══════════▶ far ── packet socket ──▶ who asked: guard, passt
//! ```
//!
//! A packet socket at the far end needs no `/dev/net/tun`, so an ordinary user has it in a user namespace of his own. The
//! far end is in a namespace that no process is in: a step cannot get there, and what a step sends, raw frames included,
//! comes out of the socket and nowhere else. Both namespaces live as long as the descriptors.

use std::os::fd::AsFd;

use firebuild_sys::namespace::{self, Namespaces};
use firebuild_sys::net::veth::{Peer, add_pair, finish_frames_in_software};
use firebuild_sys::{net, packet};

use super::Result;
use crate::job::{Failure, FailureKind, NetworkJob, Reply};
use crate::wire::Link;

/// Name of the link that steps see.
const LINK: &str = "eth0";
/// Name of its far end.
const FAR: &str = "far";

fn host<E: std::error::Error + 'static>(message: &'static str) -> impl FnOnce(E) -> Failure {
    Failure::because(FailureKind::Host, message)
}

/// Makes the network, hands out the namespace and the frames, in that order.
pub(super) fn make(link: &Link, job: &NetworkJob) -> Result<()> {
    let own = |message: &'static str| {
        namespace::unshare(Namespaces::NET).map_err(host(message))?;
        fs_err::File::open("/proc/self/ns/net").map_err(host("cannot name a network namespace"))
    };
    let steps = own("cannot make a network namespace for the steps")?;
    let far = own("cannot make a network namespace")?;
    // What the kernel says by itself is nothing for steps.
    no_ipv6("default");
    let peer = Peer {
        name: LINK,
        address: job.hardware_address,
        namespace: steps.as_fd(),
    };
    add_pair(FAR, job.mtu, peer).map_err(host("cannot make the link of the steps' network"))?;
    net::link_up(FAR).map_err(host("cannot bring up the far end of the steps' link"))?;
    let index = net::link_index(FAR).map_err(host("cannot find the far end of the steps' link"))?;
    let frames = packet::open(index).map_err(host("cannot open the frames of the steps' link"))?;

    namespace::join(steps.as_fd()).map_err(host("cannot enter the steps' network"))?;
    configure(job).map_err(host("cannot set up the steps' network"))?;
    namespace::join(far.as_fd()).map_err(host("cannot leave the steps' network"))?;
    link.say(&Reply::Network, &[steps.as_fd(), frames.as_fd()])
        .map_err(Failure::because(
            FailureKind::Cancelled,
            "nobody waits for the network",
        ))
}

fn configure(job: &NetworkJob) -> std::io::Result<()> {
    net::link_up("lo")?;
    if job.addresses.iter().all(|(address, _)| address.is_ipv4()) {
        // An address for the link alone would make programs believe in IPv6.
        no_ipv6(LINK);
    } else {
        // Nobody else is on the link. Without this, IPv6 begins a second later than the first step.
        let _ = net::no_duplicate_address_detection(LINK);
    }
    finish_frames_in_software(LINK)?;
    for (address, prefix) in &job.addresses {
        net::add_address(LINK, *address, *prefix)?;
    }
    net::link_up(LINK)?;
    for gateway in &job.gateways {
        net::add_route(LINK, None, Some(*gateway))?;
    }
    Ok(())
}

/// As far as the kernel knows IPv6 and lets it be switched off.
fn no_ipv6(link: &str) {
    let _ = fs_err::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1");
}
