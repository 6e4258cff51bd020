//! The checksums of ext4 (feature `metadata_csum`): CRC32C everywhere, seeded by what the data belongs to, so that a
//! block in the wrong place is found as well as a damaged one.
//!
//! The kernel's CRC has neither the first nor the last inversion of the usual CRC32C; [`update`] undoes them. The seed of
//! a file system is usually the CRC of its UUID. Here it is a number of its own (feature `metadata_csum_seed`), because
//! the UUID depends on the content of the files and the checksums are needed while that is still being read.

/// Continues a raw CRC32C over more data.
pub(super) fn update(crc: u32, data: &[u8]) -> u32 {
    !crc32c::crc32c_append(!crc, data)
}

/// The seed of everything that belongs to one file system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(pub(super) u32);

impl Seed {
    /// The seed of everything that belongs to one inode. Generations are always 0 here.
    pub(super) fn of_inode(self, ino: u32, generation: u32) -> Self {
        let crc = update(self.0, &ino.to_le_bytes());
        Self(update(crc, &generation.to_le_bytes()))
    }

    /// The checksum of data under this seed.
    pub(super) fn sum(self, data: &[u8]) -> u32 {
        update(self.0, data)
    }

    /// The checksum of a group descriptor, whose own field (two bytes at `at`) counts as zero. Sixteen bits are kept.
    pub(super) fn of_descriptor(self, group: u32, desc: &[u8], at: usize) -> u16 {
        let mut crc = update(self.0, &group.to_le_bytes());
        crc = update(crc, &desc[..at]);
        crc = update(crc, &[0; 2]);
        crc = update(crc, &desc[at + 2..]);
        (crc & 0xFFFF) as u16
    }

    /// The checksum of a block of attributes, whose own field (four bytes at `at`) counts as zero.
    pub(super) fn of_xattr_block(self, number: u64, block: &[u8], at: usize) -> u32 {
        let mut crc = update(self.0, &number.to_le_bytes());
        crc = update(crc, &block[..at]);
        crc = update(crc, &[0; 4]);
        update(crc, &block[at + 4..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_raw_crc() {
        // The check value of CRC32C is 0xE3069283 for "123456789" with both inversions.
        assert_eq!(!update(!0, b"123456789"), 0xE306_9283);
        let whole = update(7, b"abcdef");
        assert_eq!(update(update(7, b"abc"), b"def"), whole);
    }
}
