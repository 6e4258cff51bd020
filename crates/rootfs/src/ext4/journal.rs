//! The journal: an empty one is its superblock and blocks that nobody has written.
//!
//! `struct journal_superblock_s` of `include/linux/jbd2.h`; all numbers are big-endian.

use super::format::{BLOCK, BLOCK_SIZE, BLOCK_SIZE_32, JOURNAL_MAGIC};

/// The smallest journal that the kernel takes, in blocks.
pub(super) const MIN_BLOCKS: u32 = 1024;

/// A superblock of version 2.
const SUPERBLOCK_V2: u32 = 4;

/// How large a journal is if nobody says: the steps of `mke2fs`.
pub(super) fn blocks_for(image_blocks: u64) -> u32 {
    match (image_blocks * BLOCK_SIZE) >> 20 {
        0..128 => 1024,
        128..1024 => 4096,
        1024..2048 => 8192,
        2048..16384 => 16384,
        16384..32768 => 32768,
        _ => 65536,
    }
}

/// The first block of an empty journal.
pub(super) fn superblock(blocks: u32, uuid: [u8; 16]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, value: u32| {
        block[at..at + 4].copy_from_slice(&value.to_be_bytes());
    };
    put(0, JOURNAL_MAGIC);
    put(4, SUPERBLOCK_V2);
    put(12, BLOCK_SIZE_32);
    put(16, blocks);
    // The log begins in block 1 with transaction 1; a start of 0 says that it is empty.
    put(20, 1);
    put(24, 1);
    put(64, 1);
    block[48..64].copy_from_slice(&uuid);
    block
}
