//! The extent tree of an inode: which runs of blocks of the file lie where.
//!
//! Up to four extents are in the inode. With more, full leaves are written as the file is, between its blocks, and only
//! a pointer to each stays in memory; the upper levels follow when the file has ended. The tree is never changed, so
//! every block but the last of a level is full.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::checksum::Seed;
use super::error::Ext4Error;
use super::format::{
    BLOCK, EXTENT_MAGIC, ExtentHeader, ExtentIndex, ExtentLeaf, MAX_EXTENT, hi16, lo32,
};
use super::ledger::Placed;
use super::stream::Stream;

/// Bytes of a header, a leaf entry and an index entry.
const ENTRY: usize = 12;
/// Entries in the inode.
const IN_INODE: usize = 4;
/// Entries in a block; a checksum takes the last four bytes.
pub(super) const IN_BLOCK: usize = (BLOCK - ENTRY) / ENTRY;
/// Runs that are noted of one inode at most; of a file in more pieces nothing is.
const MOST_NOTED: usize = 1 << 18;
/// Where the checksum of a full-size block is.
const TAIL: usize = ENTRY + IN_BLOCK * ENTRY;

#[derive(Clone, Copy)]
struct Extent {
    logical: u32,
    start: u64,
    len: u32,
}

/// The tree of one inode while its blocks are being placed.
pub(super) struct ExtentTree {
    seed: Seed,
    /// The leaf that is being filled.
    leaf: Vec<Extent>,
    /// Full leaves: their first logical block and where they are.
    written: Vec<(u32, u64)>,
    /// Blocks that the inode holds: its data and the tree itself.
    blocks: u64,
    /// What came, where somebody wants to know.
    noted: Option<Placed>,
    /// The tree was written before, and these are its blocks.
    places: std::vec::IntoIter<u64>,
}

/// What a tree has become.
pub(super) struct Finished {
    /// The root, for `i_block`.
    pub(super) root: [u8; 60],
    /// How many blocks the inode holds.
    pub(super) blocks: u64,
    /// Where they are, for a tree that takes notes and is not in very many pieces.
    pub(super) noted: Option<Placed>,
}

impl ExtentTree {
    /// The empty tree of the inode with this seed.
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            seed,
            leaf: Vec::new(),
            written: Vec::new(),
            blocks: 0,
            noted: None,
            places: Vec::new().into_iter(),
        }
    }

    /// The same, and it remembers what comes.
    pub(super) fn noting(seed: Seed) -> Self {
        Self {
            noted: Some(Placed::default()),
            ..Self::new(seed)
        }
    }

    /// The tree of an inode whose data lies in the image already. Its own blocks go where they were; their checksums are of
    /// this image.
    pub(super) fn again(
        seed: Seed,
        stream: &mut Stream,
        placed: &Placed,
    ) -> Result<Finished, Ext4Error> {
        let mut tree = Self {
            places: placed.tree.clone().into_iter(),
            ..Self::new(seed)
        };
        for (logical, start, len) in &placed.runs {
            tree.add(stream, *logical, *start, *len)?;
        }
        tree.finish(stream)
    }

    /// Notes that `len` blocks of the file from `logical` on lie at `start`. Comes in ascending order.
    pub(super) fn add(
        &mut self,
        stream: &mut Stream,
        mut logical: u32,
        mut start: u64,
        mut len: u32,
    ) -> Result<(), Ext4Error> {
        self.blocks += u64::from(len);
        self.noted.take_if(|noted| noted.runs.len() > MOST_NOTED);
        if let Some(noted) = &mut self.noted {
            match noted.runs.last_mut() {
                Some((at, from, run))
                    if *at + *run == logical && *from + u64::from(*run) == start =>
                {
                    *run += len;
                }
                _ => noted.runs.push((logical, start, len)),
            }
        }
        if let Some(last) = self.leaf.last_mut()
            && last.logical + last.len == logical
            && last.start + u64::from(last.len) == start
        {
            let more = len.min(MAX_EXTENT - last.len);
            last.len += more;
            logical += more;
            start += u64::from(more);
            len -= more;
        }
        while len > 0 {
            if self.leaf.len() == IN_BLOCK {
                self.write_leaf(stream)?;
            }
            let part = len.min(MAX_EXTENT);
            self.leaf.push(Extent {
                logical,
                start,
                len: part,
            });
            logical += part;
            start += u64::from(part);
            len -= part;
        }
        Ok(())
    }

    fn write_leaf(&mut self, stream: &mut Stream) -> Result<(), Ext4Error> {
        let Some(first) = self.leaf.first() else {
            return Ok(());
        };
        let logical = first.logical;
        let mut block = [0; BLOCK];
        self.put_leaves(&mut block, IN_BLOCK);
        let at = self.write_block(stream, block)?;
        self.written.push((logical, at));
        self.leaf.clear();
        Ok(())
    }

    fn write_block(
        &mut self,
        stream: &mut Stream,
        mut block: [u8; BLOCK],
    ) -> Result<u64, Ext4Error> {
        let sum = self.seed.sum(&block[..TAIL]);
        block[TAIL..TAIL + 4].copy_from_slice(&sum.to_le_bytes());
        self.blocks += 1;
        if let Some(place) = self.places.next() {
            stream.put(place, &block)?;
            return Ok(place);
        }
        let place = stream.push(&block)?;
        if let Some(noted) = &mut self.noted {
            noted.tree.push(place);
        }
        Ok(place)
    }

    fn put_leaves(&self, out: &mut [u8], max: usize) {
        header(out, self.leaf.len(), max, 0);
        for (extent, out) in self.leaf.iter().zip(out[ENTRY..].chunks_exact_mut(ENTRY)) {
            let raw = ExtentLeaf {
                logical: U32::new(extent.logical),
                len: short(extent.len as usize),
                start_hi: hi16(extent.start),
                start_lo: lo32(extent.start),
            };
            out.copy_from_slice(raw.as_bytes());
        }
    }

    /// Writes what is left of the tree.
    pub(super) fn finish(mut self, stream: &mut Stream) -> Result<Finished, Ext4Error> {
        let mut root = [0; 60];
        if self.written.is_empty() && self.leaf.len() <= IN_INODE {
            self.put_leaves(&mut root, IN_INODE);
            return Ok(self.finished(root));
        }
        self.write_leaf(stream)?;
        let mut level = std::mem::take(&mut self.written);
        let mut depth = 1;
        while level.len() > IN_INODE {
            let mut upper = Vec::with_capacity(level.len().div_ceil(IN_BLOCK));
            for part in level.chunks(IN_BLOCK) {
                let mut block = [0; BLOCK];
                put_index(&mut block, part, IN_BLOCK, depth);
                upper.push((part[0].0, self.write_block(stream, block)?));
            }
            level = upper;
            depth += 1;
        }
        put_index(&mut root, &level, IN_INODE, depth);
        Ok(self.finished(root))
    }

    fn finished(self, root: [u8; 60]) -> Finished {
        Finished {
            root,
            blocks: self.blocks,
            noted: self.noted,
        }
    }
}

fn put_index(out: &mut [u8], entries: &[(u32, u64)], max: usize, depth: usize) {
    header(out, entries.len(), max, depth);
    for ((logical, at), out) in entries.iter().zip(out[ENTRY..].chunks_exact_mut(ENTRY)) {
        let raw = ExtentIndex {
            logical: U32::new(*logical),
            leaf_lo: lo32(*at),
            leaf_hi: hi16(*at),
            unused: U16::ZERO,
        };
        out.copy_from_slice(raw.as_bytes());
    }
}

fn header(out: &mut [u8], entries: usize, max: usize, depth: usize) {
    let raw = ExtentHeader {
        magic: U16::new(EXTENT_MAGIC),
        entries: short(entries),
        max: short(max),
        depth: short(depth),
        generation: U32::ZERO,
    };
    out[..ENTRY].copy_from_slice(raw.as_bytes());
}

fn short(n: usize) -> U16 {
    U16::new(u16::try_from(n).expect("counts of an extent block and lengths of extents are small"))
}
