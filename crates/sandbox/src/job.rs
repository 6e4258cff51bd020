//! What the two halves of a sandbox say to each other.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The first message to a child.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// Process id of the parent, as both see it.
    pub parent: i32,
    /// Which user namespace to work in. With [`Scope::Mapped`] and [`Scope::Single`] its descriptor comes along.
    pub scope: Scope,
    /// Which network namespace to work in: one whose descriptor comes along, last, or the parent's.
    pub network: bool,
    /// What to do.
    pub job: Job,
}

/// How ids outside and inside belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// No user namespace: ids are the host's, everything can be held.
    Host,
    /// A user namespace with ranges of ids.
    Mapped,
    /// A user namespace with one id.
    Single,
}

/// A job of the inner half.
#[derive(Debug, Serialize, Deserialize)]
pub enum Job {
    /// Makes a user namespace, sends its descriptor and waits until its maps are in force.
    Hold,
    /// Makes the network of a build and hands it out.
    Network(NetworkJob),
    /// Makes files: the entries of a layer follow.
    Unpack(UnpackJob),
    /// Removes trees.
    Remove(Vec<PathBuf>),
    /// Runs a step.
    Step(Box<StepJob>),
}

/// A network namespace with a link to the outside.
#[derive(Debug, Serialize, Deserialize)]
pub struct NetworkJob {
    /// Hardware address of the link.
    pub hardware_address: [u8; 6],
    /// MTU of the link in bytes.
    pub mtu: u32,
    /// Addresses of the link with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Gateways of the default routes.
    pub gateways: Vec<IpAddr>,
}

/// Files to make.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnpackJob {
    /// Directory in which they are made; made itself if it is missing.
    pub directory: PathBuf,
    /// Directory of the blobs, by hexadecimal digest.
    pub blobs: PathBuf,
}

/// A step to run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StepJob {
    /// What its root is made of.
    pub root: RootJob,
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// The environment; later entries of a name win.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute; made if it is missing. Empty is `/`.
    pub cwd: String,
    /// `name|id[:group|id]`, looked up in the step's own `/etc/passwd`; empty is root.
    pub user: String,
    /// Host name; empty leaves the one that there is.
    pub hostname: String,
    /// What `/etc/hosts` shows.
    pub hosts: Vec<u8>,
    /// What `/etc/resolv.conf` shows.
    pub resolv_conf: Vec<u8>,
    /// A network namespace with loopback only.
    pub own_network: bool,
    /// Tell what is in the upper directory, and open its files: the parent has not the ids to look for itself.
    pub capture: bool,
    /// All capabilities, no filter, nothing masked.
    pub insecure: bool,
    /// Further mounts, in their order.
    pub mounts: Vec<MountJob>,
    /// Files below `/dev/pipes`: path, content, permission bits.
    pub files: Vec<(String, Vec<u8>, u32)>,
}

/// What a step's root is made of.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RootJob {
    /// Snapshots, lowest first. Without [`RootJob::copy`] they are the lower half of an overlay.
    pub lowers: Vec<PathBuf>,
    /// Directory of this step alone, with [`UPPER`] and [`WORK`] in it; with [`RootJob::copy`] with [`UPPER`] and
    /// [`MOUNTPOINT`].
    pub directory: PathBuf,
    /// The root is [`UPPER`] itself, which holds a copy of everything.
    pub copy: bool,
}

/// In a snapshot or a step's directory: the files.
pub const UPPER: &str = "fs";
/// In a step's directory: what overlayfs needs for itself.
pub const WORK: &str = "work";
/// In a step's or mount's directory: where a root is mounted that cannot cover its own upper directory, in the step's
/// mount namespace.
pub const MOUNTPOINT: &str = "root";

/// A mount of a step.
#[derive(Debug, Serialize, Deserialize)]
pub struct MountJob {
    /// Where it appears, absolute.
    pub target: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What it shows.
    pub kind: MountJobKind,
}

impl MountJob {
    /// Whether a bind of these snapshots has to be made of an overlay, for which it needs its directory.
    pub(crate) fn needs_directory(&self, lowers: &[PathBuf]) -> bool {
        !self.read_only || lowers.len() > 1
    }
}

/// What a [`MountJob`] shows.
#[derive(Debug, Serialize, Deserialize)]
pub enum MountJobKind {
    /// A path in a stack of snapshots, lowest first; `directory` is where writes go, when they are allowed.
    Bind {
        /// The snapshots.
        lowers: Vec<PathBuf>,
        /// Path in them; links on the way stay inside.
        source: String,
        /// A directory of this mount alone.
        directory: PathBuf,
    },
    /// A directory, made with these properties when it is missing.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Limit in bytes; none is half of the memory.
        size: Option<u64>,
    },
    /// A file with this content.
    File {
        /// The content.
        data: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A socket of the host.
    Socket {
        /// The socket.
        path: PathBuf,
    },
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It could not do it.
    Failed(Failure),
    /// The user namespace is there; its descriptor comes along.
    Namespace,
    /// The network is there; its namespace and the frames of its link come along.
    Network,
    /// The job is done.
    Done,
    /// The files are made, but for these (see [`crate::skipped`]).
    Unpacked {
        /// What could not be made.
        skipped: String,
    },
    /// The step's program has ended, and with it every process that it left. Of its directory the upper one is there,
    /// if it has succeeded.
    Exited {
        /// How the program ended.
        status: Status,
    },
    /// After a successful step that is captured and the frames of what is in its upper directory.
    Captured,
    /// Descriptors of the files that were asked for, in that order.
    Files,
}

/// How a step's program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It returned a code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// What a parent says after a step has been captured.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Open these files of the upper directory, at most [`crate::wire::MAX_FDS`].
    Open(Vec<Vec<u8>>),
    /// That was all.
    Finish,
}

/// Why a child could not do its job.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// The whole chain, outermost first.
    pub messages: Vec<String>,
    /// The disk is full.
    pub no_space: bool,
}

/// What went wrong with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The step asks for something that cannot be.
    Step,
    /// It needs ids that cannot be mapped.
    Ids,
    /// The kernel refuses what a step needs.
    Host,
    /// What the step stands on cannot be had.
    Base,
    /// What it changed cannot be read.
    Layer,
    /// An overlay cannot be mounted here; a copy would work.
    NoOverlay,
    /// Nobody waits for it any more.
    Cancelled,
}

impl From<firebuild_sys::process::Exit> for Status {
    fn from(exit: firebuild_sys::process::Exit) -> Self {
        match exit {
            firebuild_sys::process::Exit::Code(code) => Self::Code(code),
            firebuild_sys::process::Exit::Signal(signal) => Self::Signal(signal),
        }
    }
}

impl From<Status> for firebuild_sys::process::Exit {
    fn from(status: Status) -> Self {
        match status {
            Status::Code(code) => Self::Code(code),
            Status::Signal(signal) => Self::Signal(signal),
        }
    }
}

impl Failure {
    /// A failure without a cause.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            messages: vec![message.into()],
            no_space: false,
        }
    }

    /// A failure with the chain of its causes.
    pub fn caused(
        kind: FailureKind,
        message: impl Into<String>,
        error: &(dyn std::error::Error + 'static),
    ) -> Self {
        let mut failure = Self::new(kind, message);
        let mut cause = Some(error);
        while let Some(error) = cause {
            failure.messages.push(error.to_string());
            failure.no_space |= is_full(error);
            cause = error.source();
        }
        failure
    }

    /// For `map_err`: what was being done, and the cause.
    pub fn because<E: std::error::Error + 'static>(
        kind: FailureKind,
        message: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |error| Self::caused(kind, message, &error)
    }
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let errno = |errno: rustix::io::Errno| {
        matches!(errno, rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)
    };
    error
        .downcast_ref::<rustix::io::Errno>()
        .copied()
        .is_some_and(errno)
        || error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
}

#[cfg(test)]
mod tests {
    use super::{Failure, FailureKind};

    #[test]
    fn a_full_disk_is_told_apart() {
        let error = std::io::Error::from_raw_os_error(28);
        assert!(Failure::caused(FailureKind::Base, "cannot unpack", &error).no_space);
        assert!(!Failure::caused(FailureKind::Base, "x", &rustix::io::Errno::PERM).no_space);
    }
}
