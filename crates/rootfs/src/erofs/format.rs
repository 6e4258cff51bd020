//! The structures of EROFS as they lie on disk: little-endian, without padding.
//!
//! Names and offsets follow the kernel's `fs/erofs/erofs_fs.h`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) use crate::sink::BLOCK;

/// [`BLOCK`] for arithmetic on positions.
pub(super) const BLOCK_SIZE: u64 = 4096;
/// Bytes of a slot: an inode's number counts these.
pub(super) const SLOT: usize = 32;
/// Bytes of an extended inode.
pub(super) const INODE: usize = 64;
/// Bytes of a directory entry without its name.
pub(super) const DIRENT: usize = 12;
/// Bytes before the attributes of an inode.
pub(super) const XATTR_HEADER: usize = 12;
/// What stands for the block of a chunk that is not stored.
pub(super) const NULL_BLOCK: u32 = u32::MAX;
/// Where the superblock begins in block 0.
pub(super) const SUPER_OFFSET: usize = 1024;

const MAGIC: u32 = 0xE0F5_E1E2;
const COMPAT_SB_CHKSUM: u32 = 1;
const COMPAT_MTIME: u32 = 2;
const INCOMPAT_CHUNKED_FILE: u32 = 4;

/// How the content of an inode is stored (`i_format`, bits 1 to 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In blocks that lie one after another.
    Plain,
    /// The same, but what does not fill a block lies behind the inode.
    Inline,
    /// In chunks, whose blocks are listed behind the inode.
    Chunks,
}

impl Layout {
    fn number(self) -> u16 {
        match self {
            Self::Plain => 0,
            Self::Inline => 2,
            Self::Chunks => 4,
        }
    }
}

/// `struct erofs_super_block`.
#[derive(Clone, Copy, Default, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SuperBlock {
    magic: U32,
    checksum: U32,
    feature_compat: U32,
    block_bits: u8,
    ext_slots: u8,
    root_nid: U16,
    inodes: U64,
    build_time: U64,
    build_time_nsec: U32,
    blocks: U32,
    meta_block: U32,
    xattr_block: U32,
    uuid: [u8; 16],
    volume_name: [u8; 16],
    feature_incompat: U32,
    algorithms: U16,
    extra_devices: U16,
    devices_at: U16,
    dir_block_bits: u8,
    xattr_prefixes: u8,
    xattr_prefixes_at: U32,
    packed_nid: U64,
    reserved: [u8; 24],
}

/// What the superblock says of an image.
pub(super) struct Image {
    pub(super) root_nid: u16,
    pub(super) inodes: u64,
    pub(super) epoch: i64,
    pub(super) blocks: u32,
    pub(super) meta_block: u32,
    pub(super) uuid: [u8; 16],
    pub(super) label: Vec<u8>,
    pub(super) chunked: bool,
}

/// Block 0.
pub(super) fn super_block(image: &Image) -> Vec<u8> {
    let mut raw = SuperBlock {
        magic: U32::new(MAGIC),
        feature_compat: U32::new(COMPAT_SB_CHKSUM | COMPAT_MTIME),
        block_bits: 12,
        root_nid: U16::new(image.root_nid),
        inodes: U64::new(image.inodes),
        build_time: U64::new(image.epoch.cast_unsigned()),
        blocks: U32::new(image.blocks),
        meta_block: U32::new(image.meta_block),
        uuid: image.uuid,
        feature_incompat: U32::new(if image.chunked {
            INCOMPAT_CHUNKED_FILE
        } else {
            0
        }),
        ..SuperBlock::default()
    };
    raw.volume_name[..image.label.len()].copy_from_slice(&image.label);
    let mut block = vec![0; BLOCK];
    block[SUPER_OFFSET..SUPER_OFFSET + size_of::<SuperBlock>()].copy_from_slice(raw.as_bytes());
    // The kernel's crc32c does not invert its result; the checksum's own field counts as zeros.
    let sum = !crc32c::crc32c(&block[SUPER_OFFSET..]);
    block[SUPER_OFFSET + 4..SUPER_OFFSET + 8].copy_from_slice(&sum.to_le_bytes());
    block
}

/// `struct erofs_inode_extended`.
#[derive(Clone, Copy, Default, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawInode {
    format: U16,
    xattr_units: U16,
    mode: U16,
    reserved: U16,
    size: U64,
    value: U32,
    ino: U32,
    uid: U32,
    gid: U32,
    mtime: U64,
    mtime_nsec: U32,
    links: U32,
    reserved2: [u8; 16],
}

/// An inode in the words of the writer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inode {
    pub(super) layout: Layout,
    /// Bytes of the attributes behind it, with their header.
    pub(super) xattrs: usize,
    pub(super) mode: u16,
    pub(super) size: u64,
    /// First block, device number, or form of the chunks.
    pub(super) value: u32,
    pub(super) ino: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: crate::tree::Time,
    pub(super) links: u32,
}

impl Inode {
    pub(super) fn to_bytes(self) -> [u8; INODE] {
        // The header counts as one unit of four bytes.
        let units = match self.xattrs.checked_sub(XATTR_HEADER) {
            Some(bytes) => bytes / 4 + 1,
            None => 0,
        };
        let raw = RawInode {
            // Bit 0: an extended inode.
            format: U16::new(1 | self.layout.number() << 1),
            xattr_units: U16::new(u16::try_from(units).expect("the plan has checked it")),
            mode: U16::new(self.mode),
            size: U64::new(self.size),
            value: U32::new(self.value),
            ino: U32::new(self.ino),
            uid: U32::new(self.uid),
            gid: U32::new(self.gid),
            mtime: U64::new(self.mtime.secs.cast_unsigned()),
            mtime_nsec: U32::new(self.mtime.nanos),
            links: U32::new(self.links),
            ..RawInode::default()
        };
        let mut bytes = [0; INODE];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_kernel() {
        assert_eq!(size_of::<SuperBlock>(), 128);
        assert_eq!(size_of::<RawInode>(), INODE);
        let offset = std::mem::offset_of!(SuperBlock, uuid);
        assert_eq!(offset, 48);
        assert_eq!(std::mem::offset_of!(SuperBlock, feature_incompat), 80);
        assert_eq!(std::mem::offset_of!(RawInode, mtime), 32);
    }
}
