//! What a backend can do on this host. Asked before anything is planned, so that a spec is refused early and by name.

use std::ops::RangeInclusive;

use crate::hardware::HardwareSupport;
use crate::spec::{KernelFormat, MachineType};

/// What a backend can do on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Name of the backend, for messages.
    pub backend: &'static str,
    /// Most virtual processors of one machine.
    pub max_cpus: u32,
    /// Memory that a machine may have, in MiB.
    pub memory_mib: RangeInclusive<u32>,
    /// Most block devices of one machine.
    pub max_disks: usize,
    /// Kernel images that it boots.
    pub kernel_formats: Vec<KernelFormat>,
    /// Machine models it has, the preferred one first; never [`MachineType::Auto`], never empty.
    pub machines: Vec<MachineType>,
    /// Whether KVM can be used.
    pub kvm: KvmState,
    /// Whether it can translate in software.
    pub tcg: bool,
    /// User-mode networking.
    pub user_network: UserNetworking,
    /// What it has beyond processors, memory and disks.
    pub hardware: HardwareSupport,
}

/// Whether KVM can be used on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmState {
    /// It has run guest code, user mode included.
    Works {
        /// Group whose members may open `/dev/kvm`, where the device is not open to everyone; a VMM with a user of
        /// its own is made a member.
        group: Option<u32>,
    },
    /// It can be opened, and a test guest did not come through under it. Used only for somebody who insists.
    Doubtful {
        /// See [`KvmState::Works`].
        group: Option<u32>,
        /// What the test guest came to, in words.
        reason: String,
    },
    /// It is not there, or may not be opened.
    Unusable {
        /// Why, in words.
        reason: String,
    },
}

/// What user-mode networking can do on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserNetworking {
    /// Out and in.
    Full {
        /// Whether the guest has IPv6 too.
        ipv6: bool,
    },
    /// Published TCP ports on IPv4 only: the guest reaches nothing by itself.
    PublishedOnly {
        /// Why, and what would help.
        reason: String,
    },
    /// None.
    Missing {
        /// Why, and what would help.
        reason: String,
    },
}
