//! Executing one RUN step: the waist between the solver and whatever runs programs.
//!
//! An [`Executor`] is given a chain of layers and a [`Step`], and gives back how the step ended and the layer that it made.
//! How it makes a file system out of the chain is its own business: the sandbox mounts snapshots, a VM attaches a disk.
//! What a step was *given* is the tree of the chain; its layer is the difference to that, so what an executor cannot show
//! to a step (a device node in a user namespace) is not lost by it.

use std::path::PathBuf;
use std::sync::Arc;

use firebuild_oci::Digest;
use firebuild_rootfs::layer::Layer;
pub use firebuild_sys::process::Exit;

use crate::cancel::Cancel;
use crate::chain::Chain;
use crate::event::Stream;
use crate::graph::{InlineFile, NetworkMode, SecurityMode};

/// Runs RUN steps. Several threads call it at once.
pub trait Executor: Sync {
    /// Runs `step` on top of `base` and makes a layer of what it changed, when it succeeds.
    ///
    /// `output` gets what the step writes, as it comes, each stream in order. A program that cannot be executed is a
    /// result like any other: it is told on standard error, and the status is 127 (not found) or 126.
    ///
    /// # Errors
    /// When the step could not be run or its layer not be made. A step that ran and failed is no error.
    fn run(
        &self,
        base: &Arc<Chain>,
        step: &Step,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Executed, ExecError>;

    /// Hears, at most once, that steps are to be expected that have the default network: time to make what they will share.
    /// There may be none after all. Whoever calls it has a thread to spare, and calls [`Executor::run`] meanwhile.
    fn expect(&self) {}
}

/// One RUN step with everything resolved.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    /// The whole environment in order; later entries of a name win. `HOME` is added unless it is here.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute; made if it is missing. Empty is `/`.
    pub cwd: String,
    /// `name|id[:group|id]`, looked up in the step's own `/etc/passwd`; empty is root.
    pub user: String,
    /// Host name inside the step; empty is `buildkitsandbox`, the name that other builders give.
    pub hostname: String,
    /// Further lines for `/etc/hosts`: address and names.
    pub extra_hosts: Vec<(String, String)>,
    /// What network the step sees.
    pub network: NetworkMode,
    /// Whether the step is confined.
    pub security: SecurityMode,
    /// Further mounts; a later one hides what an earlier one shows at the same place or below.
    pub mounts: Vec<StepMount>,
    /// Files below `/dev/pipes` that exist only during the step (heredoc scripts).
    pub files: Vec<InlineFile>,
}

/// A mount of a step. Places that have to be made for it are gone afterwards if they are still empty.
#[derive(Clone, Debug)]
pub struct StepMount {
    /// Where it appears, absolute.
    pub target: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What it shows.
    pub kind: StepMountKind,
}

/// What a [`StepMount`] shows.
#[derive(Clone, Debug)]
pub enum StepMountKind {
    /// A file or directory of a chain. Writes, when allowed, are thrown away.
    Bind {
        /// The chain.
        chain: Arc<Chain>,
        /// Path in it; links on the way stay inside of it.
        source: String,
    },
    /// A directory that lives between builds. Who calls has locked it as its sharing mode asks.
    Cache {
        /// A directory of the host that is only used for this; its content is kept in it under a name of our own.
        directory: PathBuf,
        /// What fills it when it is new.
        seed: Option<(Arc<Chain>, String)>,
        /// Permission bits of a new directory without seed.
        mode: u32,
        /// Owner of a new directory without seed.
        uid: u32,
        /// Group of a new directory without seed.
        gid: u32,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Limit in bytes; none is half of the memory.
        size: Option<u64>,
    },
    /// A file in memory.
    Secret {
        /// Its content.
        data: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A Unix socket of the host.
    Ssh {
        /// The agent's socket.
        socket: PathBuf,
        /// Permission bits that the step sees on its own socket.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// What came of a step.
#[derive(Debug)]
pub struct Executed {
    /// How its program ended.
    pub status: Exit,
    /// What it changed; none when it failed.
    pub layer: Option<NewLayer>,
    /// What a person should know, one line each: entries that a layer cannot hold, slower ways that were taken.
    pub notices: Vec<String>,
    /// What would have helped a step that failed, when something is known.
    pub hint: Option<String>,
}

/// A layer that a step made. Its blob is in the store.
#[derive(Debug)]
pub struct NewLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Size of the uncompressed tar in bytes.
    pub size: u64,
    /// What is in it, ready to be applied to the tree of the base.
    pub layer: Layer,
}

/// Why a step could not be run. The source says more.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct ExecError {
    kind: ExecErrorKind,
    context: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What went wrong with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecErrorKind {
    /// It was stopped by a [`Cancel`].
    Cancelled,
    /// The step asks for something that cannot be: an unknown user, a mount of a path that is not there.
    Step,
    /// The step needs ids that the caller may not map.
    Ids,
    /// The host refuses what a sandbox needs.
    Host,
    /// The layers that the step stands on cannot be had.
    Base,
    /// The layer that it made cannot be stored.
    Layer,
    /// The disk is full.
    NoSpace,
}

impl ExecError {
    /// An error without a cause.
    pub fn new(kind: ExecErrorKind, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            hint: None,
            source: None,
        }
    }

    /// An error with its cause.
    pub fn caused(
        kind: ExecErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(kind, context)
        }
    }

    /// Adds what would help.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ExecErrorKind {
        self.kind
    }

    /// What would help, when something is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}
