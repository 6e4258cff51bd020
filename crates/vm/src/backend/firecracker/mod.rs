//! Firecracker, 1.10 and later, in its jail or without one.
//!
//! The plan is a process, the places that it sees, and the requests that tell it what its machine is:
//!
//! ```text
//! plan      pure: places, descriptors, the process, requests
//! jailer    where a jail is and what is in it
//! api       bodies of requests, as types
//! client    HTTP over the API's socket
//! control   pause, resume, the metadata of a running machine
//! version   which Firecracker it is
//! ```
//!
//! Firecracker runs in a directory of its own and knows every file of ours by a relative name in it: the root of its jail,
//! or without a jail a directory in the run dir of the machine. The guest opens its channel by vsock.

mod api;
mod client;
mod control;
mod jailer;
mod plan;
mod version;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

pub use client::ApiClient;
pub use control::FirecrackerControl;
pub use jailer::{CHROOT_BASE, Cgroup, CgroupHost, Jail, longest_chroot_base};
pub use version::{OLDEST, Version, VersionError, needs_libraries, version_of};

/// Bodies of requests, for those who compare them with Firecracker's description.
pub mod requests {
    pub use super::api::{
        ActionType, BootSource, Drive, EntropyDevice, Fault, InstanceActionInfo,
        MachineConfiguration, MetricsDestination, MmdsConfig, NetworkInterface, SerialDevice, Vm,
        VmState, Vsock,
    };
}

use super::{Backend, Control, ControlError, PlanError};
use crate::capability::{Capabilities, KvmState, UserNetworking};
use crate::check::CheckedSpec;
use crate::hardware::{
    BalloonSupport, CpuTemplate, HardwareSupport, HugePages, LimitedNetwork, MetricsSupport,
};
use crate::plan::LaunchPlan;
use crate::run_dir::RunDir;
use crate::spec::{KernelFormat, MachineType};

/// Name of the backend, and of the program.
pub const NAME: &str = "firecracker";
/// Name of the jailer's program.
pub const JAILER: &str = "jailer";

/// The API's socket, in the directory in which Firecracker runs.
const API_SOCKET: &str = "api.sock";
/// The socket of the vsock device.
const VSOCK_SOCKET: &str = "v.sock";
/// Where the guest's connection to [`firebuild_guest_proto::CHANNEL_VSOCK_PORT`] comes out.
const CHANNEL_SOCKET: &str = "v.sock_1024";

/// The guest's vsock address. Each machine has a Firecracker of its own, so all of them can have the first free one.
const GUEST_CID: u32 = 3;
/// Name of the guest's interface for the API.
pub const INTERFACE: &str = "eth0";

/// Firecracker on this host.
#[derive(Clone, Debug)]
pub struct Firecracker {
    /// The program; absolute, and no symbolic link, since its name is a part of the jail's path.
    pub program: PathBuf,
    /// Which one it is.
    pub version: Version,
    /// The jail; `None` runs it as it is, for development.
    pub jail: Option<Jail>,
    /// Whether KVM can be used.
    pub kvm: KvmState,
}

impl Backend for Firecracker {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        let mut kernel_formats = vec![KernelFormat::ElfPvh, KernelFormat::Elf];
        let mut huge_pages = vec![HugePages::TwoMib];
        if self.version >= Version::new(1, 17, 0) {
            kernel_formats.push(KernelFormat::BzImage);
            huge_pages.push(HugePages::Transparent);
        }
        let pages = self.version >= Version::new(1, 14, 0);
        Capabilities {
            backend: NAME,
            max_cpus: 32,
            memory_mib: 64..=1024 * 1024,
            // Interrupts 5 to 23 less those of the machine itself, and four other devices (`docs/device-api.md`).
            max_disks: 12,
            kernel_formats,
            machines: vec![MachineType::Microvm],
            kvm: self.kvm.clone(),
            tcg: false,
            user_network: UserNetworking::Missing {
                reason: "Firecracker has none; give it a network of the host or --network=none, or use --backend=qemu"
                    .to_owned(),
            },
            hardware: HardwareSupport {
                smt: true,
                cpu_templates: CpuTemplate::ALL.to_vec(),
                cpu_config: true,
                huge_pages,
                balloon: Some(BalloonSupport {
                    free_page_hinting: pages,
                    free_page_reporting: pages,
                }),
                interface_limits: vec![LimitedNetwork::Bridge],
                one_time_bursts: true,
                entropy_operations: true,
                balloon_statistics: true,
                metrics: Some(MetricsSupport {
                    labels: self.version >= Version::new(1, 17, 0),
                }),
                imds_compat: self.version >= Version::new(1, 13, 0),
            },
        }
    }

    fn plan(&self, spec: &CheckedSpec, dir: &RunDir) -> Result<LaunchPlan, PlanError> {
        plan::plan(self, spec, dir)
    }

    fn control(&self, connection: OwnedFd) -> Result<Box<dyn Control>, ControlError> {
        Ok(Box::new(FirecrackerControl::new(connection)))
    }
}

/// Whether a line of Firecracker's log tells nothing of how its machine ended. Every x86 kernel touches ports behind which
/// a Firecracker has no device, most of them while it restarts.
pub(crate) fn is_noise(line: &str) -> bool {
    line.contains("failed: Failed to find address range")
        || line.ends_with("messages were suppressed due to rate limiting")
        // A console that is written to faster than anybody can read loses characters, and tells of each.
        || line.contains("Failed the write to serial")
        // At each start of 1.17.
        || line.contains("Received a VcpuEvent::Resume message with immediate_exit enabled")
}

/// What an exit code of Firecracker means (`FcExitCode` of its `src/vmm/src/lib.rs`).
#[must_use]
pub fn exit_reason(code: i32) -> Option<&'static str> {
    Some(match code {
        1 => "Firecracker or its jailer could not go on",
        2 => "Firecracker met something that cannot be",
        148 => "a system call outside its seccomp filter was refused",
        149 => {
            "SIGBUS, as when the host has no memory left for a large page or a mapped file became shorter"
        }
        150 => "SIGSEGV, an invalid memory access in Firecracker itself",
        151 => "SIGXFSZ, a file would become larger than its limit (resource limit fsize)",
        152 => "the configuration is bad",
        153 => "the arguments are bad",
        154 => "SIGXCPU, the limit of processor time is used up",
        155 => "SIGPIPE, whoever read its output has gone",
        156 => "SIGHUP, its terminal has gone",
        157 => "SIGILL, an instruction that this processor does not know",
        _ => return None,
    })
}
