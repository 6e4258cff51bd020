//! Errors of making base images.

use std::path::Path;

use crate::error::{Cause, Error};

/// What went wrong while a base image was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaseOsErrorKind {
    /// The name is no `distribution:suite` that can be bootstrapped.
    BadName,
    /// Neither mmdebstrap nor debootstrap can be used here.
    NoTool,
    /// Nothing says where the distribution's packages are.
    NoMirror,
    /// The tool ran and failed; its last lines are the cause.
    Failed,
    /// What the tool made is no file system that can be stored.
    Content,
    /// The store refused the image.
    Store,
    /// A file cannot be read or written, a program cannot be started.
    Io,
    /// Somebody asked for a stop.
    Cancelled,
}

/// A base image that could not be made.
pub type BaseOsError = Error<BaseOsErrorKind>;

/// "cannot VERB PATH", caused by an I/O error.
pub(crate) fn io(verb: &str, path: &Path, cause: impl Into<Cause>) -> BaseOsError {
    Error::caused(
        BaseOsErrorKind::Io,
        format!("cannot {verb} {}", path.display()),
        cause,
    )
}
