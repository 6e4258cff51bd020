//! Places for inodes: blocks that are filled with what fits best.
//!
//! An inode with its attributes and the end of its file must lie within one block where that is possible (the kernel
//! demands it of the end of a file). Placing them one after another would leave a gap wherever one does not fit, so the
//! blocks with room left are remembered and the fullest one that has enough room is taken.

use std::collections::BTreeMap;

use super::format::{BLOCK, BLOCK_SIZE, INODE, SLOT};

/// How many blocks with room are remembered. The one with the least room is forgotten first.
const MAX_OPEN: usize = 64;

/// Gives out places in the area of the inodes.
pub(super) struct Bins {
    /// Blocks so far.
    blocks: u64,
    /// Blocks with room by the bytes that are free at their end.
    open: BTreeMap<usize, Vec<u64>>,
    count: usize,
}

impl Bins {
    /// An area whose first slots stay empty: an inode at place 0 would have the number 0, which `readdir(3)` takes for
    /// no inode at all.
    pub(super) fn new() -> Self {
        let mut bins = Self {
            blocks: 1,
            open: BTreeMap::new(),
            count: 0,
        };
        bins.keep(BLOCK - INODE, 0);
        bins
    }

    /// A place for so many bytes: its distance from the beginning of the area, a multiple of a slot. It does not cross
    /// the end of a block unless it is larger than one.
    pub(super) fn place(&mut self, len: usize) -> u64 {
        let len = len.next_multiple_of(SLOT);
        let found = self.open.range(len..).next().map(|(free, _)| *free);
        if let Some(free) = found
            && let Some(block) = self.take(free)
        {
            self.keep(free - len, block);
            return block * BLOCK_SIZE + (BLOCK - free) as u64;
        }
        let first = self.blocks;
        self.blocks += len.div_ceil(BLOCK) as u64;
        self.keep(len.next_multiple_of(BLOCK) - len, self.blocks - 1);
        first * BLOCK_SIZE
    }

    fn take(&mut self, free: usize) -> Option<u64> {
        let blocks = self.open.get_mut(&free)?;
        let block = blocks.pop();
        if blocks.is_empty() {
            self.open.remove(&free);
        }
        self.count -= 1;
        block
    }

    fn keep(&mut self, free: usize, block: u64) {
        if free < INODE {
            return;
        }
        self.open.entry(free).or_default().push(block);
        self.count += 1;
        if self.count > MAX_OPEN
            && let Some(least) = self.open.keys().next().copied()
        {
            self.take(least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap_or_cross_a_block() {
        let mut bins = Bins::new();
        let mut places = Vec::new();
        let mut seed = 1u64;
        for _ in 0..5000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = 64 + usize::try_from(seed >> 52).unwrap_or(0) % 4000;
            places.push((bins.place(len), len as u64));
        }
        places.push((bins.place(3 * BLOCK + 100), 3 * BLOCK_SIZE + 100));
        assert_eq!(places[0].0, 64);
        places.sort_unstable();
        for pair in places.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
        }
        for (at, len) in &places {
            assert_eq!(at % SLOT as u64, 0);
            assert!(*len > BLOCK_SIZE || at / BLOCK_SIZE == (at + len - 1) / BLOCK_SIZE);
        }
        let used: u64 = places.iter().map(|(_, len)| len).sum();
        assert!(
            bins.blocks * BLOCK_SIZE < used + used / 8,
            "little is wasted"
        );
    }
}
