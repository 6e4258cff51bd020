//! Errors of profiles.

use std::path::Path;

use crate::error::{Cause, Error};

/// What went wrong with a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProfileErrorKind {
    /// The name cannot be that of a file.
    Name,
    /// A value cannot be used.
    Value,
    /// There is no profile of that name.
    NotFound,
    /// The file is no profile.
    Corrupt,
    /// A file or directory cannot be read or written, or nothing says where it is.
    Io,
}

/// A failed operation on profiles.
pub type ProfileError = Error<ProfileErrorKind>;

/// "cannot VERB PATH", caused by an I/O error.
pub(super) fn io(verb: &str, path: &Path, cause: impl Into<Cause>) -> ProfileError {
    Error::caused(
        ProfileErrorKind::Io,
        format!("cannot {verb} {}", path.display()),
        cause,
    )
}
