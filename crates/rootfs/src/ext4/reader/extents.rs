//! Reading extent trees.

use std::sync::Arc;

use zerocopy::FromBytes;

use super::{ReadError, Reader, damaged};
use crate::ext4::checksum::Seed;
use crate::ext4::extent::IN_BLOCK;
use crate::ext4::format::{
    BLOCK_SIZE, EXTENT_MAGIC, ExtentHeader, ExtentIndex, ExtentLeaf, MAX_EXTENT, RawInode,
    inode_flag,
};
use crate::tree::Segment;

/// Levels that a tree can have at most.
const MAX_DEPTH: u16 = 5;
const ENTRY: usize = 12;

/// The extents of an inode in ascending order: block in the file, block in the image, length.
pub(super) struct Extents(Vec<(u32, u64, u32)>);

impl Extents {
    pub(super) fn read(
        reader: &mut Reader<'_>,
        ino: u32,
        raw: &RawInode,
    ) -> Result<Self, ReadError> {
        let bad = || damaged(&format!("the extents of inode {ino}"));
        if raw.flags.get() & inode_flag::EXTENTS == 0 {
            return Err(bad());
        }
        let seed = reader.seed.of_inode(ino, raw.generation.get());
        let mut found: Vec<(u32, u64, u32)> = Vec::new();
        // Nodes still to be read, in reverse: block and the depth it must have.
        let mut todo: Vec<(u64, u16)> = Vec::new();
        let mut node: Vec<u8> = raw.block.to_vec();
        let mut depth = None;
        loop {
            let (header, entries) = ExtentHeader::read_from_prefix(&node).map_err(|_| bad())?;
            let here = header.depth.get();
            let count = usize::from(header.entries.get());
            if header.magic.get() != EXTENT_MAGIC
                || here > MAX_DEPTH
                || depth.is_some_and(|depth| depth != here)
                || count * ENTRY > entries.len()
            {
                return Err(bad());
            }
            let entries = entries.chunks_exact(ENTRY).take(count);
            if here == 0 {
                for raw in entries {
                    let leaf = ExtentLeaf::read_from_bytes(raw).map_err(|_| bad())?;
                    let (logical, len) = (leaf.logical.get(), u32::from(leaf.len.get()));
                    let start =
                        u64::from(leaf.start_hi.get()) << 32 | u64::from(leaf.start_lo.get());
                    let follows = found.last().is_none_or(|(at, _, len)| {
                        u64::from(*at) + u64::from(*len) <= u64::from(logical)
                    });
                    if len == 0
                        || len > MAX_EXTENT
                        || !follows
                        || start.saturating_add(u64::from(len)) > reader.blocks
                    {
                        return Err(bad());
                    }
                    found.push((logical, start, len));
                }
            } else {
                let first = todo.len();
                for raw in entries {
                    let index = ExtentIndex::read_from_bytes(raw).map_err(|_| bad())?;
                    let at = u64::from(index.leaf_hi.get()) << 32 | u64::from(index.leaf_lo.get());
                    todo.push((at, here - 1));
                }
                todo[first..].reverse();
            }
            let Some((at, below)) = todo.pop() else {
                return Ok(Self(found));
            };
            let block = reader.block(at)?;
            verify(seed, block.as_slice()).ok_or_else(bad)?;
            node = block[..ENTRY + IN_BLOCK * ENTRY].to_vec();
            depth = Some(below);
        }
    }

    /// Where a block of the file is.
    pub(super) fn block(&self, logical: u32) -> Option<u64> {
        let after = self.0.partition_point(|(at, _, _)| *at <= logical);
        let (at, start, len) = *self.0.get(after.checked_sub(1)?)?;
        (logical - at < len).then(|| start + u64::from(logical - at))
    }

    /// The content of a file of this size as segments of the image.
    pub(super) fn segments(&self, size: u64) -> Arc<[Segment]> {
        self.0
            .iter()
            .filter_map(|(logical, start, len)| {
                let position = u64::from(*logical) * BLOCK_SIZE;
                let len = (u64::from(*len) * BLOCK_SIZE).min(size.checked_sub(position)?);
                (len > 0).then_some(Segment {
                    position,
                    offset: start * BLOCK_SIZE,
                    len,
                })
            })
            .collect()
    }
}

fn verify(seed: Seed, block: &[u8]) -> Option<()> {
    let (data, tail) = block.split_at_checked(ENTRY + IN_BLOCK * ENTRY)?;
    (seed.sum(data).to_le_bytes() == *tail.first_chunk()?).then_some(())
}
