//! How large the image becomes: found when everything but the tables has its place.
//!
//! Inode tables and bitmaps lie behind the content (feature `flex_bg` lets them lie anywhere), so the size depends on
//! nothing that was guessed. More blocks need more groups, groups need tables, tables need blocks: the loop below grows
//! the size until all fits.

use super::Options;
use super::error::{Ext4Error, Ext4ErrorKind};
use super::format::{
    BLOCK_SIZE, BLOCKS_PER_GROUP, DESCS_PER_BLOCK, INODES_PER_BLOCK, MAX_INODES_PER_GROUP,
};
use super::space::{Space, has_super};

/// Sizes are multiples of this many blocks: 1 MiB.
const ALIGN: u64 = 256;

/// The shape of the finished image.
#[derive(Debug)]
pub(super) struct Geometry {
    pub(super) blocks: u64,
    pub(super) groups: u64,
    pub(super) inodes_per_group: u64,
    pub(super) descriptor_blocks: u64,
    /// Where each group's bitmaps and table are.
    pub(super) block_bitmaps: Vec<u64>,
    pub(super) inode_bitmaps: Vec<u64>,
    pub(super) inode_tables: Vec<u64>,
    /// The cursor behind all of that.
    pub(super) space: Space,
}

impl Geometry {
    /// The smallest image that holds what `space` has given out, `inodes` inodes and the free space that is asked for.
    pub(super) fn find(
        space: &Space,
        descriptor_bound: u64,
        inodes: u64,
        options: &Options,
    ) -> Result<Self, Ext4Error> {
        let free = free_blocks(space, options);
        let mut blocks = estimate(space, inodes, options).max(ALIGN);
        // Each round grows; the growth shrinks by the ratio of tables to blocks, so few rounds are needed.
        for _ in 0..64 {
            blocks = align(blocks);
            let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
            let descriptor_blocks = groups.div_ceil(DESCS_PER_BLOCK);
            let wanted =
                inodes + inodes / 16 + 16 + spare_inodes(blocks.saturating_sub(space.end()));
            let least_groups = (inodes + 16).div_ceil(MAX_INODES_PER_GROUP);
            if groups < least_groups {
                blocks = (least_groups - 1) * BLOCKS_PER_GROUP + ALIGN;
                continue;
            }
            let inodes_per_group = wanted
                .div_ceil(groups)
                .next_multiple_of(INODES_PER_BLOCK)
                .min(MAX_INODES_PER_GROUP);
            if descriptor_blocks > descriptor_bound
                || groups * inodes_per_group > u64::from(u32::MAX)
            {
                break;
            }
            let found = Self::lay_out(space.clone(), blocks, groups, inodes_per_group);
            let needed = found.space.end() + free;
            if needed <= blocks {
                return Ok(Self {
                    descriptor_blocks,
                    ..found
                });
            }
            blocks = needed;
        }
        Err(Ext4Error::new(
            Ext4ErrorKind::TooLarge,
            format!(
                "an image of {} MiB is larger than this writer makes",
                blocks / 256
            ),
        ))
    }

    fn lay_out(mut space: Space, blocks: u64, groups: u64, inodes_per_group: u64) -> Self {
        let mut one_each = || (0..groups).map(|_| space.take_run(1).start).collect();
        let block_bitmaps: Vec<u64> = one_each();
        let inode_bitmaps: Vec<u64> = one_each();
        let table = inodes_per_group / INODES_PER_BLOCK;
        let inode_tables = (0..groups).map(|_| space.take_run(table).start).collect();
        Self {
            blocks,
            groups,
            inodes_per_group,
            descriptor_blocks: 0,
            block_bitmaps,
            inode_bitmaps,
            inode_tables,
            space,
        }
    }

    /// How many blocks a group has: all the same but the last.
    pub(super) fn group_blocks(&self, group: u64) -> u64 {
        BLOCKS_PER_GROUP.min(self.blocks - group * BLOCKS_PER_GROUP)
    }

    /// How many blocks at the beginning of a group are superblock and descriptors.
    pub(super) fn base_blocks(&self, group: u64) -> u64 {
        if has_super(group) {
            1 + self.descriptor_blocks
        } else {
            0
        }
    }
}

/// Blocks that shall stay free.
fn free_blocks(space: &Space, options: &Options) -> u64 {
    (space.end() / 100)
        .saturating_mul(u64::from(options.free_percent))
        .max(options.free_bytes.div_ceil(BLOCK_SIZE))
}

/// About how many blocks the image will have: enough to choose the journal's size.
pub(super) fn estimate(space: &Space, inodes: u64, options: &Options) -> u64 {
    let asked = options.min_size.unwrap_or(0).div_ceil(BLOCK_SIZE);
    asked.max(space.end() + free_blocks(space, options) + inodes / INODES_PER_BLOCK)
}

/// Inodes for what will be made later: one per 16 KiB of free space, fewer in very large images, as `mke2fs` does.
fn spare_inodes(free_blocks: u64) -> u64 {
    let tib = (1 << 40) / BLOCK_SIZE;
    if free_blocks < tib {
        free_blocks / 4
    } else {
        (tib / 4).max(free_blocks / 16)
    }
}

/// Rounds up to whole MiB, and so that the last group has room beside its copy of the descriptors.
fn align(blocks: u64) -> u64 {
    let blocks = blocks.next_multiple_of(ALIGN);
    let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
    let last = blocks - (groups - 1) * BLOCKS_PER_GROUP;
    let base = 1 + groups.div_ceil(DESCS_PER_BLOCK);
    if has_super(groups - 1) && last < base + ALIGN {
        (blocks - last) + (base + ALIGN).next_multiple_of(ALIGN)
    } else {
        blocks
    }
}
