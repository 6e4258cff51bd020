//! Blocks on their way to the image: the cursor of [`Space`] joined with the buffers of [`Sink`].
//!
//! One buffer holds blocks that lie one after another in the image, from as many files as fit; it is written when it is
//! full or when the next block lies elsewhere.

use sha2::Sha256;

use super::error::Ext4Error;
use super::extent::ExtentTree;
use super::format::{BLOCK, BLOCK_SIZE};
use super::space::Space;
use crate::sink::{CHUNK_BLOCKS, Sink};

/// An image in the making.
pub(super) struct Stream {
    sink: Sink,
    /// Which blocks are taken.
    pub(super) space: Space,
    buffer: Vec<u8>,
    /// Blocks in the buffer.
    filled: usize,
    /// Where in the image the buffer begins, in blocks.
    start: u64,
}

impl Stream {
    /// An image whose blocks are given out by `space`.
    pub(super) fn new(sink: Sink, space: Space) -> Result<Self, Ext4Error> {
        let buffer = sink.buffer()?;
        Ok(Self {
            sink,
            space,
            buffer,
            filled: 0,
            start: 0,
        })
    }

    /// Sends away what the buffer holds.
    pub(super) fn flush(&mut self) -> Result<(), Ext4Error> {
        if self.filled > 0 {
            let full = std::mem::take(&mut self.buffer);
            self.buffer = self
                .sink
                .exchange(self.start * BLOCK_SIZE, full, self.filled * BLOCK)?;
            self.filled = 0;
        }
        Ok(())
    }

    /// A digest of all blocks so far and of where they are.
    pub(super) fn digest(&mut self) -> Result<Sha256, Ext4Error> {
        self.flush()?;
        Ok(self.sink.digest()?)
    }

    /// Makes sure that the buffer has room and that its next block is `block`.
    fn aim(&mut self, block: u64) -> Result<(), Ext4Error> {
        if self.filled == CHUNK_BLOCKS || self.start + self.filled as u64 != block {
            self.flush()?;
        }
        if self.filled == 0 {
            self.start = block;
        }
        Ok(())
    }

    /// Room for the next `wanted` blocks, at most a buffer of them: where they will lie, and the bytes to fill. It is less
    /// only where a run of free blocks ends, so that it never depends on what came before. Nothing is taken until
    /// [`Self::commit`].
    pub(super) fn room(&mut self, wanted: usize) -> Result<(u64, &mut [u8]), Ext4Error> {
        let run = self.space.peek();
        let blocks = usize::try_from(run.end - run.start)
            .unwrap_or(CHUNK_BLOCKS)
            .min(wanted);
        if self.filled + blocks > CHUNK_BLOCKS {
            self.flush()?;
        }
        self.aim(run.start)?;
        let from = self.filled * BLOCK;
        Ok((run.start, &mut self.buffer[from..from + blocks * BLOCK]))
    }

    /// Keeps the first `blocks` blocks of the room.
    pub(super) fn commit(&mut self, blocks: usize) {
        self.space.take(blocks as u64);
        self.filled += blocks;
    }

    /// Takes the next block for `data`, at most a block of bytes; the rest is zeros.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<u64, Ext4Error> {
        let (block, room) = self.room(1)?;
        fill(room, data);
        self.commit(1);
        Ok(block)
    }

    /// Writes a block that was taken before.
    pub(super) fn put(&mut self, block: u64, data: &[u8]) -> Result<(), Ext4Error> {
        self.aim(block)?;
        let from = self.filled * BLOCK;
        fill(&mut self.buffer[from..from + BLOCK], data);
        self.filled += 1;
        Ok(())
    }

    /// Takes blocks for a file without writing them, and notes where they are.
    pub(super) fn take(&mut self, tree: &mut ExtentTree, blocks: u32) -> Result<(), Ext4Error> {
        let mut logical = 0;
        while logical < blocks {
            let run = self.space.take_some(u64::from(blocks - logical));
            let len = u32::try_from(run.end - run.start).expect("at most what was asked for");
            tree.add(self, logical, run.start, len)?;
            logical += len;
        }
        Ok(())
    }
}

fn fill(block: &mut [u8], data: &[u8]) {
    block[..data.len()].copy_from_slice(data);
    block[data.len()..].fill(0);
}
