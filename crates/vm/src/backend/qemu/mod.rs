//! QEMU, as distributions ship it (7.2 or newer, for `-netdev stream`).
//!
//! The process gets connected descriptors and nothing else: it opens no path of ours but the kernel, the initrd and the
//! firmware, and those through `/proc/self/fd` or its own data directory.

mod hardware;
mod plan;
pub mod qmp;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{Backend, Control, ControlError, PlanError};
use crate::capability::{Capabilities, KvmState, UserNetworking};
use crate::check::CheckedSpec;
use crate::net::host::HostNetwork;
use crate::plan::LaunchPlan;
use crate::run_dir::RunDir;
use crate::spec::{KernelFormat, MachineType};

/// Name of the program.
pub const PROGRAM: &str = "qemu-system-x86_64";
pub use firebuild_usernet::PASST;

/// QEMU on this host, with what it depends on.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// passt, where it is installed.
    pub passt: Option<PathBuf>,
    /// Whether KVM can be used.
    pub kvm: KvmState,
    /// The host's network.
    pub host: HostNetwork,
}

impl Backend for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn capabilities(&self) -> Capabilities {
        let user_network = if self.passt.is_some() {
            UserNetworking::Full {
                ipv6: self.host.ipv6_route.is_some(),
            }
        } else {
            UserNetworking::PublishedOnly {
                reason: "passt is not installed: the guest reaches nothing outside, only published TCP ports work; \
                         install the package passt"
                    .to_owned(),
            }
        };
        Capabilities {
            backend: self.name(),
            // More need interrupt remapping (hw/i386/x86.c, x86_cpus_init), which no guest here has.
            max_cpus: 255,
            // Less does not hold a distribution's kernel and its initrd.
            memory_mib: 64..=1024 * 1024,
            // One slot of PCI each, with room for the other devices on the bus.
            max_disks: 16,
            kernel_formats: vec![KernelFormat::ElfPvh, KernelFormat::BzImage],
            machines: vec![MachineType::Q35, MachineType::Microvm],
            kvm: self.kvm.clone(),
            tcg: true,
            user_network,
            hardware: hardware::support(self.passt.is_some()),
        }
    }

    fn plan(&self, spec: &CheckedSpec, dir: &RunDir) -> Result<LaunchPlan, PlanError> {
        plan::plan(self, spec, dir)
    }

    fn control(&self, connection: OwnedFd) -> Result<Box<dyn Control>, ControlError> {
        Ok(Box::new(qmp::Qmp::connect(connection)?))
    }
}

/// The file of a program in a `PATH`, or of a name with a slash, if it can be executed.
#[must_use]
pub fn find_program(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    let executable = |file: &Path| {
        rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|file| executable(file));
    }
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| executable(file))
}
