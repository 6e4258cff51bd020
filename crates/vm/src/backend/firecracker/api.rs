//! What Firecracker is told over its API: the requests' bodies as types.
//!
//! The names are those of Firecracker's API description (`src/firecracker/swagger/firecracker.yaml` of 1.10 and later);
//! a test compares them with it where one is at hand. Nothing is read into them that they do not name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::hardware::{Cache, CpuTemplate, HugePages, IoEngine, RateLimiter, TokenBucket};
use crate::spec::MmdsVersion;

/// `PUT /machine-config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfiguration {
    /// Virtual processors.
    pub vcpu_count: u32,
    /// Memory in MiB.
    pub mem_size_mib: u32,
    /// Threads of cores.
    #[serde(default)]
    pub smt: bool,
    /// A processor by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_template: Option<CpuTemplate>,
    /// What backs the memory; missing means ordinary pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub huge_pages: Option<HugePages>,
}

/// `PUT /boot-source`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSource {
    /// The kernel, as Firecracker sees it.
    pub kernel_image_path: String,
    /// The initrd, as Firecracker sees it.
    pub initrd_path: String,
    /// The kernel's command line.
    pub boot_args: String,
}

/// `PUT /drives/{drive_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Its name for the API.
    pub drive_id: String,
    /// The file, as Firecracker sees it.
    pub path_on_host: String,
    /// Whether Firecracker adds it to the command line as the root; our guests have an init in their initrd.
    pub is_root_device: bool,
    /// Whether the guest may only read.
    pub is_read_only: bool,
    /// What a flush means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_type: Option<Cache>,
    /// How the file is read and written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_engine: Option<IoEngine>,
    /// How much the guest may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// `PUT /network-interfaces/{iface_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterface {
    /// Its name for the API.
    pub iface_id: String,
    /// The tap device.
    pub host_dev_name: String,
    /// The guest's hardware address.
    pub guest_mac: String,
    /// The largest packet, told to the guest (1.16 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// What the guest may receive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// What the guest may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// `PUT /vsock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// The guest's address.
    pub guest_cid: u32,
    /// The socket that Firecracker makes, as it sees it; what the guest dials, it finds at `<uds_path>_<port>`.
    pub uds_path: String,
}

/// `PUT /entropy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntropyDevice {
    /// How much the guest may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// `PUT /mmds/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MmdsConfig {
    /// How the guest asks.
    pub version: MmdsVersion,
    /// The interfaces on which it may.
    pub network_interfaces: Vec<String>,
    /// Whether every answer is text (1.13 and later).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imds_compat: bool,
}

/// `PUT /serial` (1.14 and later).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialDevice {
    /// How much the guest may write; what exceeds it is dropped (1.16 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<TokenBucket>,
}

/// `PUT /metrics`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsDestination {
    /// A file or a named pipe, as Firecracker sees it.
    pub metrics_path: String,
    /// Whether each line has the name of the machine (1.17 and later).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emit_id: bool,
    /// What else each line has (1.17 and later).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
}

/// `PUT /actions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceActionInfo {
    /// What to do.
    pub action_type: ActionType,
}

/// What Firecracker can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionType {
    /// Boots the guest.
    InstanceStart,
    /// Presses three keys of the guest's keyboard.
    SendCtrlAltDel,
    /// Writes the metrics now.
    FlushMetrics,
}

/// `PATCH /vm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// What it shall be.
    pub state: VmState,
}

/// Whether the processors run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmState {
    /// They stand.
    Paused,
    /// They run.
    Resumed,
}

/// What Firecracker says when it refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its words.
    pub fault_message: String,
}
