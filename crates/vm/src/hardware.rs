//! What a machine has beside processors, memory and disks: how its processor looks, what backs its memory, how much its
//! devices may do, the balloon.
//!
//! The names are those of Firecracker's API, which users know from its documentation; QEMU is told the same things in
//! its own words. What a backend cannot do is refused by name before anything is planned ([`HardwareSupport`]).

use std::fmt;

use serde::{Deserialize, Serialize};

pub use cpu::{CpuConfig, CpuidLeaf, CpuidModifier, CpuidRegister, MsrModifier};
pub use metrics::Metrics;
pub use statistics::BalloonStatistics;

mod cpu;
mod metrics;
mod statistics;

/// What a machine has beyond its size. The default is a machine without anything special.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hardware {
    /// Whether the guest sees its processors as pairs of threads of one core; their number is even then, or 1.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub smt: bool,
    /// A processor that the guest sees in place of the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_template: Option<CpuTemplate>,
    /// Single bits of the processor that the guest sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_config: Option<CpuConfig>,
    /// What backs the guest's memory.
    #[serde(skip_serializing_if = "HugePages::is_none")]
    pub huge_pages: HugePages,
    /// A device by which the guest gives memory back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balloon: Option<Balloon>,
    /// How much randomness the guest may take from the host; `None` is as much as it likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy_limit: Option<RateLimiter>,
    /// What the network device may do.
    #[serde(skip_serializing_if = "InterfaceLimits::is_none")]
    pub interface: InterfaceLimits,
    /// Largest packet of the network device in bytes, without its Ethernet header; `None` is the network's usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// How much of what the guest writes to its serial port is recorded; what exceeds it is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_limit: Option<TokenBucket>,
    /// Where the VMM's metrics go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
}

impl Hardware {
    /// Whether nothing special is wanted.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// A processor by name: what Firecracker's static templates mask the host's to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuTemplate {
    /// Amazon's C3 (Intel).
    C3,
    /// Amazon's T2 (Intel).
    T2,
    /// T2, safe for snapshots that move between Skylake and Cascade Lake.
    T2S,
    /// T2 on Cascade Lake and newer.
    T2CL,
    /// T2 on AMD Milan.
    T2A,
}

impl CpuTemplate {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::C3, Self::T2, Self::T2S, Self::T2CL, Self::T2A];

    /// Its name, as `--cpu-template` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::C3 => "C3",
            Self::T2 => "T2",
            Self::T2S => "T2S",
            Self::T2CL => "T2CL",
            Self::T2A => "T2A",
        }
    }
}

impl fmt::Display for CpuTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What backs the guest's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// Pages as the host gives them.
    #[default]
    None,
    /// Large pages where the kernel finds some (`madvise(MADV_HUGEPAGE)`).
    Transparent,
    /// Pages of 2 MiB from the host's pool (`vm.nr_hugepages`).
    #[serde(rename = "2M")]
    TwoMib,
}

impl HugePages {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Transparent => "Transparent",
            Self::TwoMib => "2M",
        })
    }
}

/// A balloon: memory that the guest gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// Its size at the start in MiB.
    pub amount_mib: u32,
    /// Whether the guest takes memory back from it when it would run out.
    pub deflate_on_oom: bool,
    /// Seconds between two statistics; 0 means none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stats_polling_interval_s: u16,
    /// Whether the guest tells which pages are free when the host asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub free_page_hinting: bool,
    /// Whether the guest gives free pages back by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub free_page_reporting: bool,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// What a network device may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InterfaceLimits {
    /// What the guest may receive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx: Option<RateLimiter>,
    /// What the guest may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx: Option<RateLimiter>,
}

impl InterfaceLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How the host does the work of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskSettings {
    /// What a flush of the guest means; `None` is the backend's usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// How the file is read and written; `None` is the backend's usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_engine: Option<IoEngine>,
    /// How much the guest may read and write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

impl DiskSettings {
    /// Whether everything is the backend's usual.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// What a flush of the guest means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cache {
    /// Nothing: fast, and the disk is worth nothing after a crash of the host.
    Unsafe,
    /// What was written is on the host's disk.
    Writeback,
}

/// How a disk's file is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoEngine {
    /// One request after the other.
    Sync,
    /// By io_uring.
    Async,
}

/// Limits of bytes and of operations; a missing one is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimiter {
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// Operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

/// A bucket that fills by itself and that use empties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// How much it holds.
    pub size: u64,
    /// Milliseconds from empty to full.
    pub refill_time: u64,
    /// What it holds at the start beyond that, never to be refilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_burst: Option<u64>,
}

impl TokenBucket {
    /// How much passes in a second once the bucket has been emptied; `None` for more than can be said.
    #[must_use]
    pub fn per_second(&self) -> Option<u64> {
        let per_second = u128::from(self.size) * 1000 / u128::from(self.refill_time.max(1));
        u64::try_from(per_second).ok()
    }
}

/// Which of it a backend can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardwareSupport {
    /// Threads of cores.
    pub smt: bool,
    /// Processors by name.
    pub cpu_templates: Vec<CpuTemplate>,
    /// Single bits of the processor.
    pub cpu_config: bool,
    /// What can back the memory beside ordinary pages.
    pub huge_pages: Vec<HugePages>,
    /// A balloon, and whether it can hint and report free pages.
    pub balloon: Option<BalloonSupport>,
    /// Networks whose device it can limit.
    pub interface_limits: Vec<LimitedNetwork>,
    /// Bursts that come once, of disks and of entropy.
    pub one_time_bursts: bool,
    /// A limit of the operations of entropy.
    pub entropy_operations: bool,
    /// Statistics of a balloon.
    pub balloon_statistics: bool,
    /// Metrics of the VMM.
    pub metrics: Option<MetricsSupport>,
    /// A metadata service that answers with text only.
    pub imds_compat: bool,
}

/// What can stand in metrics beside the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsSupport {
    /// The machine's name (`emit_id`) and words of the user's (`properties`).
    pub labels: bool,
}

/// A kind of network whose device can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedNetwork {
    /// User-mode networking.
    User,
    /// A tap on a bridge.
    Bridge,
}

impl fmt::Display for LimitedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user-mode",
            Self::Bridge => "bridge",
        })
    }
}

/// What a balloon can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalloonSupport {
    /// Hinting.
    pub free_page_hinting: bool,
    /// Reporting.
    pub free_page_reporting: bool,
}
