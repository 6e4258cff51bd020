//! Where blocks go: one cursor that moves from the beginning of the image to its end.
//!
//! Nothing is ever freed, so the used blocks are all below the cursor, except for the gaps that are noted. What the
//! cursor must step over is known before the first block is given out: the groups 0, 1 and the powers of 3, 5 and 7
//! begin with a copy of the superblock and of the group descriptors (feature `sparse_super`).

use std::ops::Range;

use super::format::BLOCKS_PER_GROUP;

/// Whether a group begins with a copy of the superblock and of the group descriptors.
pub(super) fn has_super(group: u64) -> bool {
    if group <= 1 {
        return true;
    }
    [3, 5, 7].into_iter().any(|base: u64| {
        let mut power = base;
        while power < group {
            power = power.saturating_mul(base);
        }
        power == group
    })
}

/// The cursor over the blocks of an image.
#[derive(Clone, Debug)]
pub(super) struct Space {
    next: u64,
    /// End of the free run that `next` is in.
    run_end: u64,
    /// Blocks at the beginning of each group with a superblock that are never given out.
    reserve: u64,
    /// Blocks below the cursor that were passed over and stay free.
    gaps: Vec<Range<u64>>,
}

impl Space {
    /// An empty image with room for `descriptor_blocks` blocks of group descriptors.
    pub(super) fn new(descriptor_blocks: u64) -> Self {
        let mut space = Self {
            next: 0,
            run_end: 0,
            reserve: 1 + descriptor_blocks,
            gaps: Vec::new(),
        };
        space.enter_run();
        space
    }

    /// Moves to the next block that may be given out, and finds where its run ends.
    fn enter_run(&mut self) {
        let mut group = self.next / BLOCKS_PER_GROUP;
        if has_super(group) {
            self.next = self.next.max(group * BLOCKS_PER_GROUP + self.reserve);
        }
        group += 1;
        while !has_super(group) {
            group += 1;
        }
        self.run_end = group * BLOCKS_PER_GROUP;
    }

    /// The next free block and how many free blocks follow one another from there.
    pub(super) fn peek(&mut self) -> Range<u64> {
        if self.next == self.run_end {
            self.enter_run();
        }
        self.next..self.run_end
    }

    /// Takes blocks that [`Self::peek`] has shown.
    pub(super) fn take(&mut self, blocks: u64) {
        debug_assert!(self.next + blocks <= self.run_end);
        self.next += blocks;
    }

    /// Takes up to `blocks` blocks that follow one another.
    pub(super) fn take_some(&mut self, blocks: u64) -> Range<u64> {
        let run = self.peek();
        let end = run.end.min(run.start + blocks);
        self.take(end - run.start);
        run.start..end
    }

    /// Goes on behind blocks that an image has already: nothing below `next` is given out any more.
    pub(super) fn resume(&mut self, next: u64) {
        debug_assert!(self.gaps.is_empty());
        self.next = self.next.max(next);
        self.enter_run();
    }

    /// What the copies of the superblock and of the group descriptors may take below `end`.
    pub(super) fn reserves(&self, end: u64) -> impl Iterator<Item = Range<u64>> {
        let groups = 0..end.div_ceil(BLOCKS_PER_GROUP);
        let starts = groups
            .filter(|group| has_super(*group))
            .map(|group| group * BLOCKS_PER_GROUP);
        let reserve = self.reserve;
        starts.map(move |start| start..(start + reserve).min(end))
    }

    /// Takes exactly `blocks` blocks that follow one another; at most a run of them (see [`has_super`]).
    pub(super) fn take_run(&mut self, blocks: u64) -> Range<u64> {
        let mut run = self.peek();
        while run.end - run.start < blocks {
            self.gaps.push(run.clone());
            self.next = run.end;
            run = self.peek();
        }
        self.take(blocks);
        run.start..run.start + blocks
    }

    /// All used blocks are below this one.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// The ranges below [`Self::end`] that are free, when only `descriptor_blocks` of the reserved descriptor blocks
    /// are needed.
    pub(super) fn free_below_end(&self, descriptor_blocks: u64) -> Vec<Range<u64>> {
        let mut free = self.gaps.clone();
        let mut group = 0;
        while group * BLOCKS_PER_GROUP < self.next {
            if has_super(group) {
                let start = group * BLOCKS_PER_GROUP;
                let range = start + 1 + descriptor_blocks..(start + self.reserve).min(self.next);
                if range.start < range.end {
                    free.push(range);
                }
            }
            group += 1;
        }
        free.sort_by_key(|range| range.start);
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supers_are_in_groups_0_1_and_powers() {
        let groups: Vec<u64> = (0..130).filter(|g| has_super(*g)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn the_cursor_steps_over_the_copies() {
        let mut space = Space::new(2);
        assert_eq!(space.take_some(5), 3..8);
        assert_eq!(space.take_some(100_000), 8..32768);
        assert_eq!(space.take_some(100_000), 32771..98304);
        assert_eq!(space.end(), 98304);
        assert_eq!(space.take_some(1), 98307..98308);
    }

    #[test]
    fn a_run_that_does_not_fit_leaves_a_gap() {
        let mut space = Space::new(1);
        assert_eq!(space.take_some(32_000), 2..32_002);
        assert_eq!(space.take_run(1000), 32_770..33_770);
        assert_eq!(space.free_below_end(1), vec![32_002..32_768; 1]);
        let mut wide = Space::new(9);
        wide.take_some(32_768);
        wide.take_some(1);
        assert_eq!(wide.free_below_end(2), [3..10, 32_771..32_778]);
    }
}
