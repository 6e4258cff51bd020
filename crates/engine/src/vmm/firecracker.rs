//! Firecracker and its jailer as they are installed here.

use std::path::{Path, PathBuf};

use firebuild_vm::accel;
use firebuild_vm::backend::firecracker::{
    CHROOT_BASE, Cgroup, CgroupHost, Firecracker, JAILER, Jail, NAME, Version, needs_libraries,
    version_of,
};
use firebuild_vm::capability::KvmState;
use firebuild_vm::places::Owner;
use firebuild_vm::spec::Accel;
use serde::{Deserialize, Serialize};

use super::{Wanted, program};
use crate::error::Error;
use crate::run::{NetworkMode, RunError, RunErrorKind};

/// Firecracker, and the jail that it gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Installed {
    program: PathBuf,
    version: Version,
    jail: Option<Jail>,
}

impl Installed {
    /// The backend, with what KVM can do for it.
    pub(super) fn backend(&self, accel: Accel, state: &Path) -> Firecracker {
        let kvm = match accel {
            Accel::Tcg => KvmState::Unusable {
                reason: "it was not asked for".to_owned(),
            },
            Accel::Auto | Accel::Kvm => self.kvm(state),
        };
        Firecracker {
            program: self.program.clone(),
            version: self.version,
            jail: self.jail.clone(),
            kvm,
        }
    }

    /// Whether KVM works for its machines; the answer is remembered.
    pub(super) fn kvm_works(&self, state: &Path) -> bool {
        matches!(self.kvm(state), KvmState::Works { .. })
    }

    pub(super) fn user(&self) -> Option<u32> {
        let owner = self.jail.as_ref()?.user?;
        Some(owner.uid)
    }

    fn kvm(&self, state: &Path) -> KvmState {
        accel::probe_firecracker(&self.program, self.jail.is_some(), state)
    }
}

/// Whether a machine with this network can be Firecracker's when nobody asked for it.
pub(super) fn has_network(network: NetworkMode) -> bool {
    network == NetworkMode::None
        || (network != NetworkMode::User && rustix::process::geteuid().is_root())
}

/// Firecracker, if it and what it needs are installed.
pub(super) fn find_if_there(wanted: &Wanted) -> Option<Installed> {
    // What keeps it from being used is no error for somebody who did not ask for it.
    find(wanted).ok()
}

/// Firecracker as it is wanted.
pub(super) fn find(wanted: &Wanted) -> Result<Installed, RunError> {
    let path = located(wanted.firecracker.as_deref(), NAME, "--binary-firecracker")?;
    let version = version_of(&path).map_err(|error| {
        Error::caused(
            RunErrorKind::Launch,
            format!("Firecracker {} cannot be used", path.display()),
            error,
        )
    })?;
    let jail = jail(wanted)?;
    if jail.is_some() && needs_libraries(&path) {
        return Err(Error::new(
            RunErrorKind::Launch,
            format!(
                "Firecracker {} needs libraries, and there are none in a jail: take the static program of a release, or \
                 give --jailer=off for development",
                path.display()
            ),
        ));
    }
    Ok(Installed {
        program: path,
        version,
        jail,
    })
}

fn jail(wanted: &Wanted) -> Result<Option<Jail>, RunError> {
    let fail = |text: &str| Err(Error::new(RunErrorKind::Flag, text));
    if wanted.jailed == Some(false) {
        return Ok(None);
    }
    if !rustix::process::geteuid().is_root() {
        return fail(
            "Firecracker's jailer needs root: run as root, or give --jailer=off for development",
        );
    }
    let user = match (wanted.user, wanted.group) {
        (Some(0), _) | (_, Some(0)) => {
            return fail(
                "a machine does not run as root: give --jailer-uid and --jailer-gid other numbers than 0, or leave them out",
            );
        }
        (Some(uid), Some(gid)) => Some(Owner { uid, gid }),
        (Some(uid), None) => Some(Owner { uid, gid: uid }),
        (None, Some(_)) => return fail("--jailer-gid goes with --jailer-uid"),
        (None, None) => None,
    };
    let mut settings = Vec::new();
    if let Some(node) = wanted.numa_node {
        settings.extend(numa(node)?);
    }
    settings.extend(wanted.cgroup.iter().cloned());
    let mounts = fs_err::read_to_string("/proc/mounts").map_err(|error| {
        Error::caused(RunErrorKind::Io, "cannot find this host's cgroups", error)
    })?;
    Ok(Some(Jail {
        program: located(wanted.jailer.as_deref(), JAILER, "--binary-jailer")?,
        chroot_base: wanted
            .chroot_base
            .clone()
            .unwrap_or_else(|| CHROOT_BASE.into()),
        user,
        cgroup: Cgroup {
            host: CgroupHost::of_mounts(&mounts, wanted.cgroup_version),
            parent: wanted.parent_cgroup.clone(),
            settings,
        },
        max_file_bytes: wanted.max_file_bytes,
        max_open_files: wanted.max_open_files,
    }))
}

/// What keeps a machine on one node: its memory and its processors (`docs/jailer.md` of Firecracker).
fn numa(node: u32) -> Result<[(String, String); 2], RunError> {
    let list = format!("/sys/devices/system/node/node{node}/cpulist");
    let cpus = fs_err::read_to_string(list).map_err(|error| {
        Error::caused(
            RunErrorKind::Flag,
            format!("this host has no node {node} (--jailer-numa-node)"),
            error,
        )
    })?;
    Ok([
        ("cpuset.mems".to_owned(), node.to_string()),
        ("cpuset.cpus".to_owned(), cpus.trim().to_owned()),
    ])
}

fn located(given: Option<&Path>, name: &str, flag: &str) -> Result<PathBuf, RunError> {
    program(given, name).ok_or_else(|| {
        let text = match given {
            Some(path) => format!("{flag} {} is no program that can be executed", path.display()),
            None => format!(
                "{name} is not on the PATH: install Firecracker's release, or name the file with {flag}"
            ),
        };
        Error::new(RunErrorKind::Launch, text)
    })
}
