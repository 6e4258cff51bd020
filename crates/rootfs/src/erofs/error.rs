//! What can go wrong while an image is written.

use std::fmt;
use std::io;

use crate::path::Shown;
use crate::sink::Gone;
use crate::tree::{InodeId, Tree};

/// Why an image could not be written.
#[derive(Debug)]
pub struct ErofsError {
    kind: ErofsErrorKind,
    path: Option<Vec<u8>>,
    what: String,
    source: Option<io::Error>,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErofsErrorKind {
    /// The content of a file cannot be read, or is longer or shorter than the tree says.
    Content,
    /// EROFS cannot hold this: an attribute, a device number.
    Unrepresentable,
    /// The image would have more than 2^32 blocks (16 TiB).
    TooLarge,
    /// An option is not valid: a label that is too long.
    Option,
    /// The disk of the output is full.
    NoSpace,
    /// Writing the output failed.
    Write,
}

impl ErofsError {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErofsErrorKind {
        self.kind
    }

    pub(super) fn new(kind: ErofsErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            path: None,
            what: what.into(),
            source: None,
        }
    }

    /// The same about a file of the tree.
    pub(super) fn of(self, tree: &Tree, id: InodeId) -> Self {
        Self {
            path: tree.path_of(id),
            ..self
        }
    }

    pub(super) fn unreadable(source: io::Error) -> Self {
        Self {
            source: Some(source),
            ..Self::new(ErofsErrorKind::Content, "cannot read the content")
        }
    }

    pub(super) fn write(source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => ErofsErrorKind::NoSpace,
            _ => ErofsErrorKind::Write,
        };
        Self {
            source: Some(source),
            ..Self::new(kind, "cannot write the EROFS image")
        }
    }
}

impl From<Gone> for ErofsError {
    fn from(Gone: Gone) -> Self {
        Self::new(ErofsErrorKind::Write, "the writer of the image has stopped")
    }
}

impl fmt::Display for ErofsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", Shown(path), self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for ErofsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
