//! Inodes as they lie on disk.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::checksum::Seed;
use super::format::{
    EXTRA_SIZE, INODE_SIZE, MAX_LINKS, RawInode, XATTR_ROOM, file_type, halves, hi16, hi32, lo32,
};
use crate::tree::{Device, Kind, Meta, Time};

/// The first and the last second that an inode can hold: 34 bits, of which the lower 32 are signed.
const FIRST_SECOND: i64 = -(1 << 31);
const LAST_SECOND: i64 = (1 << 34) - (1 << 31) - 1;

/// What an inode has beside the metadata of the tree; found while the blocks are written.
#[derive(Clone, Copy)]
pub(super) struct Record {
    /// Extents, target of a short symlink or device number.
    pub(super) block: [u8; 60],
    /// Bytes.
    pub(super) size: u64,
    /// Blocks that belong to it, of whatever kind.
    pub(super) blocks: u64,
    /// The block of attributes, or 0.
    pub(super) xattr_block: u64,
    pub(super) flags: u32,
    /// Hard links; for a directory two and one for each directory in it.
    pub(super) links: u32,
}

impl Record {
    pub(super) const EMPTY: Self = Self {
        block: [0; 60],
        size: 0,
        blocks: 0,
        xattr_block: 0,
        flags: 0,
        links: 0,
    };
}

/// The file type of a kind: for `i_mode` and for directory entries.
pub(super) fn type_of(kind: &Kind) -> (u16, u8) {
    match kind {
        Kind::Dir(_) => file_type::DIR,
        Kind::File(_) => file_type::FILE,
        Kind::Symlink(_) => file_type::SYMLINK,
        Kind::Fifo => file_type::FIFO,
        Kind::Socket => file_type::SOCKET,
        Kind::CharDevice(_) => file_type::CHAR,
        Kind::BlockDevice(_) => file_type::BLOCK,
    }
}

/// A device number as `i_block` holds it: the old form where it is large enough, else the new one. `None` when the
/// kernel has no such number (12 bits for the major, 20 for the minor).
pub(super) fn device(device: Device) -> Option<[u8; 60]> {
    let Device { major, minor } = device;
    let mut block = [0; 60];
    if major < 256 && minor < 256 {
        block[..4].copy_from_slice(&((major << 8) | minor).to_le_bytes());
    } else if major < 1 << 12 && minor < 1 << 20 {
        let number = (minor & 0xFF) | (major << 8) | ((minor & !0xFF) << 12);
        block[4..8].copy_from_slice(&number.to_le_bytes());
    } else {
        return None;
    }
    Some(block)
}

/// A time as it is stored; outside of what fits, the nearest that does, as the kernel does it.
fn split(time: Time) -> (U32, U32) {
    let secs = time.secs.clamp(FIRST_SECOND, LAST_SECOND);
    let nanos = if secs == time.secs {
        time.nanos.min(999_999_999)
    } else {
        0
    };
    // The lower half is a signed number, the two bits of the epoch count what is missing to the whole.
    let low = (secs & 0xFFFF_FFFF) as u32;
    let epoch = ((secs - i64::from(low.cast_signed())) >> 32) & 3;
    (U32::new(low), U32::new((nanos << 2) | (epoch & 3) as u32))
}

/// The inode `ino` as bytes.
pub(super) fn encode(
    seed: Seed,
    ino: u32,
    file_type: u16,
    meta: &Meta,
    mtime: Time,
    record: &Record,
    xattrs: [u8; XATTR_ROOM],
) -> [u8; INODE_SIZE] {
    let mut raw = RawInode::new_zeroed();
    let (time, extra) = split(mtime);
    raw.mode = U16::new(file_type | (meta.mode & 0o7777));
    (raw.uid_lo, raw.uid_hi) = halves(meta.uid);
    (raw.gid_lo, raw.gid_hi) = halves(meta.gid);
    raw.size_lo = lo32(record.size);
    raw.size_hi = hi32(record.size);
    for field in [
        &mut raw.atime,
        &mut raw.ctime,
        &mut raw.mtime,
        &mut raw.crtime,
    ] {
        *field = time;
    }
    for field in [
        &mut raw.atime_extra,
        &mut raw.ctime_extra,
        &mut raw.mtime_extra,
        &mut raw.crtime_extra,
    ] {
        *field = extra;
    }
    // A directory with more links than fit has 1 (feature dir_nlink); files were checked.
    let links = if record.links > MAX_LINKS {
        1
    } else {
        record.links
    };
    raw.links = U16::new(u16::try_from(links).unwrap_or(1));
    // Units of 512 bytes, eight to a block.
    let sectors = record.blocks * 8;
    raw.blocks_lo = lo32(sectors);
    raw.blocks_hi = hi16(sectors);
    raw.flags = U32::new(record.flags);
    raw.block = record.block;
    raw.xattr_block_lo = lo32(record.xattr_block);
    raw.xattr_block_hi = hi16(record.xattr_block);
    raw.extra_size = U16::new(EXTRA_SIZE);
    raw.xattrs = xattrs;
    seal(seed, ino, raw)
}

/// The inode `ino` that holds the value of an attribute. Its times are a hash of the value and a count of references.
pub(super) fn encode_value(
    seed: Seed,
    ino: u32,
    owner: &Meta,
    value: &[u8],
    record: &Record,
) -> [u8; INODE_SIZE] {
    let mut raw = RawInode::new_zeroed();
    raw.mode = U16::new(file_type::FILE.0 | 0o600);
    (raw.uid_lo, raw.uid_hi) = halves(owner.uid);
    (raw.gid_lo, raw.gid_hi) = halves(owner.gid);
    raw.size_lo = lo32(record.size);
    raw.atime = U32::new(seed.sum(value));
    raw.version_lo = U32::new(1);
    raw.links = U16::new(1);
    raw.blocks_lo = lo32(record.blocks * 8);
    raw.flags = U32::new(record.flags);
    raw.block = record.block;
    raw.extra_size = U16::new(EXTRA_SIZE);
    seal(seed, ino, raw)
}

fn seal(seed: Seed, ino: u32, mut raw: RawInode) -> [u8; INODE_SIZE] {
    let sum = seed.of_inode(ino, 0).sum(raw.as_bytes());
    (raw.checksum_lo, raw.checksum_hi) = halves(sum);
    let mut bytes = [0; INODE_SIZE];
    bytes.copy_from_slice(raw.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_34_bits() {
        let at = |secs| {
            let (low, extra) = split(Time { secs, nanos: 5 });
            (low.get(), extra.get())
        };
        assert_eq!(at(0), (0, 20));
        assert_eq!(at(-1), (0xFFFF_FFFF, 20));
        assert_eq!(at(0x7FFF_FFFF), (0x7FFF_FFFF, 20));
        // 2038: the low half turns negative, the epoch makes up for it.
        assert_eq!(at(0x8000_0000), (0x8000_0000, 21));
        assert_eq!(at(0x1_0000_0000), (0, 21));
        assert_eq!(at(LAST_SECOND), (0x7FFF_FFFF, 23));
        assert_eq!(at(LAST_SECOND + 1), (0x7FFF_FFFF, 3));
        assert_eq!(at(i64::MIN), (0x8000_0000, 0));
    }

    #[test]
    fn devices_use_the_old_form_where_it_fits() {
        let at = |major, minor| {
            device(Device { major, minor }).map(|block| {
                let word =
                    |i: usize| u32::from_le_bytes(block[i..i + 4].try_into().expect("four bytes"));
                (word(0), word(4))
            })
        };
        assert_eq!(at(5, 1), Some((0x501, 0)));
        assert_eq!(at(0, 0), Some((0, 0)));
        assert_eq!(at(259, 1), Some((0, 0x1_0301)));
        assert_eq!(at(8, 0x12345), Some((0, 0x1230_0845)));
        assert_eq!(at(4095, (1 << 20) - 1), Some((0, 0xFFFF_FFFF)));
        assert_eq!(at(4096, 0), None);
        assert_eq!(at(1, 1 << 20), None);
    }
}
