//! Errors of everything that handles instances.

use std::path::Path;

use crate::error::{Cause, Error};

/// What went wrong with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceErrorKind {
    /// Nothing has that name or id.
    NotFound,
    /// Several ids begin like that.
    Ambiguous,
    /// The name breaks the grammar.
    BadName,
    /// Another instance has the name.
    NameTaken,
    /// It runs, and must not for this.
    Running,
    /// It does not run, and must for this.
    NotRunning,
    /// Its monitor does not do what it is told.
    Control,
    /// Its record cannot be understood.
    Corrupt,
    /// A file cannot be read or written.
    Io,
}

/// An operation on an instance that failed.
pub type InstanceError = Error<InstanceErrorKind>;

/// "cannot VERB PATH", caused by an I/O error.
pub(crate) fn io(verb: &str, path: &Path, cause: impl Into<Cause>) -> InstanceError {
    Error::caused(
        InstanceErrorKind::Io,
        format!("cannot {verb} {}", path.display()),
        cause,
    )
}
