//! Which VMM runs a machine, and how.
//!
//! ```text
//! Wanted (flags, a profile, a machine configuration) ─▶ choose ─▶ Chosen ─▶ open ─▶ a backend
//!                                                       here, once          wherever the machine is launched
//! ```
//!
//! Left to itself, firebuild takes Firecracker where everything that it needs is there: KVM that really works, the
//! program, its jailer and root for it, and a network that it has. Everywhere else it takes QEMU, which can do the same.

mod firecracker;
pub mod machine_config;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use firebuild_guest_proto::config::DiskRef;
use firebuild_guest_proto::{CHANNEL_VSOCK_PORT, Channel, RootLayout};
use firebuild_vm::Backend;
use firebuild_vm::backend::firecracker as fc;
use firebuild_vm::backend::qemu;
pub use firebuild_vm::hardware::CpuTemplate;
use firebuild_vm::spec::{Accel, MachineType};
use serde::{Deserialize, Serialize};

use crate::kernel::{Kernel, Presence, Purpose, principal};
use crate::monitor::launch;
use crate::run::{NetworkMode, RunError};

/// Where administrators' programs are; an ordinary user often has no `sbin` on the PATH.
const MORE_PATH: &str = "/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin";

/// Which VMM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// Firecracker where it can be, else QEMU.
    #[default]
    Auto,
    /// Firecracker or nothing.
    Firecracker,
    /// QEMU or nothing.
    Qemu,
}

/// What somebody wants of the VMM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Which one.
    pub choice: Choice,
    /// `--binary-firecracker`: the program; by default that of the PATH.
    pub firecracker: Option<PathBuf>,
    /// `--binary-jailer`: the jailer; by default that of the PATH.
    pub jailer: Option<PathBuf>,
    /// `--jailer`: whether Firecracker runs in a jail; by default it does.
    pub jailed: Option<bool>,
    /// `--chroot-base`: where jails are.
    pub chroot_base: Option<PathBuf>,
    /// `--jailer-uid`, `--jailer-gid`: a user for the machine instead of one of its own.
    pub user: Option<u32>,
    /// The group.
    pub group: Option<u32>,
    /// `--jailer-numa-node`: the node on which the machine's memory and processors are.
    pub numa_node: Option<u32>,
    /// Version of the cgroups, 1 or 2; by default the one with the controllers.
    pub cgroup_version: Option<u8>,
    /// The cgroup in which the machine's is made.
    pub parent_cgroup: Option<String>,
    /// Files of the machine's cgroup and their values.
    pub cgroup: Vec<(String, String)>,
    /// Largest file that the VMM may write, in bytes.
    pub max_file_bytes: Option<u64>,
    /// Most descriptors that the VMM may have open.
    pub max_open_files: Option<u64>,
}

/// The VMM that runs a machine. It crosses to the monitor with the rest of the order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Chosen {
    /// QEMU.
    Qemu,
    /// Firecracker.
    Firecracker(Box<firecracker::Installed>),
}

/// Decides which VMM runs a machine with this accelerator, model and network.
pub(crate) fn choose(
    wanted: &Wanted,
    accel: Accel,
    machine: MachineType,
    network: NetworkMode,
    state: &Path,
) -> Result<Chosen, RunError> {
    match wanted.choice {
        Choice::Qemu => Ok(Chosen::Qemu),
        Choice::Firecracker => {
            firecracker::find(wanted).map(|installed| Chosen::Firecracker(Box::new(installed)))
        }
        Choice::Auto => {
            let possible = matches!(accel, Accel::Auto | Accel::Kvm)
                && machine != MachineType::Q35
                && firecracker::has_network(network);
            let found = possible
                .then(|| firecracker::find_if_there(wanted))
                .flatten()
                .filter(|installed| installed.kvm_works(state));
            Ok(found.map_or(Chosen::Qemu, |installed| {
                Chosen::Firecracker(Box::new(installed))
            }))
        }
    }
}

impl Chosen {
    /// Its backend on this host.
    pub(crate) fn open(&self, accel: Accel, state: &Path) -> Result<Box<dyn Backend>, RunError> {
        match self {
            Self::Qemu => Ok(Box::new(launch::qemu(accel, state)?)),
            Self::Firecracker(installed) => Ok(Box::new(installed.backend(accel, state))),
        }
    }

    /// Whether it has a network that needs no privileges.
    pub(crate) fn has_user_network(&self) -> bool {
        matches!(self, Self::Qemu)
    }

    /// Whether it serves the guest's metadata itself; with a network only, which its service is a part of.
    pub(crate) fn serves_metadata(&self, has_network: bool) -> bool {
        has_network && matches!(self, Self::Firecracker(_))
    }

    /// The user that its machine runs as, if somebody has named one.
    pub(crate) fn user(&self) -> Option<u32> {
        match self {
            Self::Qemu => None,
            Self::Firecracker(installed) => installed.user(),
        }
    }

    /// Where the guest finds the channel.
    pub(crate) fn channel(&self) -> Channel {
        match self {
            Self::Qemu => Channel::virtio_serial(),
            Self::Firecracker(_) => Channel::Vsock {
                port: CHANNEL_VSOCK_PORT,
            },
        }
    }

    /// Where the guest finds its disks: an image and a scratch disk over it, or a copy of its own.
    pub(crate) fn root(&self, overlay: bool) -> RootLayout {
        let mut layout = if overlay {
            RootLayout::overlay()
        } else {
            RootLayout::private()
        };
        if let Self::Firecracker(_) = self {
            // In the order in which the spec has them.
            match &mut layout {
                RootLayout::Overlay { image, scratch, .. } => {
                    *image = DiskRef::Index(0);
                    *scratch = DiskRef::Index(1);
                }
                RootLayout::Private { disk, .. } => *disk = DiskRef::Index(0),
                _ => {}
            }
        }
        layout
    }

    /// What every guest under it needs from its kernel.
    pub(crate) fn purposes(&self) -> [Purpose; 5] {
        let [bus, channel] = match self {
            Self::Qemu => [Purpose::Pci, Purpose::Channel],
            Self::Firecracker(_) => [Purpose::Mmio, Purpose::Vsock],
        };
        [
            bus,
            Purpose::Disk,
            Purpose::Filesystem,
            Purpose::Console,
            channel,
        ]
    }

    /// Why this kernel cannot run a machine under it, if it cannot.
    pub(crate) fn unfit(&self, kernel: &Kernel) -> Option<String> {
        let name = match self {
            Self::Qemu if !kernel.pvh => {
                return Some("qemu needs a PVH entry point (CONFIG_PVH)".to_owned());
            }
            Self::Qemu => "qemu",
            Self::Firecracker(_) => fc::NAME,
        };
        let missing = |purpose: &Purpose| kernel.presence(*purpose) == Presence::Missing;
        let purpose = self.purposes().into_iter().find(missing)?;
        let driver = principal(purpose)?;
        Some(format!("{name} needs {}", driver.name))
    }
}

/// Where programs are looked for.
pub(crate) fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(OsString::from(MORE_PATH));
    path
}

/// A program by its name on the search path, or by a path that was given.
fn program(given: Option<&Path>, name: &str) -> Option<PathBuf> {
    let found = match given {
        Some(path) => qemu::find_program(&format!("./{}", path.display()), "".as_ref())
            .filter(|_| path.is_relative())
            .or_else(|| qemu::find_program(&path.display().to_string(), "".as_ref())),
        None => qemu::find_program(name, &search_path()),
    };
    // The name of the file itself is a part of the jail's path.
    found.and_then(|path| fs_err::canonicalize(path).ok())
}

#[cfg(test)]
mod tests;
