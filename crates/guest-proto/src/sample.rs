//! What a guest tells of itself: a sample of what its machine uses, and its processes.
//!
//! Numbers are those of the guest's kernel since its start; who wants a rate takes two samples. Nothing of it is to be
//! believed more than anything else that a guest says.

use serde::{Deserialize, Serialize};

/// Most processes in a list; the others are counted.
pub const MAX_PROCESSES: usize = 4096;
/// The longest command line in a list, in bytes; longer ones are cut.
pub const MAX_COMMAND_BYTES: usize = 1024;

/// What a machine uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Nanoseconds since the guest's kernel started, by its own clock.
    pub uptime_ns: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Nanoseconds that all processors together were not idle (`/proc/stat`).
    pub cpu_ns: u64,
    /// Of these, in the kernel.
    pub cpu_system_ns: u64,
    /// Bytes of memory that the kernel manages.
    pub memory_total: u64,
    /// Bytes that could not be given to a new program without swapping something out.
    pub memory_used: u64,
    /// Bytes of files in memory.
    pub memory_cache: u64,
    /// Bytes that disks have read.
    pub disk_read: u64,
    /// Bytes that disks have written.
    pub disk_written: u64,
    /// Bytes of the root file system.
    pub disk_total: u64,
    /// Of these, in use.
    pub disk_used: u64,
    /// Bytes received by all interfaces but the loopback.
    pub net_received: u64,
    /// Bytes sent by them.
    pub net_sent: u64,
    /// Processes, without those of the kernel and the guest init.
    pub processes: u64,
}

/// The processes of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessList {
    /// By their ids, at most [`MAX_PROCESSES`]; without those of the kernel and the guest init.
    pub processes: Vec<ProcessInfo>,
    /// How many there are beside them.
    #[serde(default)]
    pub more: u64,
}

/// A process of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessInfo {
    /// Its user: the name where the guest has one, else the number.
    pub user: String,
    /// Its id.
    pub pid: u32,
    /// The id of its parent.
    pub ppid: u32,
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
    /// Bytes in memory.
    pub memory: u64,
    /// When it started, in seconds since 1970 by the guest's clock.
    pub started_unix: u64,
    /// Its controlling terminal, as `pts/0`; empty for none.
    pub terminal: String,
    /// What it executes, arguments separated by spaces; for one without arguments its name in brackets.
    pub command: String,
}
