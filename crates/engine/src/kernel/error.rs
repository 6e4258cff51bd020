//! Errors of the kernel catalogue.

use std::path::Path;

use crate::error::{Cause, Error};

/// What went wrong with a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelErrorKind {
    /// The file is none of the things that hold a kernel.
    NotAKernel,
    /// A kernel, but not one that this program can use: another machine, another word size, too old.
    Unsupported,
    /// The file begins well and then breaks off or contradicts itself.
    Corrupt,
    /// Larger than any real kernel: refused before memory or disk fills.
    TooLarge,
    /// No kernel of that id, or none that fits, is in the catalogue, or none lies on this host.
    NotFound,
    /// The id cannot name a directory.
    BadId,
    /// A file or directory cannot be read or written.
    Io,
}

/// A kernel operation that failed.
pub type KernelError = Error<KernelErrorKind>;

/// "cannot VERB PATH", caused by an I/O error.
pub(crate) fn io(verb: &str, path: &Path, cause: impl Into<Cause>) -> KernelError {
    Error::caused(
        KernelErrorKind::Io,
        format!("cannot {verb} {}", path.display()),
        cause,
    )
}
