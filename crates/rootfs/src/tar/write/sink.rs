//! The byte end of the writer: one buffer, written and handed over to be hashed when it is full.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::hasher::{Hasher, PIECE, ZEROS};
use super::{Output, TarError};
use crate::tree::{Extent, Opened};

const BUFFER: usize = 1 << 20;

enum Target<'a> {
    File(&'a File),
    Stream(&'a mut dyn Write),
}

pub(super) struct Sink<'a> {
    target: Target<'a>,
    buffer: Box<[u8]>,
    used: usize,
    /// Where the buffer will be written.
    flushed: u64,
    hash: Hasher,
}

impl<'a> Sink<'a> {
    pub(super) fn new(output: Output<'a>, digest: bool) -> io::Result<Self> {
        let target = match output {
            Output::File(file) => {
                crate::sink::empty(file)?;
                Target::File(file)
            }
            Output::Stream(stream) => Target::Stream(stream),
        };
        Ok(Self {
            target,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            used: 0,
            flushed: 0,
            hash: if digest {
                Hasher::new()
            } else {
                Hasher::Nobody
            },
        })
    }

    pub(super) fn position(&self) -> u64 {
        self.flushed + self.used as u64
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = bytes.len().min(self.buffer.len() - self.used);
            self.buffer[self.used..self.used + n].copy_from_slice(&bytes[..n]);
            self.used += n;
            bytes = &bytes[n..];
            if self.used == self.buffer.len() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Reads an extent of content straight into the buffer.
    pub(super) fn copy(
        &mut self,
        from: &Opened,
        extent: Extent,
        unreadable: impl Fn(io::Error) -> TarError,
        unwritable: impl Fn(io::Error) -> TarError,
    ) -> Result<(), TarError> {
        let (mut at, end) = (extent.position, extent.position + extent.len);
        while at < end {
            let room = &mut self.buffer[self.used..];
            let n = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(room.len());
            from.read_exact_at(&mut room[..n], at)
                .map_err(&unreadable)?;
            self.used += n;
            at += n as u64;
            if self.used == self.buffer.len() {
                self.flush().map_err(&unwritable)?;
            }
        }
        Ok(())
    }

    pub(super) fn zeros(&mut self, count: u64) -> io::Result<()> {
        if count <= PIECE as u64 {
            return self.write(&ZEROS[..usize::try_from(count).unwrap_or(PIECE)]);
        }
        self.flush()?;
        self.hash.zeros(count)?;
        if let Target::Stream(stream) = &mut self.target {
            let mut left = count;
            while left > 0 {
                let n = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                stream.write_all(&ZEROS[..n])?;
                left -= n as u64;
            }
        }
        self.flushed += count;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = &self.buffer[..self.used];
        match &mut self.target {
            Target::Stream(stream) => stream.write_all(bytes)?,
            Target::File(file) => write_sparse(file, bytes, self.flushed)?,
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = self.hash.bytes(buffer, self.used)?;
        self.flushed += self.used as u64;
        self.used = 0;
        Ok(())
    }

    /// The digest and the size.
    pub(super) fn finish(mut self) -> io::Result<([u8; 32], u64)> {
        self.flush()?;
        match &mut self.target {
            Target::File(file) => file.set_len(self.flushed)?,
            Target::Stream(stream) => stream.flush()?,
        }
        Ok((self.hash.finish()?, self.flushed))
    }
}

/// Writes all but the pieces that are zeros.
fn write_sparse(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut start = 0;
    let mut at = 0;
    while at < bytes.len() {
        let piece = &bytes[at..bytes.len().min(at + PIECE)];
        let next = at + piece.len();
        if piece.len() == PIECE && piece == ZEROS.as_slice() {
            file.write_all_at(&bytes[start..at], offset + start as u64)?;
            start = next;
        }
        at = next;
    }
    file.write_all_at(&bytes[start..], offset + start as u64)
}
