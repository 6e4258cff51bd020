//! A file system as a value.
//!
//! A [`Tree`] is what a guest or a build step sees as `/`: inodes in an arena, directories that map names to inodes.
//! It knows every property that an image keeps (mode, owner, times, extended attributes, hard links, device numbers)
//! and, for regular files, *where* the bytes are, never the bytes themselves. Nothing here does I/O.
//!
//! ```text
//!  Tree { inodes: [ 0: Dir { "bin" → 1, "etc" → 2 }, 1: Dir {…}, 2: Dir {…}, 3: File(Content), … ] }
//! ```
//!
//! Invariants:
//! - inode 0 is the root directory and is in no directory;
//! - a directory is in exactly one directory; any other inode may have several names (hard links);
//! - names are non-empty, hold neither `/` nor NUL, are not `.` or `..`, and have at most 255 bytes; they need not be UTF-8;
//! - iteration is by byte order of the names, so every walk, dump and encoder is deterministic.

mod arena;
mod content;
mod lookup;
mod walk;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use arena::{DEFAULT_MAX_INODES, TreeError, TreeErrorKind};
pub use content::Extent;
pub use lookup::{Follow, Place};
pub use walk::{Counts, Walk};

/// One name in a directory: any bytes but `/` and NUL, 1 to 255 of them.
pub type Name = Box<[u8]>;

/// The index of an inode in its [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub u32);

impl InodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);
}

/// A point in time: seconds since 1970-01-01 UTC (negative before) and nanoseconds (0 to 999,999,999) after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since the epoch.
    pub secs: i64,
    /// Nanoseconds after `secs`.
    pub nanos: u32,
}

/// A device number as `mknod(2)` takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Extended attributes by full name (`user.x`, `security.capability`, `system.posix_acl_access`, `trusted.x`), with the
/// values that `getxattr(2)` gives.
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What all inodes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, set-id and sticky included: `mode & 0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content. Access and change times are not part of an image.
    pub mtime: Time,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// Where the bytes of a regular file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A range of a stored blob (an uncompressed layer), which is named by its SHA-256.
    Blob {
        /// SHA-256 of the blob.
        id: [u8; 32],
        /// Where in the blob the file begins, in bytes.
        offset: u64,
    },
    /// Parts of a stored blob with holes between them (a sparse entry of a foreign archive).
    SparseBlob {
        /// SHA-256 of the blob.
        id: [u8; 32],
        /// The parts that are there, ascending and not overlapping; the rest of the file is zeros.
        segments: Arc<[Segment]>,
    },
    /// A file below a directory that was walked; the path is relative to that directory's root.
    Path(Arc<Path>),
    /// The bytes themselves, for small files that nobody stored (heredocs, generated files).
    Bytes(Arc<[u8]>),
}

/// One stored part of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Where in the file the part begins, in bytes.
    pub position: u64,
    /// Where in the blob it begins, in bytes.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u64,
}

/// The content of a regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Where the bytes are.
    pub source: Source,
    /// How many bytes there are.
    pub size: u64,
}

/// Opens what a [`Content`] points at. Implemented by the content store (blobs) and by a walked directory (paths).
pub trait Contents: Sync {
    /// The open content. The caller reads `content.size` bytes.
    ///
    /// # Errors
    /// When the blob or file is not there or is not what it was.
    fn open(&self, content: &Content) -> io::Result<Opened>;

    /// Asked between the pieces of a long file: an error ends the work at once, as when somebody pressed Ctrl+C.
    ///
    /// # Errors
    /// When the work shall end.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An opened [`Content`]. Read it with [`Opened::read_exact_at`]; [`Opened::extents`] tells where the holes are.
#[derive(Clone, Debug)]
pub enum Opened {
    /// Bytes of a file from an offset on; read with `pread`, the file may be shared.
    File {
        /// The file, open for reading.
        file: Arc<File>,
        /// Offset of the first byte.
        offset: u64,
    },
    /// Parts of a file, the rest is zeros.
    Segments {
        /// The file, open for reading.
        file: Arc<File>,
        /// The parts, as in [`Source::SparseBlob`].
        segments: Arc<[Segment]>,
    },
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
}

/// What kind of thing an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir(BTreeMap<Name, InodeId>),
    /// A regular file.
    File(Content),
    /// A symbolic link and its target (1 to 4,095 bytes, no NUL).
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
}

/// One inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Mode, owner, time, attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
    /// How many names it has. For a directory always 1 (the `.` and `..` links are the encoders' business).
    pub names: u32,
}

/// A complete file system. Two trees are equal when they hold the same names, properties, content references and hard
/// links, whatever the numbers of their inodes.
#[derive(Clone, Debug)]
pub struct Tree {
    inodes: Vec<Option<Inode>>,
    /// How deep each directory is: 0 for the root. Meaningless for other inodes.
    depths: Vec<u16>,
    live: u32,
    max_inodes: u32,
}

impl Inode {
    /// An inode as it is before it is inserted. For a directory `kind` holds no children.
    #[must_use]
    pub fn new(meta: Meta, kind: Kind) -> Self {
        Self {
            meta,
            kind,
            names: 1,
        }
    }

    /// An empty directory of root with this mode and the time 0.
    #[must_use]
    pub fn dir(mode: u16) -> Self {
        Self::new(
            Meta {
                mode,
                ..Meta::default()
            },
            Kind::Dir(BTreeMap::new()),
        )
    }

    /// The children, when it is a directory.
    #[must_use]
    pub fn children(&self) -> Option<&BTreeMap<Name, InodeId>> {
        match &self.kind {
            Kind::Dir(children) => Some(children),
            _ => None,
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir(_))
    }
}

impl Kind {
    /// The word for this kind in dumps and messages: `dir`, `file`, `symlink`, `fifo`, `socket`, `char` or `block`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Dir(_) => "dir",
            Self::File(_) => "file",
            Self::Symlink(_) => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharDevice(_) => "char",
            Self::BlockDevice(_) => "block",
        }
    }

    /// The kind without children: what a layer or a dump says about one entry.
    #[must_use]
    pub fn bare(&self) -> Self {
        match self {
            Self::Dir(_) => Self::Dir(BTreeMap::new()),
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
