//! The last pass: tables, bitmaps, descriptors and superblocks, when all else has its place.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::checksum::{Seed, update};
use super::error::Ext4Error;
use super::format::{
    BLOCK, BLOCKS_PER_GROUP, DESC_SIZE, DESC_SIZE_16, DESCS_PER_BLOCK, FIRST_INO, GroupDesc,
    INODE_SIZE, INODE_SIZE_16, INODES_PER_BLOCK, JOURNAL_INO, SUPER_MAGIC, SUPER_OFFSET,
    SuperBlock, compat, group_flag, halves, hi16, hi32, incompat, lo32, ro_compat,
};
use super::size::Geometry;
use super::space::has_super;
use super::stream::Stream;

/// What only the caller knows about the image.
pub(super) struct Identity {
    pub(super) uuid: [u8; 16],
    pub(super) hash_seed: [u8; 16],
    pub(super) label: [u8; 16],
    pub(super) epoch: i64,
    pub(super) seed: Seed,
}

/// What the image has in it.
pub(super) struct Census<'a> {
    pub(super) last_ino: u32,
    /// The numbers of all directories, ascending.
    pub(super) dirs: &'a [u32],
    pub(super) journal: Option<JournalInode>,
    pub(super) large_dir: bool,
    pub(super) value_inodes: bool,
}

/// What the superblock repeats about the journal.
#[derive(Clone, Copy)]
pub(super) struct JournalInode {
    pub(super) block: [u8; 60],
    pub(super) size: u64,
}

/// How much is free.
pub(super) struct Free {
    pub(super) blocks: u64,
    pub(super) inodes: u64,
}

/// Writes the bitmaps of the groups that need them. Gives all descriptors.
pub(super) fn bitmaps(
    stream: &mut Stream,
    geometry: &Geometry,
    identity: &Identity,
    census: &Census<'_>,
) -> Result<(Vec<GroupDesc>, Free), Ext4Error> {
    let mut descs = Vec::with_capacity(usize::try_from(geometry.groups).unwrap_or(0));
    let mut free = Free {
        blocks: 0,
        inodes: 0,
    };
    let gaps = geometry.space.free_below_end(geometry.descriptor_blocks);
    let mut first_gap = 0;
    let mut dirs = census.dirs.iter().copied().peekable();
    let end = geometry.space.end();
    for group in 0..geometry.groups {
        let at = usize::try_from(group).expect("groups are counted in memory");
        let mut desc = GroupDesc::new_zeroed();
        let mut flags = group_flag::INODE_ZEROED;

        let start = group * BLOCKS_PER_GROUP;
        let len = geometry.group_blocks(group);
        let mut bits = [0; BLOCK];
        let mut used = set(&mut bits, 0, end.saturating_sub(start).min(len));
        used += set(&mut bits, used, geometry.base_blocks(group).max(used));
        while gaps.get(first_gap).is_some_and(|gap| gap.end <= start) {
            first_gap += 1;
        }
        for gap in &gaps[first_gap..] {
            if gap.start >= start + len {
                break;
            }
            let from = gap.start.max(start) - start;
            let to = gap.end.min(start + len) - start;
            clear(&mut bits, from, to);
            used -= to - from;
        }
        let free_blocks = len - used;
        free.blocks += free_blocks;
        // The last group keeps its bitmap, because what lies behind the end has to be marked.
        if start >= end && group + 1 < geometry.groups {
            flags |= group_flag::BLOCK_UNINIT;
        } else {
            set(&mut bits, len, BLOCKS_PER_GROUP);
            stream.put(geometry.block_bitmaps[at], &bits)?;
            let sum = identity.seed.sum(&bits);
            (desc.block_bitmap_csum_lo, desc.block_bitmap_csum_hi) = halves(sum);
        }

        let first_ino = group * geometry.inodes_per_group + 1;
        let used_inodes = (u64::from(census.last_ino) + 1)
            .saturating_sub(first_ino)
            .min(geometry.inodes_per_group);
        let unused = geometry.inodes_per_group - used_inodes;
        free.inodes += unused;
        if used_inodes == 0 {
            flags |= group_flag::INODE_UNINIT;
        }
        let mut used_dirs = 0u64;
        while dirs
            .next_if(|ino| u64::from(*ino) < first_ino + geometry.inodes_per_group)
            .is_some()
        {
            used_dirs += 1;
        }

        desc.block_bitmap_lo = lo32(geometry.block_bitmaps[at]);
        desc.block_bitmap_hi = hi32(geometry.block_bitmaps[at]);
        desc.inode_bitmap_lo = lo32(geometry.inode_bitmaps[at]);
        desc.inode_bitmap_hi = hi32(geometry.inode_bitmaps[at]);
        desc.inode_table_lo = lo32(geometry.inode_tables[at]);
        desc.inode_table_hi = hi32(geometry.inode_tables[at]);
        (desc.free_blocks_lo, desc.free_blocks_hi) = split(free_blocks);
        (desc.free_inodes_lo, desc.free_inodes_hi) = split(unused);
        (desc.unused_inodes_lo, desc.unused_inodes_hi) = split(unused);
        (desc.used_dirs_lo, desc.used_dirs_hi) = split(used_dirs);
        desc.flags = U16::new(flags);
        descs.push(desc);
    }
    inode_bitmaps(stream, geometry, identity.seed, census, &mut descs)?;
    Ok((descs, free))
}

/// A second loop, so that the block bitmaps are written in one go and the inode bitmaps in another.
fn inode_bitmaps(
    stream: &mut Stream,
    geometry: &Geometry,
    seed: Seed,
    census: &Census<'_>,
    descs: &mut [GroupDesc],
) -> Result<(), Ext4Error> {
    let per_group = geometry.inodes_per_group;
    let mut left = u64::from(census.last_ino);
    for (desc, at) in descs.iter_mut().zip(&geometry.inode_bitmaps) {
        if left == 0 {
            break;
        }
        let mut bits = [0; BLOCK];
        set(&mut bits, 0, left.min(per_group));
        // What no inode stands for is marked, but the checksum ends before it.
        set(&mut bits, per_group, BLOCKS_PER_GROUP);
        stream.put(*at, &bits)?;
        let bytes = usize::try_from(per_group / 8).unwrap_or(BLOCK);
        (desc.inode_bitmap_csum_lo, desc.inode_bitmap_csum_hi) = halves(seed.sum(&bits[..bytes]));
        left -= left.min(per_group);
    }
    Ok(())
}

/// Writes the inode tables as far as they are used. `encode` gives the bytes of an inode, `None` for zeros.
pub(super) fn inode_tables(
    stream: &mut Stream,
    geometry: &Geometry,
    last_ino: u32,
    mut encode: impl FnMut(u32) -> Result<Option<[u8; INODE_SIZE]>, Ext4Error>,
) -> Result<(), Ext4Error> {
    let mut ino = 1;
    for table in &geometry.inode_tables {
        for index in 0..geometry.inodes_per_group / INODES_PER_BLOCK {
            if ino > last_ino {
                return Ok(());
            }
            let mut block = [0; BLOCK];
            for slot in block.chunks_exact_mut(INODE_SIZE) {
                if ino <= last_ino
                    && let Some(raw) = encode(ino)?
                {
                    slot.copy_from_slice(&raw);
                }
                ino += 1;
            }
            stream.put(table + index, &block)?;
        }
    }
    Ok(())
}

/// Writes the group descriptors and superblocks: the copies first, the one that counts last.
pub(super) fn superblocks(
    stream: &mut Stream,
    geometry: &Geometry,
    identity: &Identity,
    census: &Census<'_>,
    mut descs: Vec<GroupDesc>,
    free: &Free,
) -> Result<(), Ext4Error> {
    for (group, desc) in (0u32..).zip(&mut descs) {
        let sum = identity.seed.of_descriptor(
            group,
            desc.as_bytes(),
            std::mem::offset_of!(GroupDesc, checksum),
        );
        desc.checksum = U16::new(sum);
    }
    let super_block = superblock(geometry, identity, census, free);
    for group in (0..geometry.groups).rev().filter(|g| has_super(*g)) {
        let start = group * BLOCKS_PER_GROUP;
        let mut copy = super_block.clone();
        // Only 16 bits are kept; nothing reads them but a person.
        copy.group_number = U16::new((group & 0xFFFF) as u16);
        let sum = update(
            !0,
            &copy.as_bytes()[..std::mem::offset_of!(SuperBlock, checksum)],
        );
        copy.checksum = U32::new(sum);
        let at = if group == 0 { SUPER_OFFSET } else { 0 };
        let mut block = [0; BLOCK];
        block[at..at + size_of::<SuperBlock>()].copy_from_slice(copy.as_bytes());
        if group > 0 {
            stream.put(start, &block)?;
        }
        let per_block = usize::try_from(DESCS_PER_BLOCK).unwrap_or(DESC_SIZE);
        for (at, part) in (start + 1..).zip(descs.chunks(per_block)) {
            stream.put(at, part.as_bytes())?;
        }
        if group == 0 {
            stream.put(start, &block)?;
        }
    }
    stream.flush()
}

fn superblock(
    geometry: &Geometry,
    identity: &Identity,
    census: &Census<'_>,
    free: &Free,
) -> SuperBlock {
    let mut sb = SuperBlock::new_zeroed();
    sb.inodes_count = lo32(geometry.groups * geometry.inodes_per_group);
    sb.blocks_count_lo = lo32(geometry.blocks);
    sb.blocks_count_hi = hi32(geometry.blocks);
    sb.free_blocks_lo = lo32(free.blocks);
    sb.free_blocks_hi = hi32(free.blocks);
    sb.free_inodes = lo32(free.inodes);
    // 1,024 bytes, shifted.
    sb.log_block_size = U32::new(2);
    sb.log_cluster_size = U32::new(2);
    sb.blocks_per_group = lo32(BLOCKS_PER_GROUP);
    sb.clusters_per_group = lo32(BLOCKS_PER_GROUP);
    sb.inodes_per_group = lo32(geometry.inodes_per_group);
    sb.max_mount_count = U16::new(u16::MAX);
    sb.magic = U16::new(SUPER_MAGIC);
    // Cleanly unmounted; continue after errors; dynamic revision.
    sb.state = U16::new(1);
    sb.errors = U16::new(1);
    sb.revision = U32::new(1);
    // The time of the last write stays 0: fsck compares it with the clock, and the newest file may be from the future.
    let epoch = u64::try_from(identity.epoch)
        .unwrap_or(0)
        .min((1 << 40) - 1);
    let epoch_hi = ((epoch >> 32) & 0xFF) as u8;
    (sb.last_check, sb.last_check_hi) = (lo32(epoch), epoch_hi);
    (sb.mkfs_time, sb.mkfs_time_hi) = (lo32(epoch), epoch_hi);
    sb.first_inode = U32::new(FIRST_INO);
    sb.inode_size = U16::new(INODE_SIZE_16);
    sb.desc_size = U16::new(DESC_SIZE_16);
    sb.compat = U32::new(compat::EXT_ATTR | compat::DIR_INDEX);
    sb.incompat = U32::new(
        incompat::FILETYPE
            | incompat::EXTENTS
            | incompat::BIT64
            | incompat::FLEX_BG
            | incompat::CSUM_SEED,
    );
    sb.ro_compat = U32::new(
        ro_compat::SPARSE_SUPER
            | ro_compat::LARGE_FILE
            | ro_compat::HUGE_FILE
            | ro_compat::DIR_NLINK
            | ro_compat::EXTRA_ISIZE
            | ro_compat::METADATA_CSUM,
    );
    if census.large_dir {
        sb.incompat |= incompat::LARGE_DIR;
    }
    if census.value_inodes {
        sb.incompat |= incompat::EA_INODE;
    }
    sb.uuid = identity.uuid;
    sb.label = identity.label;
    sb.hash_seed = identity.hash_seed;
    // Half MD4, over unsigned bytes (flag 2).
    sb.hash_version = 1;
    sb.flags = U32::new(2);
    // user_xattr and acl are on without being asked for.
    sb.mount_options = U32::new(0x4 | 0x8);
    sb.min_extra_size = U16::new(super::format::EXTRA_SIZE);
    sb.want_extra_size = U16::new(super::format::EXTRA_SIZE);
    sb.log_groups_per_flex = 4;
    // CRC32C.
    sb.checksum_type = 1;
    sb.checksum_seed = U32::new(identity.seed.0);
    if let Some(journal) = census.journal {
        sb.compat |= compat::HAS_JOURNAL;
        sb.journal_inode = U32::new(JOURNAL_INO);
        // A copy of the journal's i_block and size, should its inode be lost.
        sb.journal_backup_type = 1;
        sb.journal_blocks[..60].copy_from_slice(&journal.block);
        sb.journal_blocks[60..64].copy_from_slice(hi32(journal.size).as_bytes());
        sb.journal_blocks[64..].copy_from_slice(lo32(journal.size).as_bytes());
    }
    sb
}

/// A count of at most 32,768 in the two halves of a descriptor.
fn split(n: u64) -> (U16, U16) {
    (U16::new((n & 0xFFFF) as u16), hi16(n << 16))
}

/// Sets the bits `from..to`. Gives how many those are.
fn set(bits: &mut [u8; BLOCK], from: u64, to: u64) -> u64 {
    each_byte(from, to, |at, mask| bits[at] |= mask)
}

/// Clears the bits `from..to`.
fn clear(bits: &mut [u8; BLOCK], from: u64, to: u64) -> u64 {
    each_byte(from, to, |at, mask| bits[at] &= !mask)
}

fn each_byte(from: u64, to: u64, mut act: impl FnMut(usize, u8)) -> u64 {
    let mut at = from;
    while at < to {
        let byte = usize::try_from(at / 8).expect("a bitmap has 4,096 bytes");
        let first = at % 8;
        let count = (8 - first).min(to - at);
        // `count` ones, `first` bits up: at most eight bits.
        act(byte, ((((1u32 << count) - 1) << first) & 0xFF) as u8);
        at += count;
    }
    to.saturating_sub(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_set_and_cleared_in_ranges() {
        let mut bits = [0; BLOCK];
        assert_eq!(set(&mut bits, 3, 21), 18);
        assert_eq!(bits[..4], [0xF8, 0xFF, 0x1F, 0]);
        assert_eq!(clear(&mut bits, 4, 9), 5);
        assert_eq!(bits[..4], [0x08, 0xFE, 0x1F, 0]);
        assert_eq!(set(&mut bits, 5, 5), 0);
        assert_eq!(set(&mut bits, 32760, 32768), 8);
        assert_eq!(bits[4095], 0xFF);
    }
}
