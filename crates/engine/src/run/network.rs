//! The network of an instance: which one it gets, what its guest sets up, what its record tells.
//!
//! User-mode addresses are the same for every guest and known beforehand. Those of a bridge come from a pool when the
//! machine is launched (`monitor::network`), so the record of one that is not launched has none yet.

use std::net::IpAddr;

use firebuild_guest_proto::{Resolver, RunConfig};
use firebuild_vm::net::bridge;
use firebuild_vm::net::guest::{GUEST_MAC, guest_network};
use firebuild_vm::net::host::HostNetwork;
use firebuild_vm::spec::{BridgeNetwork, Network, UserNetwork};

use super::error::{RunError, RunErrorKind};
use super::request::{NetworkMode, Request};
use crate::error::Error;
use crate::instance::{InstanceId, NetworkRecord};

/// The mode that a request means; never [`NetworkMode::Auto`]. `user_mode` says whether its backend has user-mode
/// networking.
///
/// # Errors
/// A bridge without root.
pub(crate) fn resolve(mode: NetworkMode, user_mode: bool) -> Result<NetworkMode, RunError> {
    let root = rustix::process::geteuid().is_root();
    match mode {
        NetworkMode::Auto if user_mode => Ok(NetworkMode::User),
        NetworkMode::Auto if root => Ok(NetworkMode::Bridge),
        NetworkMode::Auto => Err(Error::new(
            RunErrorKind::Flag,
            "this backend's network is a bridge, which needs root: run as root, or use --network=none or --backend=qemu",
        )),
        NetworkMode::Bridge if !root => Err(Error::new(
            RunErrorKind::Flag,
            "--network=bridge needs root: run as root, or use --network=user",
        )),
        mode => Ok(mode),
    }
}

/// What the machine gets.
pub(crate) fn spec(request: &Request, mode: NetworkMode, id: &InstanceId) -> Network {
    match mode {
        NetworkMode::None => Network::None,
        NetworkMode::Auto | NetworkMode::User => Network::User(UserNetwork {
            publish: request.publish.clone(),
        }),
        NetworkMode::Bridge => Network::Bridge(BridgeNetwork {
            address: request.ip_address,
            ..bridge::planned(id.as_str(), request.netns.as_deref(), &request.publish)
        }),
    }
}

/// What people should know of an address that they asked for.
pub(crate) fn address_notice(request: &Request, mode: NetworkMode) -> Option<String> {
    let address = request.ip_address.filter(|_| mode != NetworkMode::Bridge)?;
    Some(format!(
        "--ip-address {address} has no effect: only a VM on the bridge (--network=bridge) has an address of its own"
    ))
}

/// What the guest sets up, as far as it is known. A notice tells what will be missing.
pub(crate) fn configure(
    guest: &mut RunConfig,
    mode: NetworkMode,
    host: &HostNetwork,
) -> Option<String> {
    let resolver = |nameservers: Vec<IpAddr>, search: Vec<String>| Resolver {
        nameservers,
        search,
        options: Vec::new(),
    };
    match mode {
        NetworkMode::None => None,
        NetworkMode::Auto | NetworkMode::User => {
            let network = guest_network(host);
            guest.interfaces = vec![network.interface];
            guest.resolver = Some(resolver(network.nameservers, network.search));
            None
        }
        NetworkMode::Bridge => {
            let nameservers = of_bridge(host);
            let missing = nameservers.is_empty();
            guest.resolver = Some(resolver(nameservers, host.search.clone()));
            missing.then(|| {
                "the guest has no name server: /etc/resolv.conf names none that a guest on the bridge reaches (one on the \
                 host's loopback is out of its reach)"
                    .to_owned()
            })
        }
    }
}

/// Name servers that a guest on the bridge, which has IPv4 only, reaches.
fn of_bridge(host: &HostNetwork) -> Vec<IpAddr> {
    host.nameservers
        .iter()
        .copied()
        .filter(IpAddr::is_ipv4)
        .collect()
}

/// What the record tells before the launch.
pub(crate) fn record(request: &Request, mode: NetworkMode, host: &HostNetwork) -> NetworkRecord {
    match mode {
        NetworkMode::None => NetworkRecord {
            mode: "none".to_owned(),
            ..NetworkRecord::default()
        },
        NetworkMode::Bridge => NetworkRecord {
            mode: "bridge".to_owned(),
            nameservers: of_bridge(host),
            publish: request.publish.clone(),
            ..NetworkRecord::default()
        },
        NetworkMode::Auto | NetworkMode::User => {
            let network = guest_network(host);
            NetworkRecord {
                mode: "user".to_owned(),
                mac: Some(GUEST_MAC.to_string()),
                nameservers: network.nameservers,
                publish: request.publish.clone(),
                ..NetworkRecord::default()
            }
            .with_interface(&network.interface)
        }
    }
}
