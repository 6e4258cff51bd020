//! `LaunchPlan`: the exact process, files and descriptors that `launch` will use.
//!
//! Plain data made by a backend without I/O. Its text form is JSON (`firebuild run --print=plan`), format version
//! [`PLAN_FORMAT`]; the golden tests of the backends compare it. Descriptor numbers stand in the plan as the child
//! will see them, so that the command line in the text is the command line that runs.
//!
//! ```text
//! ports free? ▸ remainders recorded ▸ files written ▸ places made ▸ descriptors opened ▸ guards ▸ processes started, in order
//!             ▸ the VMM told over its API, where it has one ▸ Machine
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::hardware::{InterfaceLimits, TokenBucket};
use crate::places::{Owner, Place};
use crate::remainder::Remainder;
use crate::spec::{ConsoleLog, InitrdPart, PortPublish};

/// Version of the text form of [`LaunchPlan`].
pub const PLAN_FORMAT: u32 = 1;

/// Name of the host's end of the guest channel.
pub const CHANNEL_HOST: &str = "channel.host";
/// Name of the socket on which the host waits for the guest to open its channel.
pub const CHANNEL_LISTENER: &str = "channel.listener";
/// Name of the host's end of the VMM's control connection.
pub const CONTROL_HOST: &str = "control.host";
/// Name of the host's end of the guest's serial console.
pub const CONSOLE_HOST: &str = "console.host";
/// Name of the host's end of the VMM's metrics.
pub const METRICS_HOST: &str = "metrics.host";
/// Name of the memory that holds the initrd.
pub const INITRD: &str = "initrd";

/// The first descriptor number that a plan gives to a child; 0 to 2 are the standard streams.
pub const FIRST_FD: i32 = 3;

/// Everything that has to be done to start one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaunchPlan {
    /// Version of this text form: [`PLAN_FORMAT`].
    pub format: u32,
    /// Name of the backend that made the plan.
    pub backend: String,
    /// Name of the machine.
    pub id: String,
    /// Ports of the host that must be free before anything starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortPublish>,
    /// What the machine makes outside of its run dir; recorded there before anything is made, removed with the machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remainders: Vec<Remainder>,
    /// Files to write first, in this order; removed with the machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PlannedFile>,
    /// Directories, mounts and links to make next, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
    /// Descriptors to open, in this order.
    pub descriptors: Vec<Descriptor>,
    /// Connections whose frames the launcher looks at on their way; see [`firebuild_usernet::guard`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<Guard>,
    /// Processes to start, in this order.
    pub processes: Vec<PlannedProcess>,
    /// What the VMM is told once it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<PlannedApi>,
    /// What the VMM is told by QMP once it runs, on a connection that is closed then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<PlannedMonitor>,
    /// Where the console goes.
    pub console: ConsoleLog,
    /// How much of the console is recorded, where the VMM itself does not limit it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_limit: Option<TokenBucket>,
    /// The file to which the VMM's metrics are added.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::text::maybe_path"
    )]
    pub metrics: Option<PathBuf>,
    /// Things that people should be told once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// A file to write before anything starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedFile {
    /// Where; must not exist yet.
    #[serde(serialize_with = "crate::text::path")]
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub contents: String,
}

/// A user by number, with the supplementary groups it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunAs {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups; all others are given up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
}

/// Something that the launcher opens and hands to a process or keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Descriptor {
    /// An existing file.
    Open {
        /// Name inside the plan.
        name: String,
        /// The file.
        #[serde(serialize_with = "crate::text::path")]
        path: PathBuf,
        /// How it is opened.
        access: Access,
    },
    /// The tap of a private bridge, which exists already. It vanishes with the last holder of this descriptor.
    Tap {
        /// Name inside the plan.
        name: String,
        /// Name of the link.
        link: String,
        /// Network namespace that it is in; that of the launcher where none is given.
        #[serde(
            skip_serializing_if = "Option::is_none",
            serialize_with = "crate::text::maybe_path"
        )]
        netns: Option<PathBuf>,
        /// Frames have no header of virtio.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        plain: bool,
    },
    /// A memory file (`memfd_create(2)`) with these parts one after the other.
    Memory {
        /// Name inside the plan.
        name: String,
        /// Content.
        parts: Vec<InitrdPart>,
    },
    /// A pair of connected Unix stream sockets (`socketpair(2)`).
    SocketPair {
        /// Names of the two ends inside the plan. An end that no process inherits stays with the launcher.
        names: [String; 2],
        /// Send buffer of both ends in bytes, as far as the kernel allows (`net.core.wmem_max` for an ordinary user);
        /// the kernel's default where none is given.
        #[serde(skip_serializing_if = "Option::is_none")]
        send_buffer_bytes: Option<usize>,
    },
    /// A pipe.
    Pipe {
        /// Name of the end to read from.
        read: String,
        /// Name of the end to write to.
        write: String,
    },
    /// A new file with these parts one after the other, for a process that opens it by its path; in memory if it lies
    /// in a place that is.
    File {
        /// Name inside the plan.
        name: String,
        /// Where; must not exist yet.
        #[serde(serialize_with = "crate::text::path")]
        path: PathBuf,
        /// Content.
        parts: Vec<InitrdPart>,
        /// Who may read it; `None` is the launcher's user. Nobody else.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<Owner>,
    },
    /// A named pipe, for a process that opens it by its path. The launcher reads what is written there.
    NamedPipe {
        /// Name of the end to write to.
        write: String,
        /// Name of the end to read from.
        read: String,
        /// Where; must not exist yet.
        #[serde(serialize_with = "crate::text::path")]
        path: PathBuf,
        /// Who may open it; `None` is the launcher's user. Nobody else.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<Owner>,
    },
    /// A Unix stream socket that listens for one connection.
    Listener {
        /// Name inside the plan.
        name: String,
        /// Where; must not exist yet.
        #[serde(serialize_with = "crate::text::path")]
        path: PathBuf,
        /// Who may connect; `None` is the launcher's user. Nobody else.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<Owner>,
    },
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    ReadWrite,
}

/// Two ends between which frames are looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Guard {
    /// Descriptor name of the end that leads to the guest.
    pub guest: String,
    /// Descriptor name of the end that leads to the network.
    pub network: String,
    /// That end is a tap: frames are counted and not looked at, since the rules of the bridge do that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tap: bool,
    /// How much may pass.
    #[serde(skip_serializing_if = "InterfaceLimits::is_none")]
    pub limits: InterfaceLimits,
}

/// A process to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedProcess {
    /// What it is for.
    pub role: Role,
    /// The program.
    #[serde(serialize_with = "crate::text::path")]
    pub program: PathBuf,
    /// Arguments, without the name of the program.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    #[serde(serialize_with = "crate::text::path")]
    pub cwd: PathBuf,
    /// The user to become; `None` keeps that of the launcher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as: Option<RunAs>,
    /// Whether it may listen on ports below 1024 although it is not root (`CAP_NET_BIND_SERVICE`, ambient).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bind_low_ports: bool,
    /// Descriptors it inherits; it gets no other ones but the standard streams.
    pub fds: Vec<InheritedFd>,
    /// Descriptor name of its standard output; `None` for its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// The pipe whose one end is its standard error and whose other end the launcher reads; `None` for a pipe without a
    /// name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<ProcessLog>,
    /// Whether it changes its user by itself, by which the kernel forgets that it shall die with its launcher: then its
    /// standard input is a tether ([`firebuild_sys::spawn::tether`]).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tethered: bool,
    /// Descriptor name of a pipe of the launcher: the process is ready when a byte arrives on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
}

/// The pipe of a process's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessLog {
    /// Descriptor name of the end to read from.
    pub read: String,
    /// Descriptor name of the end to write to.
    pub write: String,
}

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The virtual machine monitor: when it ends the machine has ended.
    Vmm,
    /// The network of the machine, as a process beside it.
    Network,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Vmm => "vmm",
            Role::Network => "network",
        })
    }
}

/// What the VMM is told over its API, before the guest runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedApi {
    /// The VMM's socket, as the launcher sees it. The connection is the control connection afterwards.
    #[serde(serialize_with = "crate::text::path")]
    pub socket: PathBuf,
    /// Requests, in this order; each has to succeed.
    pub requests: Vec<PlannedRequest>,
}

/// What QEMU is told over a monitor of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedMonitor {
    /// Descriptor name of the launcher's end.
    pub connection: String,
    /// Commands, in this order; each has to succeed.
    pub commands: Vec<PlannedCommand>,
}

/// A command of QMP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedCommand {
    /// Its name.
    pub execute: String,
    /// What belongs to it.
    pub arguments: Value,
}

/// A request of HTTP with a JSON body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedRequest {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The body.
    pub body: Value,
}

/// A descriptor as one process sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InheritedFd {
    /// Its number in the process.
    pub number: i32,
    /// Its name in the plan.
    pub name: String,
}

/// The environment that processes get: nothing of the launcher's.
pub(crate) fn plain_environment() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("LC_ALL".to_owned(), "C".to_owned()),
        ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
    ])
}

impl LaunchPlan {
    /// The text form: indented JSON with a final newline.
    pub fn to_text(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("a plan holds only what JSON can say");
        text.push('\n');
        text
    }
}
