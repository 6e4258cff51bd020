//! What the two halves of a sandbox say to each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::exec::ExecErrorKind;

/// The first message to a child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// Process id of the parent, as both see it.
    pub(super) parent: i32,
    /// Which user namespace to work in. With [`Scope::Mapped`] and [`Scope::Single`] its descriptor comes along.
    pub(super) scope: Scope,
    /// What to do.
    pub(super) job: Job,
}

/// How ids outside and inside belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Scope {
    /// No user namespace: ids are the host's, everything can be held.
    Host,
    /// A user namespace with ranges of ids.
    Mapped,
    /// A user namespace with one id.
    Single,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Makes a user namespace, sends its descriptor and waits until its maps are in force.
    Hold,
    /// Makes files: the entries of a layer follow.
    Unpack(UnpackJob),
    /// Removes trees.
    Remove(Vec<PathBuf>),
    /// Runs a step.
    Step(Box<StepJob>),
}

/// Files to make.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UnpackJob {
    /// Directory in which they are made; made itself if it is missing.
    pub(super) directory: PathBuf,
    /// Directory of the blobs, by hexadecimal digest.
    pub(super) blobs: PathBuf,
}

/// A step to run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct StepJob {
    pub(super) root: RootJob,
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) user: String,
    pub(super) hostname: String,
    pub(super) hosts: Vec<u8>,
    pub(super) resolv_conf: Vec<u8>,
    /// A network namespace with loopback only.
    pub(super) own_network: bool,
    /// Tell what is in the upper directory, and open its files: the parent has not the ids to look for itself.
    pub(super) capture: bool,
    /// All capabilities, no filter, nothing masked.
    pub(super) insecure: bool,
    pub(super) mounts: Vec<MountJob>,
    /// Files below `/dev/pipes`: path, content, permission bits.
    pub(super) files: Vec<(String, Vec<u8>, u32)>,
}

/// What a step's root is made of.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct RootJob {
    /// Snapshots, lowest first. Without [`RootJob::copy`] they are the lower half of an overlay.
    pub(super) lowers: Vec<PathBuf>,
    /// Directory of this step alone, with [`UPPER`], [`WORK`] and [`MOUNTPOINT`] in it.
    pub(super) directory: PathBuf,
    /// The root is [`UPPER`] itself, which holds a copy of everything.
    pub(super) copy: bool,
}

/// In a snapshot or a step's directory: the files.
pub(super) const UPPER: &str = "fs";
/// In a step's directory: what overlayfs needs for itself.
pub(super) const WORK: &str = "work";
/// In a step's directory: where the root is mounted, in the step's mount namespace.
pub(super) const MOUNTPOINT: &str = "root";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MountJob {
    pub(super) target: String,
    pub(super) read_only: bool,
    pub(super) kind: MountJobKind,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum MountJobKind {
    /// A path in a stack of snapshots, lowest first; `directory` is where writes go, when they are allowed.
    Bind {
        lowers: Vec<PathBuf>,
        source: String,
        directory: PathBuf,
    },
    /// A directory, made with these properties when it is missing.
    Directory {
        path: PathBuf,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// Memory.
    Tmpfs { size: Option<u64> },
    /// A file with this content.
    File {
        data: Vec<u8>,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// A socket of the host.
    Socket { path: PathBuf },
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It could not do it.
    Failed(Failure),
    /// The user namespace is there; its descriptor comes along.
    Namespace,
    /// The job is done.
    Done,
    /// The files are made, but for these (see [`super::skipped`]).
    Unpacked { skipped: String },
    /// The step's program has ended, and with it every process that it left. Of its directory the upper one is there,
    /// if it has succeeded.
    Exited { status: Status },
    /// After a successful step that is captured and the frames of what is in its upper directory.
    Captured,
    /// Descriptors of the files that were asked for, in that order.
    Files,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Status {
    Code(i32),
    Signal(i32),
}

/// What a parent says after a step has been captured.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Open these files of the upper directory, at most [`super::wire::MAX_FDS`].
    Open(Vec<Vec<u8>>),
    /// That was all.
    Finish,
}

/// Why a child could not do its job.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// The whole chain, outermost first.
    pub(super) messages: Vec<String>,
    /// The disk is full.
    pub(super) no_space: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FailureKind {
    Step,
    Ids,
    Host,
    Base,
    Layer,
    /// An overlay cannot be mounted here; a copy would work.
    NoOverlay,
    Cancelled,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            messages: vec![message.into()],
            no_space: false,
        }
    }

    pub(super) fn caused(
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
    pub(super) fn because<E: std::error::Error + 'static>(
        kind: FailureKind,
        message: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |error| Self::caused(kind, message, &error)
    }

    /// What the executor calls it.
    pub(super) fn exec_kind(&self) -> ExecErrorKind {
        match self.kind {
            _ if self.no_space => ExecErrorKind::NoSpace,
            FailureKind::Step => ExecErrorKind::Step,
            FailureKind::Ids => ExecErrorKind::Ids,
            FailureKind::Host | FailureKind::NoOverlay => ExecErrorKind::Host,
            FailureKind::Base => ExecErrorKind::Base,
            FailureKind::Layer => ExecErrorKind::Layer,
            FailureKind::Cancelled => ExecErrorKind::Cancelled,
        }
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
    use crate::exec::ExecErrorKind;

    #[test]
    fn a_full_disk_is_told_apart() {
        let error = std::io::Error::from_raw_os_error(28);
        let failure = Failure::caused(FailureKind::Base, "cannot unpack", &error);
        assert_eq!(failure.exec_kind(), ExecErrorKind::NoSpace);
        let failure = Failure::caused(FailureKind::Base, "x", &rustix::io::Errno::PERM);
        assert_eq!(failure.exec_kind(), ExecErrorKind::Base);
    }
}
