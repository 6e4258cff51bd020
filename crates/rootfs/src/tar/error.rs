//! What can be wrong with an archive.

use std::fmt;
use std::io;

use crate::path::{PathError, Text};

/// Why an archive cannot be read or written.
#[derive(Debug)]
pub struct TarError {
    kind: TarErrorKind,
    entry: Vec<u8>,
    offset: u64,
    source: Option<io::Error>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TarErrorKind {
    /// Reading or writing failed; the source says how.
    Io,
    /// The content of an entry cannot be read from where it is; the source says why.
    Content,
    /// The archive ends inside a header or an entry.
    Truncated,
    /// A header's checksum is wrong: damage, or no tar archive.
    Checksum,
    /// A number in a header cannot be read or does not fit; the field is named.
    Number(&'static str),
    /// A path is not acceptable.
    Path(PathError),
    /// An extended header is no list of records.
    Pax,
    /// An extended header or long name is larger than the limit.
    PaxTooLarge,
    /// There are more entries than the limit.
    TooManyEntries,
    /// An entry of a type that this reader does not know.
    Type(u8),
    /// The map of a sparse file contradicts itself.
    Sparse,
    /// A symbolic or hard link has an empty or too long target.
    Link,
    /// An extended attribute's name or value is longer than Linux takes.
    Xattr,
    /// An access control list is malformed or names users that have no number in the archive.
    Acl,
    /// A whiteout has no name that it could remove.
    Whiteout,
    /// The properties of an entry are more than an extended header may hold.
    TooLarge,
    /// A file of the layer has a name that begins with `.wh.`, which readers would take for a whiteout.
    Reserved,
}

impl TarError {
    pub(super) fn new(kind: TarErrorKind, offset: u64) -> Self {
        Self {
            kind,
            entry: Vec::new(),
            offset,
            source: None,
        }
    }

    pub(super) fn io(source: io::Error, offset: u64) -> Self {
        let kind = if source.kind() == io::ErrorKind::UnexpectedEof {
            TarErrorKind::Truncated
        } else {
            TarErrorKind::Io
        };
        Self {
            source: Some(source),
            ..Self::new(kind, offset)
        }
    }

    /// Reading the content of an entry that is to be written failed.
    pub(super) fn content(source: io::Error, offset: u64) -> Self {
        Self {
            source: Some(source),
            ..Self::new(TarErrorKind::Content, offset)
        }
    }

    pub(super) fn named(mut self, entry: &[u8]) -> Self {
        if self.entry.is_empty() {
            self.entry = entry.to_vec();
        }
        self
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> TarErrorKind {
        self.kind
    }

    /// The entry's path as the archive has it; empty when none is known.
    #[must_use]
    pub fn entry(&self) -> &[u8] {
        &self.entry
    }

    /// Where in the archive, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entry.is_empty() {
            write!(f, "tar archive at byte {}: ", self.offset)?;
        } else {
            write!(
                f,
                "tar entry \"{}\" at byte {}: ",
                Text(&self.entry),
                self.offset
            )?;
        }
        match self.kind {
            TarErrorKind::Io => f.write_str("cannot be read or written"),
            TarErrorKind::Content => f.write_str("its content cannot be read"),
            TarErrorKind::Truncated => f.write_str("the archive is cut off here"),
            TarErrorKind::Checksum => f.write_str("the header's checksum is wrong (damaged, or not a tar archive)"),
            TarErrorKind::Number(field) => write!(f, "the {field} is not a number that fits"),
            TarErrorKind::Path(what) => what.fmt(f),
            TarErrorKind::Pax => f.write_str("the extended header is malformed"),
            TarErrorKind::PaxTooLarge => f.write_str("the extended header is larger than the limit"),
            TarErrorKind::TooManyEntries => f.write_str("the archive has more entries than the limit"),
            TarErrorKind::Type(byte) => write!(
                f,
                "entries of type \"{}\" are not supported; pack the archive again with --format=pax",
                Text(&[byte])
            ),
            TarErrorKind::Sparse => f.write_str("the map of the sparse file contradicts itself"),
            TarErrorKind::Link => f.write_str("the link's target is empty, too long or holds a NUL byte"),
            TarErrorKind::Xattr => {
                f.write_str("an extended attribute's name has more than 255 bytes or its value more than 65,536")
            }
            TarErrorKind::Acl => f.write_str(
                "an access control list is malformed or names a user without the number; \
                 pack the archive again with --xattrs --xattrs-include='*'",
            ),
            TarErrorKind::Whiteout => f.write_str("the whiteout names nothing that could be removed"),
            TarErrorKind::TooLarge => f.write_str("its path and attributes are too large for a tar archive"),
            TarErrorKind::Reserved => f.write_str(
                "names that begin with .wh. mean removals in an image layer, so the file cannot be kept; rename it",
            ),
        }
    }
}

impl std::error::Error for TarError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
