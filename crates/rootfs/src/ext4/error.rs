//! What can go wrong while an image is written.

use std::fmt;
use std::io;

use crate::path::{Shown, Text};
use crate::sink::Gone;
use crate::tree::{InodeId, Tree};

/// Why an image could not be written.
#[derive(Debug)]
pub struct Ext4Error {
    kind: Ext4ErrorKind,
    path: Option<Vec<u8>>,
    what: String,
    source: Option<io::Error>,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ext4ErrorKind {
    /// The content of a file cannot be read, or is longer or shorter than the tree says.
    Content,
    /// ext4 cannot hold this: an attribute, a link count, a device number, a file size.
    Unrepresentable,
    /// The image would be larger than this writer makes.
    TooLarge,
    /// An option is not valid: a label that is too long, a journal that is too small.
    Option,
    /// The disk of the output is full.
    NoSpace,
    /// Writing the output failed.
    Write,
}

impl Ext4Error {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> Ext4ErrorKind {
        self.kind
    }

    /// The file of the tree that it is about, relative to the root; one of its names if it has several.
    #[must_use]
    pub fn path(&self) -> Option<&[u8]> {
        self.path.as_deref()
    }

    pub(super) fn new(kind: Ext4ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            path: None,
            what: what.into(),
            source: None,
        }
    }

    pub(super) fn unrepresentable(tree: &Tree, id: InodeId, what: impl Into<String>) -> Self {
        Self {
            path: tree.path_of(id),
            ..Self::new(Ext4ErrorKind::Unrepresentable, what)
        }
    }

    pub(super) fn content(
        tree: &Tree,
        id: InodeId,
        what: impl Into<String>,
        source: Option<io::Error>,
    ) -> Self {
        Self {
            path: tree.path_of(id),
            source,
            ..Self::new(Ext4ErrorKind::Content, what)
        }
    }

    pub(super) fn write(source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Ext4ErrorKind::NoSpace,
            _ => Ext4ErrorKind::Write,
        };
        Self {
            source: Some(source),
            ..Self::new(kind, "cannot write the ext4 image")
        }
    }
}

impl From<Gone> for Ext4Error {
    fn from(Gone: Gone) -> Self {
        Self::new(Ext4ErrorKind::Write, "the writer of the image has stopped")
    }
}

impl fmt::Display for Ext4Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: {}", Shown(path), self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for Ext4Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// An attribute's name as text for a message.
pub(super) fn shown(name: &[u8]) -> String {
    Text(name).to_string()
}
