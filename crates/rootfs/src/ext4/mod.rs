//! Writing a [`Tree`] as an ext4 image, without mount, loop device or root.
//!
//! ```text
//!  tree ──plan──▶ numbers, checks, digest of the metadata
//!                   │
//!  contents ──data──▶ file blocks ─▶ symlinks, attributes, directories ─▶ journal ─▶ tables ─▶ superblocks
//!             read, look for zeros                                        │
//!                                                      size of the image ─┘
//!  image: │ superblock, descriptors │ file data │ directories … │ journal │ bitmaps │ inode tables │ free │
//! ```
//!
//! The image is written from front to back, each block once, by a second thread; nothing is patched afterwards but the
//! descriptors and the superblock in front, which come last. Because the tables lie behind the content (`flex_bg` allows
//! it) the size is known when it is needed, and holes that nobody told about cost nothing.
//!
//! **The same tree gives the same bytes.** The checksum seed and the hash seed come from a SHA-256 of all names and
//! metadata, the UUID from that and the CRCs of all content (or what names it), the superblock's times from the newest
//! file. There is no clock and no random number. A block of zeros is never stored, so it does not matter whether a source had holes.
//!
//! **What stays the same need not be written again.** With the layers given in their order, a later image begins as the
//! earlier one does, and [`write_noted()`] turns the one into the other ([`Ledger`]).
//!
//! The features are those of a current `mke2fs -t ext4` (`extents`, `64bit`, `flex_bg`, `metadata_csum`, `dir_index`,
//! `sparse_super`, …) with `metadata_csum_seed`, without `resize_inode` (growing works without it) and without reserved
//! blocks; `large_dir` and `ea_inode` when the tree needs them. Blocks have 4,096 bytes, inodes 256. Linux 4.13 and
//! e2fsprogs 1.44 know all of it.
//!
//! Not kept, because a [`Tree`] does not have it: access, change and birth times (all are the time of modification),
//! inode numbers. Times beyond what ext4 has (1901 to 2446) become the nearest that it has.

#![deny(clippy::cast_possible_truncation)]

mod acl;
mod checksum;
mod data;
mod dir;
mod error;
mod extent;
mod format;
mod hash;
mod htree;
mod inode;
mod journal;
mod keep;
mod ledger;
mod plan;
mod reader;
mod seal;
mod size;
mod space;
mod stream;
mod writer;
mod xattr;

use std::fs::File;
use std::io;

pub use error::{Ext4Error, Ext4ErrorKind};
pub use ledger::Ledger;
pub use reader::{ReadError, read_tree};

use crate::tree::{Content, Contents, Opened, Time, Tree};

/// How an image shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The least size in bytes; rounded up to whole MiB. Without it the image is as large as the content and the free
    /// space below need.
    pub min_size: Option<u64>,
    /// Free space in percent of what is used.
    pub free_percent: u8,
    /// The least free space in bytes.
    pub free_bytes: u64,
    /// The volume label: at most 16 bytes without NUL.
    pub label: Vec<u8>,
    /// Whether there is a journal, and how large.
    pub journal: Journal,
    /// Whether a directory `lost+found` is added where the tree has none. Without it the image holds exactly the tree;
    /// `e2fsck` makes one when it repairs something.
    pub lost_found: bool,
    /// The time that the superblock and `lost+found` have, in seconds. Without it that of the newest file.
    pub epoch: Option<i64>,
    /// Files that are newer than this get this time (`SOURCE_DATE_EPOCH`).
    pub clamp_mtime: Option<i64>,
    /// Goes into the UUID beside the content, for images that must differ though they hold the same.
    pub identity: Vec<u8>,
    /// The layers of the content by the names of their blobs, lowest first. Files lie in this order, so that images whose
    /// lowest layers are the same begin with the same blocks; what is in none of these comes last.
    pub layers: Vec<[u8; 32]>,
    /// What names the content of all files, as a digest of the layers does. It goes into the UUID in place of a digest of
    /// what is written.
    pub content: Option<[u8; 32]>,
}

/// What to do about a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// None: for file systems that are thrown away or never written.
    None,
    /// As large as `mke2fs` makes it for an image of this size: 4 to 256 MiB.
    Auto,
    /// This many bytes, at least 4 MiB.
    Bytes(u64),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            min_size: None,
            free_percent: 5,
            free_bytes: 8 << 20,
            label: Vec::new(),
            journal: Journal::Auto,
            lost_found: false,
            epoch: None,
            clamp_mtime: None,
            identity: Vec::new(),
            layers: Vec::new(),
            content: None,
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), Ext4Error> {
        let refuse = |what: String| Err(Ext4Error::new(Ext4ErrorKind::Option, what));
        if self.label.len() > 16 || self.label.contains(&0) {
            return refuse(format!(
                "the label {} is not at most 16 bytes without NUL",
                error::shown(&self.label)
            ));
        }
        if let Journal::Bytes(bytes) = self.journal {
            let blocks = bytes / format::BLOCK_SIZE;
            if blocks < u64::from(journal::MIN_BLOCKS) || u32::try_from(blocks).is_err() {
                return refuse(format!(
                    "a journal of {bytes} bytes is not at least 4 MiB and less than 16 TiB"
                ));
            }
        }
        Ok(())
    }

    /// Blocks of the journal in an image of about this many blocks.
    fn journal_blocks(&self, image_blocks: u64) -> u32 {
        match self.journal {
            Journal::None => 0,
            Journal::Auto => journal::blocks_for(image_blocks),
            Journal::Bytes(bytes) => u32::try_from(bytes / format::BLOCK_SIZE).unwrap_or(u32::MAX),
        }
    }

    fn most_journal_blocks(&self) -> u64 {
        u64::from(self.journal_blocks(u64::MAX / format::BLOCK_SIZE))
    }

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
    /// Size of the image in bytes, holes included.
    pub size: u64,
    /// Bytes of it that were written; the rest are holes.
    pub written: u64,
    /// The UUID of the file system, which names its content.
    pub uuid: [u8; 16],
    /// Blocks of 4,096 bytes that are free.
    pub free_blocks: u64,
    /// Inodes in use, without the ten reserved ones.
    pub inodes: u32,
}

/// Writes a tree as an image into `out`, whose old content is dropped.
///
/// `out` is a regular file, open for writing. It becomes sparse: what is free is never written. When writing fails the
/// file holds something incomplete, which the caller removes; it is not synced.
///
/// # Errors
/// [`Ext4ErrorKind::Unrepresentable`] and [`Ext4ErrorKind::Option`] before anything is written;
/// [`Ext4ErrorKind::Content`] when a file cannot be read or is not as long as the tree says, with the path;
/// [`Ext4ErrorKind::TooLarge`]; [`Ext4ErrorKind::NoSpace`] and [`Ext4ErrorKind::Write`] for the output.
pub fn write(
    tree: &Tree,
    contents: &dyn Contents,
    out: &File,
    options: &Options,
) -> Result<Summary, Ext4Error> {
    writer::write(tree, contents, out, options, None, false).map(|(summary, _)| summary)
}

/// Writes as [`write()`] does, and tells what lies where. Where `out` holds an image that this function wrote, and `before`
/// is what it told then, that image's blocks stay as far as both begin alike: the bytes are the same as if `out` had been
/// empty. Nothing is noted without [`Options::layers`].
///
/// When writing fails, what `out` holds is no image, neither the old one nor the new one.
///
/// # Errors
/// As [`write()`].
pub fn write_noted(
    tree: &Tree,
    contents: &dyn Contents,
    out: &File,
    options: &Options,
    before: Option<&Ledger>,
) -> Result<(Summary, Ledger), Ext4Error> {
    writer::write(tree, contents, out, options, before, true)
}

/// Writes an empty file system of `size` bytes for scratch data: no journal, and only its first megabyte or so is not a
/// hole. `identity` makes its UUID.
///
/// # Errors
/// As [`write()`].
pub fn write_empty(
    out: &File,
    size: u64,
    label: &str,
    identity: &[u8],
) -> Result<Summary, Ext4Error> {
    let options = Options {
        min_size: Some(size),
        free_percent: 0,
        free_bytes: 0,
        label: label.as_bytes().to_vec(),
        journal: Journal::None,
        epoch: Some(0),
        identity: identity.to_vec(),
        ..Options::default()
    };
    write(&Tree::new(), &Nothing, out, &options)
}

/// An upper bound of the size in bytes that [`write()`] would give an image of this tree: it counts holes as data, as it
/// reads no content. The image itself is sparse and takes less.
///
/// # Errors
/// [`Ext4ErrorKind::Unrepresentable`], [`Ext4ErrorKind::Option`] and [`Ext4ErrorKind::TooLarge`], as [`write()`].
pub fn size_bound(tree: &Tree, options: &Options) -> Result<u64, Ext4Error> {
    writer::size_bound(tree, options)
}

/// The content of a tree that has none.
struct Nothing;

impl Contents for Nothing {
    fn open(&self, _: &Content) -> io::Result<Opened> {
        Err(io::ErrorKind::NotFound.into())
    }
}
