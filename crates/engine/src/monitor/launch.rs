//! From an order to a machine that boots.

use std::path::Path;

use firebuild_guest_proto::metadata::{Document, METADATA_ADDRESS};
use firebuild_guest_proto::{Cidr, Metadata, Route, RunConfig};
use firebuild_vm::accel;
use firebuild_vm::backend::qemu::{self, Qemu, find_program};
use firebuild_vm::capability::KvmState;
use firebuild_vm::launch::LaunchErrorKind;
use firebuild_vm::net::host::HostNetwork;
use firebuild_vm::plan::Role;
use firebuild_vm::run_dir::{RunDirError, RunDirErrorKind, reclaim};
use firebuild_vm::spec::{Accel, InitrdPart, MmdsVersion, Network, PrivateBytes};
use firebuild_vm::{Agent, Backend, CheckedSpec, LaunchPlan, Machine, RunDir, VmSpec, uid};
use jiff::Timestamp;
use rustix::rand::{GetRandomFlags, getrandom};

use super::order::Order;
use super::vmm::Vmm;
use super::{disk, initrd, network, pages};
use crate::error::Error;
use crate::instance::{FORMAT, InstanceError, MachineRecord, Owned, ProcessRef, RECORDS, boot_id};
use crate::run::metadata::tell_network;
use crate::run::names::lead_to_gateway;
use crate::run::{RunError, RunErrorKind};
use crate::vmm::search_path;

/// Bytes for the guest's entropy pool: twice what its generator is keyed with.
const ENTROPY_BYTES: usize = 64;

/// A machine that boots, and the channel to it.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) machine: Machine,
    pub(crate) agent: Agent,
    pub(crate) vmm: Vmm,
    /// Things to tell once.
    pub(crate) notices: Vec<String>,
    /// What the guest finds as its metadata.
    pub(crate) metadata: Option<Document>,
}

/// Says whether the start was interrupted, and by which signal.
type Interrupted<'a> = &'a mut dyn FnMut() -> Option<u8>;

/// Launches. What was made is removed again when something fails or the start is interrupted.
pub(crate) fn launch(
    owned: &Owned,
    order: &Order,
    vminit: &'static [u8],
    interrupted: Interrupted<'_>,
) -> Result<Launched, RunError> {
    let backend = order.vmm.open(order.spec.accel, &order.state)?;
    let dir = RunDir::create(&order.runtime, order.id.as_str()).map_err(run_dir_error)?;
    let place = dir.path().to_owned();
    let launched = launch_in(dir, backend, owned, order, vminit, interrupted);
    if launched.is_err() {
        // Its lock is free again by now. The reason for the failure is known and worth more than this one.
        let _ = reclaim(&place);
    }
    launched
}

fn launch_in(
    dir: RunDir,
    backend: Box<dyn Backend>,
    owned: &Owned,
    order: &Order,
    vminit: &'static [u8],
    interrupted: Interrupted<'_>,
) -> Result<Launched, RunError> {
    // The guest's clock and entropy are as fresh as can be.
    let mut guest = refreshed(&order.guest)?;
    let mut spec = order.spec.clone();
    let owner = order.vmm.user().or(dir.user().map(|(uid, _)| uid));
    let network = network::join(owned, owner, &mut spec, &mut guest)?;
    lead_to_gateway(&mut guest, &order.gateway_names);
    let metadata = metadata(owned, order, &mut spec, &mut guest)?;
    spec.initrd = initrd::parts(vminit, &order.modules, &guest)?;
    let (checked, plan) = plan(&*backend, spec, &dir)?;
    pages::enough(checked.spec())?;
    let mut signal = None;
    let made = disk::make(owned.instance(), &order.scratch, &mut || {
        signal = signal.or_else(&mut *interrupted);
        signal.is_some()
    });
    if let Some(signal) = signal.or_else(&mut *interrupted) {
        return Err(Error::new(
            RunErrorKind::Cancelled(signal),
            "interrupted before the machine was started",
        ));
    }
    made?;
    // Waiting for the disk twice would be a tenth of what a start takes on this side.
    owned
        .note(RECORDS.spec, checked.spec())
        .map_err(unrecorded)?;
    if plan.remainders.is_empty() {
        owned.note(RECORDS.plan, &plan).map_err(unrecorded)?;
    } else {
        // These outlive a power cut, and nothing else names them then.
        record(owned, RECORDS.plan, &plan)?;
    }
    let mut machine = firebuild_vm::launch(&plan, dir).map_err(|error| {
        let kind = match error.kind() {
            LaunchErrorKind::Port => RunErrorKind::Port,
            _ => RunErrorKind::Launch,
        };
        Error::caused(kind, "cannot start the machine", error)
    })?;
    let mut notices = plan.notices.clone();
    if let Some(network) = network {
        notices.extend(network.notices().iter().cloned());
        machine.keep_network(network);
    }
    record(owned, RECORDS.machine, &machine_record(&*backend, &machine))?;
    let agent = machine
        .take_channel()
        .ok_or(std::io::ErrorKind::NotConnected.into())
        .and_then(Agent::new)
        .map_err(|error| {
            Error::caused(
                RunErrorKind::Launch,
                "cannot open the channel to the guest",
                error,
            )
        })?;
    let spec = checked.spec();
    let balloon = spec.hardware.balloon.as_ref();
    let vmm = Vmm::new(backend, machine.take_control())
        .serving_metadata(spec.mmds.is_some())
        .with_statistics(balloon.is_some_and(|balloon| balloon.stats_polling_interval_s > 0));
    Ok(Launched {
        machine,
        agent,
        vmm,
        notices,
        metadata,
    })
}

/// The metadata document as it is now: as it was asked for, or as it was left by a change. Where the VMM does not serve it,
/// the guest init does.
fn metadata(
    owned: &Owned,
    order: &Order,
    spec: &mut VmSpec,
    guest: &mut RunConfig,
) -> Result<Option<Document>, RunError> {
    let Some(mmds) = &mut spec.mmds else {
        return Ok(None);
    };
    let changed = owned.instance().metadata().map_err(|error| {
        Error::caused(
            RunErrorKind::Instance,
            "cannot read the metadata of the VM",
            error,
        )
    })?;
    if let Some(changed) = changed {
        mmds.document = serde_json::Value::Object(changed);
    }
    tell_network(&mut mmds.document, guest);
    let document = mmds.document.as_object().cloned().unwrap_or_default();
    if order.vmm.serves_metadata(spec.network != Network::None) {
        // The VMM takes what is sent there from the first interface.
        if let Some(interface) = guest.interfaces.first_mut() {
            interface.routes.push(Route {
                destination: Cidr {
                    address: METADATA_ADDRESS.into(),
                    prefix: 32,
                },
                gateway: None,
            });
        }
    } else {
        guest.metadata = Some(Metadata {
            tokens: mmds.version == MmdsVersion::V2,
            text_only: mmds.imds_compat,
            modules: order.metadata_modules.clone(),
            document: document.clone(),
        });
        spec.mmds = None;
    }
    Ok(Some(document))
}

/// Finds out now what takes time to find out the first time: whether KVM works. The answer is remembered.
pub(crate) fn warm_up(order: &Order) -> Result<(), RunError> {
    order.vmm.open(order.spec.accel, &order.state).map(drop)
}

/// What would be launched, as text: the spec and the plan. Nothing is made.
pub(crate) fn dry(order: &Order) -> Result<(String, String), RunError> {
    let backend = order.vmm.open(order.spec.accel, &order.state)?;
    let user = uid::planned()
        .map_err(|error| Error::caused(RunErrorKind::Launch, "no user for the machine", error))?;
    let dir = RunDir::dry(&order.runtime, order.id.as_str(), user).map_err(run_dir_error)?;
    let mut spec = order.spec.clone();
    let part = |name: &str| InitrdPart::Private {
        name: name.to_owned(),
        contents: PrivateBytes::new(Vec::new()),
    };
    spec.initrd = vec![part("init and modules"), part("configuration")];
    let (checked, plan) = plan(&*backend, spec, &dir)?;
    let spec = serde_json::to_string_pretty(checked.spec())
        .map_err(|error| Error::caused(RunErrorKind::Machine, "cannot show the machine", error))?;
    Ok((spec + "\n", plan.to_text()))
}

/// Checks a spec and plans it.
pub(crate) fn plan(
    backend: &dyn Backend,
    spec: VmSpec,
    dir: &RunDir,
) -> Result<(CheckedSpec, LaunchPlan), RunError> {
    let checked = spec.check(&backend.capabilities()).map_err(|error| {
        Error::caused(RunErrorKind::Machine, "this machine is not possible", error)
    })?;
    let plan = backend.plan(&checked, dir).map_err(|error| {
        Error::caused(
            RunErrorKind::Machine,
            "this machine cannot be planned",
            error,
        )
    })?;
    Ok((checked, plan))
}

/// QEMU as it is on this host.
pub(crate) fn qemu(wanted: Accel, state: &Path) -> Result<Qemu, RunError> {
    let path = search_path();
    let program = find_program(qemu::PROGRAM, &path).ok_or_else(|| {
        Error::new(
            RunErrorKind::Launch,
            format!(
                "{} is not installed: install it with 'apt-get install qemu-system-x86'",
                qemu::PROGRAM
            ),
        )
    })?;
    let kvm = match wanted {
        Accel::Tcg => KvmState::Unusable {
            reason: "it was not asked for".to_owned(),
        },
        Accel::Auto | Accel::Kvm => accel::probe(&program, state),
    };
    Ok(Qemu {
        program,
        passt: find_program(qemu::PASST, &path),
        kvm,
        host: HostNetwork::discover(),
    })
}

/// The configuration with the time and entropy of now.
pub(crate) fn refreshed(guest: &RunConfig) -> Result<RunConfig, RunError> {
    let mut entropy = vec![0; ENTROPY_BYTES];
    getrandom(&mut entropy[..], GetRandomFlags::empty())
        .map_err(|error| Error::caused(RunErrorKind::Io, "cannot get random bytes", error))?;
    let now = u64::try_from(Timestamp::now().as_nanosecond()).ok();
    Ok(RunConfig {
        clock_unix_ns: now,
        entropy,
        ..guest.clone()
    })
}

fn machine_record(backend: &dyn Backend, machine: &Machine) -> MachineRecord {
    let processes = machine.pids();
    let of = |wanted: fn(Role) -> bool| {
        processes
            .iter()
            .filter(move |(role, _)| wanted(*role))
            .filter_map(|(_, pid)| ProcessRef::of(*pid))
    };
    MachineRecord {
        format: FORMAT,
        backend: backend.name().to_owned(),
        boot_id: boot_id(),
        monitor: ProcessRef::myself().unwrap_or(ProcessRef {
            pid: 0,
            start_ticks: 0,
        }),
        vmm: of(|role| role == Role::Vmm).next(),
        helpers: of(|role| role != Role::Vmm).collect(),
    }
}

fn record<T: serde::Serialize>(owned: &Owned, name: &str, value: &T) -> Result<(), RunError> {
    owned.write(name, value).map_err(unrecorded)
}

fn unrecorded(error: InstanceError) -> RunError {
    Error::caused(RunErrorKind::Instance, "cannot record the machine", error)
}

fn run_dir_error(error: RunDirError) -> RunError {
    let kind = match error.kind() {
        RunDirErrorKind::InUse => RunErrorKind::Instance,
        _ => RunErrorKind::Io,
    };
    Error::caused(kind, "cannot make the run dir of the machine", error)
}
