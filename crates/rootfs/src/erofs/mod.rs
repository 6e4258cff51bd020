//! Writing a [`Tree`] as an EROFS image, without mount, loop device or root.
//!
//! EROFS is the kernel's read-only file system: an image is no larger than its files, has no journal and no free space,
//! and whoever mounts it cannot change it.
//!
//! ```text
//!  tree ──plan──▶ order, attributes, what EROFS cannot hold, digest of the metadata
//!                  │
//!  contents ──data──▶ file blocks ─▶ (all sizes known) place inodes ─▶ directories, long links ─▶ inodes ─▶ superblock
//!
//!  image: │ superblock │ file data │ directories, links │ inodes, each with its attributes and the end of its file │
//! ```
//!
//! The image is written from front to back, each byte once, by a second thread; only block 0 comes last. An inode is
//! found by its place: its number (*nid*) counts slots of 32 bytes from the beginning of the inodes, so directories can
//! be written before them.
//!
//! - The end of a file that does not fill a block lies behind its inode where both fit into one block, as
//!   `mkfs.erofs` does it; a small file takes no block of its own.
//! - A file with blocks of zeros is stored in *chunks*, and chunks of nothing but zeros are not stored (Linux 5.15 and
//!   later; the image says so only if it has such a file). It does not matter whether a source had holes.
//! - Inodes are the extended ones of 64 bytes: nanoseconds, owners of 32 bits. Attributes lie behind their inode.
//! - Nothing is compressed.
//!
//! **The same tree gives the same bytes.** The UUID comes from all names, metadata and the CRCs of all content; the
//! superblock's time from the options or the newest file. There is no clock and no random number.
//!
//! Sources: the kernel's `Documentation/filesystems/erofs.rst` and `fs/erofs/erofs_fs.h`. Linux 5.4 and erofs-utils 1.5
//! know all of it but the chunks.

#![deny(clippy::cast_possible_truncation)]

mod bins;
mod data;
mod dir;
mod error;
mod format;
mod plan;
mod stream;
mod writer;
mod xattr;

use std::fs::File;

pub use error::{ErofsError, ErofsErrorKind};

use crate::tree::{Contents, Time, Tree};

/// How an image shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The volume label: at most 15 bytes without NUL.
    pub label: Vec<u8>,
    /// The time of the superblock in seconds. Without it that of the newest file.
    pub epoch: Option<i64>,
    /// Files that are newer than this get this time (`SOURCE_DATE_EPOCH`).
    pub clamp_mtime: Option<i64>,
}

impl Options {
    fn clamped(&self, time: Time) -> Time {
        match self.clamp_mtime {
            Some(secs) if time.secs >= secs => Time { secs, nanos: 0 },
            _ => time,
        }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Size of the image in bytes.
    pub size: u64,
    /// The UUID of the file system, which names its content.
    pub uuid: [u8; 16],
    /// How many inodes there are.
    pub inodes: u64,
}

/// Writes a tree as an image into `out`, whose old content is dropped.
///
/// `out` is a regular file, open for writing. When writing fails the file holds something incomplete, which the caller
/// removes; it is not synced.
///
/// # Errors
/// [`ErofsErrorKind::Unrepresentable`] and [`ErofsErrorKind::Option`] before anything is written;
/// [`ErofsErrorKind::Content`] when a file cannot be read or is not as long as the tree says, with the path;
/// [`ErofsErrorKind::TooLarge`]; [`ErofsErrorKind::NoSpace`] and [`ErofsErrorKind::Write`] for the output.
pub fn write(
    tree: &Tree,
    contents: &dyn Contents,
    out: &File,
    options: &Options,
) -> Result<Summary, ErofsError> {
    writer::write(tree, contents, out, options)
}
