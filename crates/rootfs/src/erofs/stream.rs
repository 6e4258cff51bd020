//! Bytes on their way to the image, one after another from block 1 on, through the buffers of [`Sink`].

use sha2::Sha256;

use super::error::{ErofsError, ErofsErrorKind};
use super::format::{BLOCK, BLOCK_SIZE, NULL_BLOCK};
use crate::sink::{CHUNK_BLOCKS, Sink};

/// An image in the making.
pub(super) struct Stream {
    sink: Sink,
    buffer: Vec<u8>,
    filled: usize,
    /// Where in the image the buffer begins.
    start: u64,
}

impl Stream {
    pub(super) fn new(sink: Sink) -> Result<Self, ErofsError> {
        let buffer = sink.buffer()?;
        Ok(Self {
            sink,
            buffer,
            filled: 0,
            start: BLOCK_SIZE,
        })
    }

    /// Where the next byte goes.
    pub(super) fn position(&self) -> u64 {
        self.start + self.filled as u64
    }

    /// The block that begins here. The last number stands for none.
    pub(super) fn block(&self) -> Result<u32, ErofsError> {
        debug_assert_eq!(self.position() % BLOCK_SIZE, 0);
        u32::try_from(self.position() / BLOCK_SIZE)
            .ok()
            .filter(|block| *block != NULL_BLOCK)
            .ok_or_else(|| {
                ErofsError::new(
                    ErofsErrorKind::TooLarge,
                    "the image would have more than 16 TiB, the most that EROFS can have",
                )
            })
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) -> Result<(), ErofsError> {
        while !bytes.is_empty() {
            let count = bytes.len().min(CHUNK_BLOCKS * BLOCK - self.filled);
            self.buffer[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled == CHUNK_BLOCKS * BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub(super) fn zeros(&mut self, mut count: u64) -> Result<(), ErofsError> {
        const ZEROS: [u8; BLOCK] = [0; BLOCK];
        while count > 0 {
            let part = usize::try_from(count).unwrap_or(BLOCK).min(BLOCK);
            self.append(&ZEROS[..part])?;
            count -= part as u64;
        }
        Ok(())
    }

    /// Zeros up to the next block.
    pub(super) fn align(&mut self) -> Result<(), ErofsError> {
        let position = self.position();
        self.zeros(position.next_multiple_of(BLOCK_SIZE) - position)
    }

    fn flush(&mut self) -> Result<(), ErofsError> {
        if self.filled > 0 {
            let full = std::mem::take(&mut self.buffer);
            self.buffer = self.sink.exchange(self.start, full, self.filled)?;
            self.start += self.filled as u64;
            self.filled = 0;
        }
        Ok(())
    }

    /// A digest of all bytes so far.
    pub(super) fn digest(&mut self) -> Result<Sha256, ErofsError> {
        self.flush()?;
        Ok(self.sink.digest()?)
    }

    /// Writes block 0, which ends the work.
    pub(super) fn finish(mut self, first: &[u8]) -> Result<(), ErofsError> {
        self.flush()?;
        let mut buffer = self.sink.buffer()?;
        buffer[..first.len()].copy_from_slice(first);
        Ok(self.sink.write(0, buffer, first.len())?)
    }
}
