//! The VMMs that can be driven: a pure planner and a control client each.

use std::borrow::Cow;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde_json::Value;

use crate::capability::Capabilities;
use crate::check::CheckedSpec;
use crate::cmdline::CmdlineError;
use crate::hardware::BalloonStatistics;
use crate::plan::LaunchPlan;
use crate::run_dir::RunDir;

pub mod firecracker;
pub mod qemu;

/// A virtual machine monitor we can drive. Planning is pure; launching is shared by all backends.
pub trait Backend: Send + Sync {
    /// Its name, as `--backend` takes it.
    fn name(&self) -> &'static str;

    /// What this VMM can do here. [`VmSpec::check`](crate::VmSpec::check) refuses early what is missing, so no other
    /// method ever answers "unsupported".
    fn capabilities(&self) -> Capabilities;

    /// The exact processes, files and descriptors that [`launch`](crate::launch::launch) will use.
    ///
    /// # Errors
    /// A kernel command line or the path of a socket that gets too long.
    fn plan(&self, spec: &CheckedSpec, dir: &RunDir) -> Result<LaunchPlan, PlanError>;

    /// Takes over the control connection of a launched machine ([`Machine::take_control`](crate::Machine::take_control)).
    ///
    /// # Errors
    /// When the VMM does not greet as it should.
    fn control(&self, connection: OwnedFd) -> Result<Box<dyn Control>, ControlError>;
}

/// What can be asked of a running VMM.
pub trait Control: Send + fmt::Debug {
    /// Stops the processors.
    ///
    /// # Errors
    /// When the VMM refuses or has ended.
    fn pause(&mut self) -> Result<(), ControlError>;

    /// Lets the processors run again.
    ///
    /// # Errors
    /// When the VMM refuses or has ended.
    fn resume(&mut self) -> Result<(), ControlError>;

    /// Gives the guest another metadata document, where the VMM serves it ([`VmSpec::mmds`](crate::VmSpec)); whether it
    /// does.
    ///
    /// # Errors
    /// When the VMM refuses or has ended.
    fn put_metadata(&mut self, _document: &Value) -> Result<bool, ControlError> {
        Ok(false)
    }

    /// What the balloon tells of the guest's memory, where the spec asks for that
    /// ([`Balloon::stats_polling_interval_s`](crate::hardware::Balloon::stats_polling_interval_s)).
    ///
    /// # Errors
    /// When the VMM refuses, as one without such a balloon does, or has ended.
    fn balloon_statistics(&mut self) -> Result<BalloonStatistics, ControlError>;

    /// Ends the VMM at once, as if the power went.
    ///
    /// # Errors
    /// When the VMM refuses.
    fn quit(&mut self) -> Result<(), ControlError>;
}

/// What an exit code of a VMM means, where its documentation says so. `backend` is the name of its backend.
#[must_use]
pub fn exit_reason(backend: &str, code: i32) -> Option<&'static str> {
    match backend {
        firecracker::NAME => firecracker::exit_reason(code),
        _ => None,
    }
}

/// Whether a line that a VMM logs tells nothing of how its machine ended. `backend` is the name of its backend.
pub(crate) fn is_noise(backend: &str, line: &str) -> bool {
    backend == firecracker::NAME && firecracker::is_noise(line)
}

/// A plan that cannot be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum PlanError {
    /// The kernel command line.
    Cmdline(CmdlineError),
    /// A path that the kernel would not take.
    PathTooLong {
        /// What it is the path of.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        bytes: usize,
        /// How long it may be.
        most: usize,
        /// What would help.
        remedy: String,
    },
    /// Something about the jail.
    Jail(String),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cmdline(_) => f.write_str("the kernel command line cannot be made"),
            Self::PathTooLong {
                what,
                path,
                bytes,
                most,
                remedy,
            } => write!(
                f,
                "path of the {what} {} has {bytes} bytes, it may have {most}; {remedy}",
                path.display()
            ),
            Self::Jail(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for PlanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Cmdline(source) => Some(source),
            Self::PathTooLong { .. } | Self::Jail(_) => None,
        }
    }
}

/// A VMM that does not do what it is told.
#[derive(Debug)]
pub struct ControlError {
    /// What was asked.
    command: Cow<'static, str>,
    kind: ControlErrorKind,
    source: Option<std::io::Error>,
}

/// What went wrong with a request to a VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlErrorKind {
    /// The connection ended.
    Closed,
    /// No connection: an earlier command could make none.
    Lost,
    /// No answer in time.
    Timeout,
    /// An answer that is not of the protocol.
    Protocol(&'static str),
    /// The VMM refused, in its words.
    Refused(String),
    /// The connection failed.
    Io,
}

impl ControlError {
    pub(crate) fn new(command: impl Into<Cow<'static, str>>, kind: ControlErrorKind) -> Self {
        Self {
            command: command.into(),
            kind,
            source: None,
        }
    }

    /// That of a command for which there is no connection, because none could be made for an earlier one.
    #[must_use]
    pub fn lost(command: &'static str) -> Self {
        Self::new(command, ControlErrorKind::Lost)
    }

    pub(crate) fn io(command: impl Into<Cow<'static, str>>, source: std::io::Error) -> Self {
        Self {
            command: command.into(),
            kind: ControlErrorKind::Io,
            source: Some(source),
        }
    }

    /// What to match on.
    #[must_use]
    pub fn kind(&self) -> &ControlErrorKind {
        &self.kind
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = &self.command;
        match &self.kind {
            ControlErrorKind::Closed => write!(f, "the VMM ended before it answered {command}"),
            ControlErrorKind::Lost => {
                write!(
                    f,
                    "cannot send {command} to a VMM that did not answer before"
                )
            }
            ControlErrorKind::Timeout => write!(f, "the VMM did not answer {command} in time"),
            ControlErrorKind::Protocol(problem) => {
                write!(f, "the VMM answered {command} with {problem}")
            }
            ControlErrorKind::Refused(words) => write!(f, "the VMM refused {command}: {words}"),
            ControlErrorKind::Io => write!(f, "cannot send {command} to the VMM"),
        }
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
