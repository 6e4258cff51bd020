//! What is written down about an instance.
//!
//! | file | when | what |
//! |---|---|---|
//! | `record.json` | created | what was asked for, resolved; values of variables masked |
//! | `order.json` | first start, unless with `--rm` | all that another start needs, values of variables too; 0600 |
//! | `spec.json`, `plan.json` | launched | the machine and how it was started |
//! | `machine.json` | launched | which processes it is |
//! | `started.json` | the application runs | since when |
//! | `paused.json` | its processors stand still; gone when they run again | since when |
//! | `health.json` | a probe has ended | how the application is |
//! | `restarts.json` | started again by its policy | how often, and whether it is about to be |
//! | `mmds.json` | `firebuild mmds put` or `patch` | the document as it was left |
//! | `exit.json` | ended, last of all | how |

use std::collections::BTreeMap;
use std::net::IpAddr;

use firebuild_guest_proto::{Cidr, Interface, InterfaceRef};
use firebuild_oci::Healthcheck;
use firebuild_vm::hardware::InterfaceLimits;
use firebuild_vm::spec::PortPublish;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::name::InstanceId;
use super::process::ProcessRef;
use super::restart::RestartPolicy;
use crate::run::health::check;

/// The version of all these documents.
pub(crate) const FORMAT: u32 = 1;

/// What stands for the value of a variable in every record.
pub const MASK: &str = "***";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The version of this format.
    pub format: u32,
    /// The id.
    pub id: InstanceId,
    /// The name.
    pub name: String,
    /// The reference of the image, as people write it.
    pub image: String,
    /// Digest of the image's manifest, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// Labels of the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When the instance was made.
    pub created_at: Timestamp,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Where ENTRYPOINT ends in `argv` and CMD begins.
    pub entrypoint_words: usize,
    /// Names of variables, each with [`MASK`] for its value.
    pub env: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// The user, as USER writes it; empty is root.
    pub user: String,
    /// The host name.
    pub hostname: String,
    /// The signal that asks the application to end.
    pub stop_signal: String,
    /// The image's own init is process 1.
    #[serde(default)]
    pub system: bool,
    /// Seconds from that signal to SIGKILL when `stop` does not say; below 0 there is no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// When it begins again after its end.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How it is seen whether the application is well, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The id of the kernel.
    pub kernel: String,
    /// Arguments for the kernel beside the usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_args: Vec<String>,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Size of the scratch disk in bytes.
    pub disk_bytes: u64,
    /// The image's disk on the host.
    pub image_disk: String,
    /// The network of the guest.
    pub network: NetworkRecord,
    /// A monitor of its own owns it.
    pub detached: bool,
    /// The record goes when the instance has ended.
    pub remove: bool,
    /// The application has a terminal.
    pub terminal: bool,
    /// Standard input is carried.
    pub stdin: bool,
    /// It is there for one who is attached: when that one's input ends, it ends.
    #[serde(default)]
    pub stdin_once: bool,
    /// The guest finds a metadata document.
    #[serde(default)]
    pub metadata: bool,
    /// What its network device may do.
    #[serde(default, skip_serializing_if = "InterfaceLimits::is_none")]
    pub interface_limits: InterfaceLimits,
}

impl Record {
    /// Whether the application's health is looked at.
    pub(crate) fn is_checked(&self) -> bool {
        self.healthcheck
            .as_ref()
            .is_some_and(|config| check(config, None).is_some())
    }
}

/// The network of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRecord {
    /// `user`, `bridge` or `none`.
    pub mode: String,
    /// Hardware address of the guest's interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Addresses of the guest with their prefix lengths, `10.0.2.15/24`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<IpAddr>,
    /// Published ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PortPublish>,
}

impl NetworkRecord {
    /// The same, with what a guest's interface has.
    #[must_use]
    pub(crate) fn with_interface(mut self, interface: &Interface) -> Self {
        if let InterfaceRef::Mac(mac) = &interface.select {
            self.mac = Some(mac.to_string());
        }
        self.addresses = interface.addresses.iter().map(Cidr::to_string).collect();
        let mut gateways = interface.routes.iter().filter_map(|route| route.gateway);
        self.gateway = gateways.find(IpAddr::is_ipv4);
        self
    }
}

/// Which processes an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineRecord {
    /// The version of this format.
    pub format: u32,
    /// The backend that started it.
    pub backend: String,
    /// The boot of the host in which it runs: pids of another boot mean nothing.
    pub boot_id: String,
    /// The process that owns it.
    pub monitor: ProcessRef,
    /// The VMM.
    pub vmm: Option<ProcessRef>,
    /// Its helpers.
    pub helpers: Vec<ProcessRef>,
}

/// Since when the application runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// The version of this format.
    pub format: u32,
    /// By the host's clock.
    pub started_at: Timestamp,
    /// From the start of the guest's kernel to the application, in milliseconds.
    pub boot_ms: u64,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The version of this format.
    pub format: u32,
    /// The code that `run` and `wait` give.
    pub exit_code: u8,
    /// The guest's kernel killed it for want of memory.
    pub oom_killed: bool,
    /// What went wrong beside the application's own failure; empty when nothing did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// By the host's clock.
    pub finished_at: Timestamp,
}
