//! The structures of ext4 as they lie on disk: little-endian, without padding.
//!
//! Names and offsets follow the kernel's `Documentation/filesystems/ext4/` and `fs/ext4/ext4.h`. Only what the writer
//! or the reader uses has a name of its own; the rest is there so that sizes and offsets are right, and a test pins
//! them.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a block. The only size that is written and read.
pub(super) const BLOCK: usize = 4096;
/// [`BLOCK`] for arithmetic on positions, and for fields of 32 bits.
pub(super) const BLOCK_SIZE: u64 = 4096;
pub(super) const BLOCK_SIZE_32: u32 = 4096;
/// Blocks of a group: as many as one block of bits can tell.
pub(super) const BLOCKS_PER_GROUP: u64 = 32768;
/// Most inodes of a group, for the same reason.
pub(super) const MAX_INODES_PER_GROUP: u64 = 32768;
/// Bytes of an inode on disk.
pub(super) const INODE_SIZE: usize = 256;
pub(super) const INODE_SIZE_16: u16 = 256;
/// Inodes in a block.
pub(super) const INODES_PER_BLOCK: u64 = 16;
/// Bytes of a group descriptor (feature `64bit`).
pub(super) const DESC_SIZE: usize = 64;
pub(super) const DESC_SIZE_16: u16 = 64;
/// Group descriptors in a block.
pub(super) const DESCS_PER_BLOCK: u64 = 64;
/// Where the superblock begins in block 0.
pub(super) const SUPER_OFFSET: usize = 1024;

pub(super) const SUPER_MAGIC: u16 = 0xEF53;
pub(super) const EXTENT_MAGIC: u16 = 0xF30A;
pub(super) const XATTR_MAGIC: u32 = 0xEA02_0000;
/// `jbd2`, big-endian like all of the journal.
pub(super) const JOURNAL_MAGIC: u32 = 0xC03B_3998;

pub(super) const ROOT_INO: u32 = 2;
pub(super) const JOURNAL_INO: u32 = 8;
/// The first inode that is not reserved; by habit `lost+found`.
pub(super) const FIRST_INO: u32 = 11;

/// Most hard links of an inode, and most links of a directory before it stops counting.
pub(super) const MAX_LINKS: u32 = 65_000;
/// Most blocks of one extent.
pub(super) const MAX_EXTENT: u32 = 32_768;
/// Longest target that fits into the inode itself.
pub(super) const MAX_FAST_SYMLINK: usize = 59;
/// Most bytes of a file: block numbers inside a file have 32 bits and the last one is taken.
pub(super) const MAX_FILE_SIZE: u64 = 0xFFFF_FFFF * BLOCK_SIZE;

pub(super) mod compat {
    pub(crate) const HAS_JOURNAL: u32 = 0x4;
    pub(crate) const EXT_ATTR: u32 = 0x8;
    pub(crate) const DIR_INDEX: u32 = 0x20;
}

pub(super) mod incompat {
    pub(crate) const FILETYPE: u32 = 0x2;
    pub(crate) const EXTENTS: u32 = 0x40;
    pub(crate) const BIT64: u32 = 0x80;
    pub(crate) const FLEX_BG: u32 = 0x200;
    pub(crate) const CSUM_SEED: u32 = 0x2000;
    pub(crate) const LARGE_DIR: u32 = 0x4000;
    pub(crate) const EA_INODE: u32 = 0x400;
}

pub(super) mod ro_compat {
    pub(crate) const SPARSE_SUPER: u32 = 0x1;
    pub(crate) const LARGE_FILE: u32 = 0x2;
    pub(crate) const HUGE_FILE: u32 = 0x8;
    pub(crate) const DIR_NLINK: u32 = 0x20;
    pub(crate) const EXTRA_ISIZE: u32 = 0x40;
    pub(crate) const METADATA_CSUM: u32 = 0x400;
}

/// Flags of a group descriptor.
pub(super) mod group_flag {
    /// No inode of the group is used; its bitmap is not on disk.
    pub(crate) const INODE_UNINIT: u16 = 0x1;
    /// Nothing but the group's own metadata is used; its bitmap is not on disk.
    pub(crate) const BLOCK_UNINIT: u16 = 0x2;
    /// The unused part of the inode table is zeros: the kernel need not clear it after the first mount.
    pub(crate) const INODE_ZEROED: u16 = 0x4;
}

/// Flags of an inode.
pub(super) mod inode_flag {
    /// A directory with a hash index.
    pub(crate) const INDEX: u32 = 0x1000;
    /// The blocks are found through extents.
    pub(crate) const EXTENTS: u32 = 0x8_0000;
    /// The inode holds the value of an extended attribute.
    pub(crate) const EA_INODE: u32 = 0x20_0000;
}

/// File types: the upper bits of `i_mode`, and the byte in directory entries.
pub(super) mod file_type {
    pub(crate) const FIFO: (u16, u8) = (0x1000, 5);
    pub(crate) const CHAR: (u16, u8) = (0x2000, 3);
    pub(crate) const DIR: (u16, u8) = (0x4000, 2);
    pub(crate) const BLOCK: (u16, u8) = (0x6000, 4);
    pub(crate) const FILE: (u16, u8) = (0x8000, 1);
    pub(crate) const SYMLINK: (u16, u8) = (0xA000, 7);
    pub(crate) const SOCKET: (u16, u8) = (0xC000, 6);
}

/// `struct ext4_super_block`.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SuperBlock {
    pub(super) inodes_count: U32,
    pub(super) blocks_count_lo: U32,
    pub(super) reserved_blocks_lo: U32,
    pub(super) free_blocks_lo: U32,
    pub(super) free_inodes: U32,
    pub(super) first_data_block: U32,
    pub(super) log_block_size: U32,
    pub(super) log_cluster_size: U32,
    pub(super) blocks_per_group: U32,
    pub(super) clusters_per_group: U32,
    pub(super) inodes_per_group: U32,
    pub(super) mount_time: U32,
    pub(super) write_time: U32,
    pub(super) mount_count: U16,
    pub(super) max_mount_count: U16,
    pub(super) magic: U16,
    pub(super) state: U16,
    pub(super) errors: U16,
    pub(super) minor_revision: U16,
    pub(super) last_check: U32,
    pub(super) check_interval: U32,
    pub(super) creator_os: U32,
    pub(super) revision: U32,
    pub(super) reserved_uid: U16,
    pub(super) reserved_gid: U16,
    pub(super) first_inode: U32,
    pub(super) inode_size: U16,
    pub(super) group_number: U16,
    pub(super) compat: U32,
    pub(super) incompat: U32,
    pub(super) ro_compat: U32,
    pub(super) uuid: [u8; 16],
    pub(super) label: [u8; 16],
    pub(super) last_mounted: [u8; 64],
    pub(super) algorithms: U32,
    pub(super) prealloc: [u8; 2],
    pub(super) reserved_gdt_blocks: U16,
    pub(super) journal_uuid: [u8; 16],
    pub(super) journal_inode: U32,
    pub(super) journal_device: U32,
    pub(super) last_orphan: U32,
    pub(super) hash_seed: [u8; 16],
    pub(super) hash_version: u8,
    pub(super) journal_backup_type: u8,
    pub(super) desc_size: U16,
    pub(super) mount_options: U32,
    pub(super) first_meta_group: U32,
    pub(super) mkfs_time: U32,
    pub(super) journal_blocks: [u8; 68],
    pub(super) blocks_count_hi: U32,
    pub(super) reserved_blocks_hi: U32,
    pub(super) free_blocks_hi: U32,
    pub(super) min_extra_size: U16,
    pub(super) want_extra_size: U16,
    pub(super) flags: U32,
    pub(super) raid_stride: U16,
    pub(super) mmp_interval: U16,
    pub(super) mmp_block: U64,
    pub(super) raid_stripe: U32,
    pub(super) log_groups_per_flex: u8,
    pub(super) checksum_type: u8,
    pub(super) encryption_level: [u8; 2],
    pub(super) written_kib: U64,
    pub(super) snapshots_and_errors: [u8; 0x200 - 0x180],
    pub(super) mount_option_text: [u8; 64],
    pub(super) quota_inodes: [U32; 2],
    pub(super) overhead_blocks: U32,
    pub(super) backup_groups: [U32; 2],
    pub(super) encryption: [u8; 20],
    pub(super) lost_found_inode: U32,
    pub(super) project_quota_inode: U32,
    pub(super) checksum_seed: U32,
    pub(super) write_time_hi: u8,
    pub(super) mount_time_hi: u8,
    pub(super) mkfs_time_hi: u8,
    pub(super) last_check_hi: u8,
    pub(super) reserved: [u8; 0x3FC - 0x278],
    pub(super) checksum: U32,
}

/// `struct ext4_group_desc` of 64 bytes.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct GroupDesc {
    pub(super) block_bitmap_lo: U32,
    pub(super) inode_bitmap_lo: U32,
    pub(super) inode_table_lo: U32,
    pub(super) free_blocks_lo: U16,
    pub(super) free_inodes_lo: U16,
    pub(super) used_dirs_lo: U16,
    pub(super) flags: U16,
    pub(super) exclude_bitmap_lo: U32,
    pub(super) block_bitmap_csum_lo: U16,
    pub(super) inode_bitmap_csum_lo: U16,
    pub(super) unused_inodes_lo: U16,
    pub(super) checksum: U16,
    pub(super) block_bitmap_hi: U32,
    pub(super) inode_bitmap_hi: U32,
    pub(super) inode_table_hi: U32,
    pub(super) free_blocks_hi: U16,
    pub(super) free_inodes_hi: U16,
    pub(super) used_dirs_hi: U16,
    pub(super) unused_inodes_hi: U16,
    pub(super) exclude_bitmap_hi: U32,
    pub(super) block_bitmap_csum_hi: U16,
    pub(super) inode_bitmap_csum_hi: U16,
    pub(super) reserved: U32,
}

/// `struct ext4_inode` of 256 bytes.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawInode {
    pub(super) mode: U16,
    pub(super) uid_lo: U16,
    pub(super) size_lo: U32,
    pub(super) atime: U32,
    pub(super) ctime: U32,
    pub(super) mtime: U32,
    pub(super) dtime: U32,
    pub(super) gid_lo: U16,
    pub(super) links: U16,
    pub(super) blocks_lo: U32,
    pub(super) flags: U32,
    pub(super) version_lo: U32,
    pub(super) block: [u8; 60],
    pub(super) generation: U32,
    pub(super) xattr_block_lo: U32,
    pub(super) size_hi: U32,
    pub(super) fragment: U32,
    pub(super) blocks_hi: U16,
    pub(super) xattr_block_hi: U16,
    pub(super) uid_hi: U16,
    pub(super) gid_hi: U16,
    pub(super) checksum_lo: U16,
    pub(super) reserved: U16,
    pub(super) extra_size: U16,
    pub(super) checksum_hi: U16,
    pub(super) ctime_extra: U32,
    pub(super) mtime_extra: U32,
    pub(super) atime_extra: U32,
    pub(super) crtime: U32,
    pub(super) crtime_extra: U32,
    pub(super) version_hi: U32,
    pub(super) project: U32,
    /// Extended attributes: magic, entries, values.
    pub(super) xattrs: [u8; XATTR_ROOM],
}

/// Bytes of an inode after its fixed part.
pub(super) const XATTR_ROOM: usize = INODE_SIZE - 160;
/// How many bytes of the fixed part lie after the old 128.
pub(super) const EXTRA_SIZE: u16 = 32;

/// `struct ext4_extent_header`.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ExtentHeader {
    pub(super) magic: U16,
    pub(super) entries: U16,
    pub(super) max: U16,
    pub(super) depth: U16,
    pub(super) generation: U32,
}

/// `struct ext4_extent`: a run of blocks.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ExtentLeaf {
    pub(super) logical: U32,
    pub(super) len: U16,
    pub(super) start_hi: U16,
    pub(super) start_lo: U32,
}

/// `struct ext4_extent_idx`: where a lower part of the tree is.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ExtentIndex {
    pub(super) logical: U32,
    pub(super) leaf_lo: U32,
    pub(super) leaf_hi: U16,
    pub(super) unused: U16,
}

/// `struct ext4_xattr_header`, at the beginning of a block of attributes.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct XattrHeader {
    pub(super) magic: U32,
    pub(super) references: U32,
    pub(super) blocks: U32,
    pub(super) hash: U32,
    pub(super) checksum: U32,
    pub(super) reserved: [U32; 3],
}

/// `struct ext4_xattr_entry` without the name that follows.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct XattrEntry {
    pub(super) name_len: u8,
    pub(super) name_index: u8,
    pub(super) value_offset: U16,
    pub(super) value_inode: U32,
    pub(super) value_size: U32,
    pub(super) hash: U32,
}

/// `struct ext4_dir_entry_2` without the name that follows.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DirEntry {
    pub(super) inode: U32,
    pub(super) rec_len: U16,
    pub(super) name_len: u8,
    pub(super) file_type: u8,
}

/// Bytes 0 to 31 of a 64-bit number.
pub(super) fn lo32(n: u64) -> U32 {
    U32::new((n & 0xFFFF_FFFF) as u32)
}

/// Bits 32 to 63.
pub(super) fn hi32(n: u64) -> U32 {
    U32::new((n >> 32) as u32)
}

/// Bits 32 to 47.
pub(super) fn hi16(n: u64) -> U16 {
    U16::new(((n >> 32) & 0xFFFF) as u16)
}

/// The halves of a 32-bit number.
pub(super) fn halves(n: u32) -> (U16, U16) {
    (U16::new((n & 0xFFFF) as u16), U16::new((n >> 16) as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    #[test]
    fn sizes_and_offsets_are_those_of_the_kernel() {
        assert_eq!(size_of::<SuperBlock>(), 1024);
        assert_eq!(offset_of!(SuperBlock, magic), 0x38);
        assert_eq!(offset_of!(SuperBlock, compat), 0x5C);
        assert_eq!(offset_of!(SuperBlock, uuid), 0x68);
        assert_eq!(offset_of!(SuperBlock, journal_inode), 0xE0);
        assert_eq!(offset_of!(SuperBlock, hash_seed), 0xEC);
        assert_eq!(offset_of!(SuperBlock, desc_size), 0xFE);
        assert_eq!(offset_of!(SuperBlock, mkfs_time), 0x108);
        assert_eq!(offset_of!(SuperBlock, blocks_count_hi), 0x150);
        assert_eq!(offset_of!(SuperBlock, flags), 0x160);
        assert_eq!(offset_of!(SuperBlock, log_groups_per_flex), 0x174);
        assert_eq!(offset_of!(SuperBlock, written_kib), 0x178);
        assert_eq!(offset_of!(SuperBlock, overhead_blocks), 0x248);
        assert_eq!(offset_of!(SuperBlock, lost_found_inode), 0x268);
        assert_eq!(offset_of!(SuperBlock, checksum_seed), 0x270);
        assert_eq!(offset_of!(SuperBlock, checksum), 0x3FC);
        assert_eq!(size_of::<GroupDesc>(), DESC_SIZE);
        assert_eq!(offset_of!(GroupDesc, checksum), 0x1E);
        assert_eq!(offset_of!(GroupDesc, block_bitmap_csum_hi), 0x38);
        assert_eq!(size_of::<RawInode>(), INODE_SIZE);
        assert_eq!(offset_of!(RawInode, block), 0x28);
        assert_eq!(offset_of!(RawInode, checksum_lo), 0x7C);
        assert_eq!(offset_of!(RawInode, extra_size), 0x80);
        assert_eq!(offset_of!(RawInode, xattrs), 0xA0);
        assert_eq!(size_of::<ExtentHeader>(), 12);
        assert_eq!(size_of::<ExtentLeaf>(), 12);
        assert_eq!(size_of::<ExtentIndex>(), 12);
        assert_eq!(size_of::<XattrHeader>(), 32);
        assert_eq!(size_of::<XattrEntry>(), 16);
        assert_eq!(size_of::<DirEntry>(), 8);
    }
}
