//! The network of a machine, and the ports that it publishes.

use super::{Check, CheckError, CheckErrorKind, MAX_PORTS};
use crate::capability::{Capabilities, UserNetworking};
use crate::spec::{BridgeNetwork, Network, PortPublish, Protocol};

/// Longest name of a link in bytes: `IFNAMSIZ` of `linux/if.h` without its final NUL.
const MAX_LINK_NAME_BYTES: usize = 15;

/// Proves that this network is possible. What it costs is told in `notices`.
pub(super) fn check(network: &Network, can: &Capabilities, notices: &mut Vec<String>) -> Check {
    match network {
        Network::None => Ok(()),
        Network::User(network) => {
            let way = match &can.user_network {
                UserNetworking::Full { ipv6 } => Way::Passt { ipv6: *ipv6 },
                UserNetworking::PublishedOnly { reason } => {
                    notices.push(reason.clone());
                    Way::Slirp
                }
                UserNetworking::Missing { reason } => {
                    return Err(CheckError::new(
                        CheckErrorKind::Network,
                        format!("no user-mode network: {reason}"),
                    ));
                }
            };
            check_ports(&network.publish, way)
        }
        Network::Bridge(network) => {
            check_tap(network)?;
            check_ports(&network.publish, Way::Bridge)
        }
    }
}

fn check_tap(network: &BridgeNetwork) -> Check {
    let fail = |message| Err(CheckError::new(CheckErrorKind::Network, message));
    let BridgeNetwork {
        tap, mac, netns, ..
    } = network;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    // `.` and `..` are no names for links: they are directories in /proc/sys/net.
    if tap.is_empty()
        || tap.len() > MAX_LINK_NAME_BYTES
        || !tap.bytes().all(plain)
        || tap.starts_with('.')
    {
        return fail(format!(
            "name of the tap {tap:?} is not 1 to {MAX_LINK_NAME_BYTES} of A-Z a-z 0-9 . _ -"
        ));
    }
    if mac.0[0] & 1 != 0 {
        return fail(format!(
            "hardware address {mac} is that of a group, no interface can have it"
        ));
    }
    if let Some(netns) = netns
        && !netns.is_absolute()
    {
        return fail(format!(
            "path of the network namespace {} is not absolute",
            netns.display()
        ));
    }
    Ok(())
}

/// How published ports get into the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Passt { ipv6: bool },
    Slirp,
    Bridge,
}

fn check_ports(ports: &[PortPublish], way: Way) -> Check {
    let fail = |message| Err(CheckError::new(CheckErrorKind::Port, message));
    if ports.len() > MAX_PORTS {
        return fail(format!(
            "{} published ports are too many, a machine takes {MAX_PORTS}",
            ports.len()
        ));
    }
    for (index, port) in ports.iter().enumerate() {
        if port.host_port == 0 || port.guest_port == 0 {
            return fail(format!("published port {port} has a port of 0"));
        }
        if port.protocol == Protocol::Udp && way == Way::Slirp {
            return fail(format!(
                "port {port} cannot be published: UDP needs passt; install the package passt"
            ));
        }
        if port.listen_ip().is_ipv6() {
            match way {
                Way::Passt { ipv6: true } => {}
                Way::Passt { ipv6: false } | Way::Slirp => {
                    return fail(format!(
                        "port {port} is published on IPv6, but the guest has none: it needs passt and an IPv6 default route"
                    ));
                }
                Way::Bridge => {
                    return fail(format!(
                        "port {port} is published on IPv6, which the bridge network does not have; leave the address out, \
                         or use --network=user"
                    ));
                }
            }
        }
        for other in &ports[..index] {
            if overlap(other, port) {
                return fail(format!(
                    "published ports {other} and {port} want the same port of the host"
                ));
            }
            let same_number = (other.host_port, other.protocol) == (port.host_port, port.protocol);
            if same_number && matches!(way, Way::Passt { .. }) {
                return fail(format!(
                    "published ports {other} and {port}: passt takes port {} of the host once, whatever the address; publish \
                     one of them on another port, or, as root, use --network=bridge",
                    port.host_port
                ));
            }
        }
    }
    Ok(())
}

/// Whether two published ports would listen on the same address.
fn overlap(a: &PortPublish, b: &PortPublish) -> bool {
    if (a.host_port, a.protocol) != (b.host_port, b.protocol) {
        return false;
    }
    let (a, b) = (a.listen_ip(), b.listen_ip());
    a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())
}
