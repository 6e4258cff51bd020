//! Why a machine did not start.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::READY_TIMEOUT;
use crate::net::ports::PortError;
use crate::places::PlaceError;
use crate::plan::Role;

/// A machine that could not be started.
#[derive(Debug)]
pub struct LaunchError {
    pub(super) kind: LaunchErrorKind,
    pub(super) source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaunchErrorKind {
    /// A published port is not free.
    Port,
    /// A file cannot be written.
    Write(PathBuf),
    /// A file cannot be opened.
    Open(PathBuf),
    /// A place cannot be made.
    Place,
    /// A file is not readable for the user that the machine runs as.
    NotReadable {
        /// The file.
        path: PathBuf,
        /// The user.
        uid: u32,
    },
    /// A descriptor cannot be made; its name in the plan.
    Descriptor(String),
    /// A process cannot be started; the program.
    Spawn(PathBuf),
    /// A process ended before it was ready.
    Ended {
        /// What it is for.
        role: Role,
        /// The program.
        program: PathBuf,
        /// How it ended and what it said last.
        words: String,
    },
    /// A process was not ready in time.
    NotReady {
        /// The program.
        program: PathBuf,
    },
    /// The VMM does not take a part of the machine.
    Api {
        /// The request.
        request: String,
        /// What the VMM and its log said, beside the source of the error.
        words: String,
    },
}

impl LaunchError {
    pub(super) fn new(kind: LaunchErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(super) fn io(kind: LaunchErrorKind, source: io::Error) -> Self {
        Self {
            kind,
            source: Some(Box::new(source)),
        }
    }

    /// What to match on.
    #[must_use]
    pub fn kind(&self) -> &LaunchErrorKind {
        &self.kind
    }
}

impl From<PlaceError> for LaunchError {
    fn from(source: PlaceError) -> Self {
        Self {
            kind: LaunchErrorKind::Place,
            source: Some(Box::new(source)),
        }
    }
}

impl From<PortError> for LaunchError {
    fn from(source: PortError) -> Self {
        Self {
            kind: LaunchErrorKind::Port,
            source: Some(Box::new(source)),
        }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            LaunchErrorKind::Port => f.write_str("cannot start the machine"),
            LaunchErrorKind::Place => f.write_str("cannot make what the machine needs"),
            LaunchErrorKind::Api { request, words } if words.is_empty() => {
                write!(f, "the VMM did not do {request}")
            }
            LaunchErrorKind::Api { request, words } => {
                write!(f, "the VMM did not do {request}\n  {words}")
            }
            LaunchErrorKind::Write(path) => write!(f, "cannot write {}", path.display()),
            LaunchErrorKind::Open(path) => write!(f, "cannot open {}", path.display()),
            LaunchErrorKind::NotReadable { path, uid } => write!(
                f,
                "{} cannot be read by uid {uid}, which the machine runs as; give it the mode 0644",
                path.display()
            ),
            LaunchErrorKind::Descriptor(name) => write!(f, "cannot make the descriptor {name}"),
            LaunchErrorKind::Spawn(program) => write!(f, "cannot start {}", program.display()),
            LaunchErrorKind::Ended {
                role,
                program,
                words,
            } => {
                write!(f, "the {role} process {} {words}", program.display())
            }
            LaunchErrorKind::NotReady { program } => {
                write!(
                    f,
                    "{} was not ready within {} s",
                    program.display(),
                    READY_TIMEOUT.as_secs()
                )
            }
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
