//! Directories: one block of entries, or a hash tree ([`super::htree`]) when one block does not do.
//!
//! A block holds entries that fill it without a gap (the last one is stretched) up to a checksum that looks like an
//! entry without a name.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::checksum::Seed;
use super::error::Ext4Error;
use super::extent::{ExtentTree, Finished};
use super::format::{BLOCK, DirEntry, file_type};
use super::hash::NameHash;
use super::htree;
use super::stream::Stream;

/// Bytes of an entry before its name.
const HEAD: usize = 8;
/// Bytes of the entry that holds the checksum.
const TAIL: usize = 12;
/// Bytes of a block that entries may fill.
pub(super) const ROOM: usize = BLOCK - TAIL;
/// The file type that marks the checksum.
const TAIL_TYPE: u8 = 0xDE;
/// Bytes of `.` and `..` together.
pub(super) const DOTS: usize = 24;

/// One name in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) ino: u32,
    pub(super) file_type: u8,
}

impl Entry<'_> {
    /// Bytes that the entry takes.
    pub(super) fn len(&self) -> usize {
        entry_len(self.name.len())
    }
}

/// Bytes of an entry with a name of this length.
pub(super) fn entry_len(name: usize) -> usize {
    (HEAD + name).next_multiple_of(4)
}

/// What a directory became.
#[derive(Clone, Copy)]
pub(super) struct Written {
    /// `i_block`.
    pub(super) root: [u8; 60],
    /// Blocks of the directory itself: its size.
    pub(super) size_blocks: u64,
    /// Those and the blocks of its extent tree.
    pub(super) blocks: u64,
    /// Whether it has a hash tree.
    pub(super) indexed: bool,
    /// Whether the hash tree needs the feature `large_dir`.
    pub(super) large: bool,
}

/// A block of entries that is being filled.
pub(super) struct Block {
    bytes: [u8; BLOCK],
    used: usize,
    last: usize,
}

impl Block {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; BLOCK],
            used: 0,
            last: 0,
        }
    }

    pub(super) fn push(&mut self, entry: Entry<'_>) {
        self.push_sized(entry, entry.len());
    }

    fn push_sized(&mut self, entry: Entry<'_>, len: usize) {
        put_entry(&mut self.bytes[self.used..], entry, len);
        self.last = self.used;
        self.used += len;
    }

    /// `.` and `..`, which come first.
    pub(super) fn push_dots(&mut self, ino: u32, parent: u32) {
        for (name, ino) in [(&b"."[..], ino), (&b".."[..], parent)] {
            self.push(Entry {
                name,
                ino,
                file_type: file_type::DIR.1,
            });
        }
    }

    /// Stretches the last entry to the end and adds the checksum.
    pub(super) fn finish(mut self, seed: Seed) -> [u8; BLOCK] {
        let len = rec_len(ROOM - self.last);
        self.bytes[self.last + 4..self.last + 6].copy_from_slice(len.as_bytes());
        let tail = DirEntry {
            inode: U32::ZERO,
            rec_len: rec_len(TAIL),
            name_len: 0,
            file_type: TAIL_TYPE,
        };
        self.bytes[ROOM..ROOM + HEAD].copy_from_slice(tail.as_bytes());
        let sum = seed.sum(&self.bytes[..ROOM]);
        self.bytes[ROOM + HEAD..].copy_from_slice(&sum.to_le_bytes());
        self.bytes
    }
}

/// Writes an entry that takes `len` bytes.
pub(super) fn put_entry(out: &mut [u8], entry: Entry<'_>, len: usize) {
    let head = DirEntry {
        inode: U32::new(entry.ino),
        rec_len: rec_len(len),
        name_len: u8::try_from(entry.name.len())
            .expect("the names of a tree have at most 255 bytes"),
        file_type: entry.file_type,
    };
    out[..HEAD].copy_from_slice(head.as_bytes());
    out[HEAD..HEAD + entry.name.len()].copy_from_slice(entry.name);
}

pub(super) fn rec_len(len: usize) -> U16 {
    U16::new(u16::try_from(len).expect("an entry lies within a block"))
}

/// Writes the directory `ino`.
pub(super) fn write(
    stream: &mut Stream,
    seed: Seed,
    hash: NameHash,
    ino: u32,
    parent: u32,
    entries: &[Entry<'_>],
) -> Result<Written, Ext4Error> {
    let seed = seed.of_inode(ino, 0);
    let bytes: usize = entries.iter().map(Entry::len).sum();
    if DOTS + bytes > ROOM {
        return htree::write(stream, seed, hash, ino, parent, entries);
    }
    let mut block = Block::new();
    block.push_dots(ino, parent);
    for entry in entries {
        block.push(*entry);
    }
    let at = stream.push(&block.finish(seed))?;
    let mut extents = ExtentTree::new(seed);
    extents.add(stream, 0, at, 1)?;
    let Finished { root, blocks, .. } = extents.finish(stream)?;
    Ok(Written {
        root,
        size_blocks: 1,
        blocks,
        indexed: false,
        large: false,
    })
}
