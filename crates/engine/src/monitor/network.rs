//! The part of a private bridge that a machine gets when it is launched.

use firebuild_guest_proto::RunConfig;
use firebuild_vm::VmSpec;
use firebuild_vm::net::bridge::{self, Joined, NetworkErrorKind, Wanted};
use firebuild_vm::net::host::HostNetwork;
use firebuild_vm::spec::Network;

use crate::error::Error;
use crate::instance::{Owned, RECORDS, Record};
use crate::run::{RunError, RunErrorKind};

/// Takes an address from the pool, makes the tap for `owner` and the rules, and tells spec, guest and record. `None` for a
/// machine that is on no bridge.
pub(super) fn join(
    owned: &Owned,
    owner: Option<u32>,
    spec: &mut VmSpec,
    guest: &mut RunConfig,
) -> Result<Option<Joined>, RunError> {
    let Network::Bridge(network) = &spec.network else {
        return Ok(None);
    };
    let wanted = Wanted {
        id: &spec.id,
        owner,
        publish: &network.publish,
        netns: network.netns.as_deref(),
        address: network.address,
        reachable: &HostNetwork::discover().nameservers,
    };
    let joined = bridge::join(&wanted).map_err(|error| {
        let kind = match error.kind() {
            NetworkErrorKind::Port => RunErrorKind::Port,
            _ => RunErrorKind::Launch,
        };
        Error::caused(kind, "no network for the machine", error)
    })?;
    let mut interface = joined.interface();
    interface.mtu = spec.hardware.mtu.map(u32::from);
    let told = &owned.instance().record().network;
    let record = Record {
        network: told.clone().with_interface(&interface),
        ..owned.instance().record().clone()
    };
    owned.write(RECORDS.record, &record).map_err(|error| {
        Error::caused(RunErrorKind::Instance, "cannot record the machine", error)
    })?;
    guest.interfaces = vec![interface];
    spec.network = Network::Bridge(joined.network().clone());
    Ok(Some(joined))
}
