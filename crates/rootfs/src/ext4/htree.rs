//! Directories with a hash tree (feature `dir_index`): a name is found by reading one block per level.
//!
//! ```text
//!  block 0   root: `.`, `..`, then (hash, block) …
//!  block 1…  with many leaves one or two levels of nodes: an empty entry, then (hash, block) …
//!  then      leaves: ordinary blocks of entries, each with the names of one range of hashes
//! ```
//!
//! To a kernel without the feature all of it is a plain directory: root and nodes look like entries that fill their
//! block. Leaves are packed full in the order of the hashes. Where names with the same hash are spread over two leaves,
//! the hash of the second has its lowest bit set, which tells a search to look there too.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::checksum::{Seed, update};
use super::dir::{Block, Entry, ROOM, Written, put_entry, rec_len};
use super::error::{Ext4Error, Ext4ErrorKind};
use super::extent::{ExtentTree, Finished};
use super::format::{BLOCK, DirEntry, file_type};
use super::hash::NameHash;
use super::stream::Stream;

/// Half MD4; whether bytes are signed stands in the superblock.
const HASH_VERSION: u8 = 1;
/// Bytes of a (hash, block) pair.
const PAIR: usize = 8;
/// Bytes of the checksum at the end of root and nodes, with a reserved word before it.
const TAIL: usize = 8;
/// Where the pairs of the root begin: after `.`, `..` and eight bytes about the tree.
const ROOT_PAIRS: usize = 32;
/// Where the pairs of a node begin: after an empty entry.
const NODE_PAIRS: usize = 8;
/// Pairs in the root and in a node. The hash of the first pair is not stored: the counts stand in its place.
const ROOT_LIMIT: usize = (BLOCK - TAIL - ROOT_PAIRS) / PAIR;
const NODE_LIMIT: usize = (BLOCK - TAIL - NODE_PAIRS) / PAIR;

/// A pair: the lowest hash that is behind it, and a block of the directory.
type Pair = (u32, u32);

/// Writes the directory `ino` with a hash tree. `seed` is that of the inode.
pub(super) fn write(
    stream: &mut Stream,
    seed: Seed,
    hash: NameHash,
    ino: u32,
    parent: u32,
    entries: &[Entry<'_>],
) -> Result<Written, Ext4Error> {
    let mut sorted: Vec<(u32, u32, &Entry<'_>)> = entries
        .iter()
        .map(|entry| {
            let (major, minor) = hash.of(entry.name);
            (major, minor, entry)
        })
        .collect();
    sorted.sort_unstable_by_key(|(major, minor, entry)| (*major, *minor, entry.name));

    let leaves = cut(&sorted);
    let shape = Shape::of(leaves.len()).ok_or_else(|| {
        Ext4Error::new(
            Ext4ErrorKind::TooLarge,
            format!("a directory of {} entries is too large", entries.len()),
        )
    })?;
    let mut extents = ExtentTree::new(seed);
    let mut out = Out {
        stream,
        extents: &mut extents,
        next: 0,
    };

    // Which block each leaf and node will be is arithmetic: root, upper nodes, lower nodes, leaves.
    let first_leaf = 1 + shape.upper + shape.lower;
    let mut level: Vec<Pair> = Vec::with_capacity(leaves.len());
    for (index, start) in leaves.iter().enumerate() {
        let major = sorted[*start].0;
        let goes_on = *start > 0 && sorted[*start - 1].0 == major;
        level.push((major | u32::from(goes_on), number(first_leaf + index)?));
    }
    let lower_nodes = nodes(&mut level, shape.lower, 1 + shape.upper)?;
    let upper_nodes = nodes(&mut level, shape.upper, 1)?;
    out.push(&root(seed, ino, parent, &level, shape.levels))?;
    for pairs in upper_nodes.iter().chain(&lower_nodes) {
        out.push(&node(seed, pairs))?;
    }
    for (index, start) in leaves.iter().enumerate() {
        let end = leaves.get(index + 1).copied().unwrap_or(sorted.len());
        let mut block = Block::new();
        for (_, _, entry) in &sorted[*start..end] {
            block.push(**entry);
        }
        out.push(&block.finish(seed))?;
    }
    let size_blocks = u64::from(out.next);
    let Finished { root, blocks, .. } = extents.finish(stream)?;
    Ok(Written {
        root,
        size_blocks,
        blocks,
        indexed: true,
        large: shape.levels > 1 || size_blocks * BLOCK as u64 > i32::MAX as u64,
    })
}

/// Where each leaf begins in the sorted entries.
fn cut(sorted: &[(u32, u32, &Entry<'_>)]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut used = ROOM;
    for (index, (_, _, entry)) in sorted.iter().enumerate() {
        if used + entry.len() > ROOM {
            starts.push(index);
            used = 0;
        }
        used += entry.len();
    }
    starts
}

/// How many nodes each level below the root has, and how many levels that is.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    upper: usize,
    lower: usize,
    levels: u8,
}

impl Shape {
    fn of(leaves: usize) -> Option<Self> {
        if leaves <= ROOT_LIMIT {
            return Some(Self {
                upper: 0,
                lower: 0,
                levels: 0,
            });
        }
        let lower = leaves.div_ceil(NODE_LIMIT);
        if lower <= ROOT_LIMIT {
            return Some(Self {
                upper: 0,
                lower,
                levels: 1,
            });
        }
        let upper = lower.div_ceil(NODE_LIMIT);
        (upper <= ROOT_LIMIT).then_some(Self {
            upper,
            lower,
            levels: 2,
        })
    }
}

/// Puts `count` nodes, the first of them block `first`, over a level, which then consists of them. Gives their pairs.
fn nodes(level: &mut Vec<Pair>, count: usize, first: usize) -> Result<Vec<Vec<Pair>>, Ext4Error> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let nodes: Vec<Vec<Pair>> = level.chunks(NODE_LIMIT).map(<[Pair]>::to_vec).collect();
    level.clear();
    for (index, pairs) in nodes.iter().enumerate() {
        level.push((pairs[0].0, number(first + index)?));
    }
    Ok(nodes)
}

/// Blocks of a directory have 32-bit numbers.
fn number(block: usize) -> Result<u32, Ext4Error> {
    u32::try_from(block)
        .map_err(|_| Ext4Error::new(Ext4ErrorKind::TooLarge, "a directory is too large"))
}

struct Out<'a> {
    stream: &'a mut Stream,
    extents: &'a mut ExtentTree,
    next: u32,
}

impl Out<'_> {
    fn push(&mut self, block: &[u8; BLOCK]) -> Result<(), Ext4Error> {
        let at = self.stream.push(block)?;
        self.extents.add(self.stream, self.next, at, 1)?;
        self.next += 1;
        Ok(())
    }
}

fn root(seed: Seed, ino: u32, parent: u32, pairs: &[Pair], levels: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let dot = |name, ino| Entry {
        name,
        ino,
        file_type: file_type::DIR.1,
    };
    put_entry(&mut block, dot(b".", ino), 12);
    put_entry(&mut block[12..], dot(b"..", parent), BLOCK - 12);
    // Reserved (four bytes), hash version, length of this, levels, flags.
    block[24..32].copy_from_slice(&[0, 0, 0, 0, HASH_VERSION, 8, levels, 0]);
    put_pairs(&mut block, seed, ROOT_PAIRS, ROOT_LIMIT, pairs);
    block
}

fn node(seed: Seed, pairs: &[Pair]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let empty = DirEntry {
        inode: U32::ZERO,
        rec_len: rec_len(BLOCK),
        name_len: 0,
        file_type: 0,
    };
    block[..NODE_PAIRS].copy_from_slice(empty.as_bytes());
    put_pairs(&mut block, seed, NODE_PAIRS, NODE_LIMIT, pairs);
    block
}

fn put_pairs(block: &mut [u8; BLOCK], seed: Seed, at: usize, limit: usize, pairs: &[Pair]) {
    for ((hash, number), out) in pairs.iter().zip(block[at..].chunks_exact_mut(PAIR)) {
        out[..4].copy_from_slice(&hash.to_le_bytes());
        out[4..].copy_from_slice(&number.to_le_bytes());
    }
    let short = |n: usize| U16::new(u16::try_from(n).expect("a block has at most 510 pairs"));
    block[at..at + 2].copy_from_slice(short(limit).as_bytes());
    block[at + 2..at + 4].copy_from_slice(short(pairs.len()).as_bytes());
    // Over what is used, then the reserved word and the checksum's own place as zeros.
    let sum = update(seed.sum(&block[..at + pairs.len() * PAIR]), &[0; TAIL]);
    block[BLOCK - 4..].copy_from_slice(&sum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_grow_a_level_at_a_time() {
        let shape = |upper, lower, levels| {
            Some(Shape {
                upper,
                lower,
                levels,
            })
        };
        assert_eq!((ROOT_LIMIT, NODE_LIMIT), (507, 510));
        assert_eq!(Shape::of(2), shape(0, 0, 0));
        assert_eq!(Shape::of(507), shape(0, 0, 0));
        assert_eq!(Shape::of(508), shape(0, 1, 1));
        assert_eq!(Shape::of(507 * 510), shape(0, 507, 1));
        assert_eq!(Shape::of(507 * 510 + 1), shape(1, 508, 2));
    }

    #[test]
    fn leaves_are_cut_where_the_next_entry_does_not_fit() {
        let name = [b'x'; 255];
        let entry = Entry {
            name: &name,
            ino: 12,
            file_type: 1,
        };
        let sorted: Vec<(u32, u32, &Entry<'_>)> = (0..31).map(|i| (i, 0, &entry)).collect();
        // 264 bytes each, 15 in 4,084 bytes.
        assert_eq!(cut(&sorted), [0, 15, 30]);
    }
}
