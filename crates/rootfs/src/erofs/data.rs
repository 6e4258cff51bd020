//! Copying the content of regular files into the image, and finding what of it is zeros.
//!
//! A file is looked at in chunks. Below 64 MiB a chunk is a block; above, chunks are as large as keeps their list below
//! 64 KiB. A chunk of zeros is not stored, and then the file is stored by chunks; if there is none, its blocks lie one
//! after another, and the list of chunks is thrown away.

use std::io;

use super::error::{ErofsError, ErofsErrorKind};
use super::format::{BLOCK, BLOCK_SIZE, INODE, NULL_BLOCK};
use super::stream::Stream;
use crate::tree::{Content, Contents, Extent, Opened};

/// Most chunks of a file.
const MAX_CHUNKS: u64 = 16_384;
/// Bytes that are read at once.
const WINDOW: usize = 256 << 10;

/// Where the content of a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// In blocks from this one on. `tail` bytes more lie behind the inode.
    Flat { start: u32, tail: usize },
    /// In chunks of `1 << bits` blocks; [`NULL_BLOCK`] for those that are not stored.
    Chunks { bits: u16, blocks: Vec<u32> },
}

/// Whether so many bytes can lie behind an inode with so many bytes of attributes.
pub(super) fn fits_behind(xattrs: usize, tail: usize) -> bool {
    tail > 0 && INODE + xattrs + tail <= BLOCK
}

/// Copies a file. With `xattrs` bytes of attributes, the end of the file may have to go into a block.
pub(super) fn copy(
    stream: &mut Stream,
    content: &Content,
    contents: &dyn Contents,
    xattrs: usize,
    window: &mut Vec<u8>,
) -> Result<Body, ErofsError> {
    let tail = usize::try_from(content.size % BLOCK_SIZE).unwrap_or(0);
    if content.size == 0 || (content.size < BLOCK_SIZE && fits_behind(xattrs, tail)) {
        return Ok(Body::Flat { start: 0, tail });
    }
    let (opened, sparse) = open(content, contents)?;
    let bits = chunk_bits(content.size);
    let mut file = File {
        stream,
        chunk: BLOCK_SIZE << bits,
        pending: 0,
        chunk_start: None,
        blocks: Vec::new(),
    };
    let holes = if sparse {
        opened
            .extents(content.size)
            .map_err(ErofsError::unreadable)?
    } else {
        vec![Extent {
            position: 0,
            len: content.size,
        }]
    };
    let mut parts = holes.into_iter().peekable();
    let inline = bits == 0 && fits_behind(xattrs, tail);
    let end = content.size - if inline { tail as u64 } else { 0 };
    window.resize(WINDOW, 0);
    let mut position = 0;
    while position < end {
        contents.check().map_err(ErofsError::unreadable)?;
        while parts.next_if(|p| p.position + p.len <= position).is_some() {}
        let data_from = parts.peek().map_or(content.size, |p| p.position);
        let chunk_end = (position + 1).next_multiple_of(file.chunk).min(end);
        if position % file.chunk == 0 && data_from >= chunk_end {
            file.blocks.push(NULL_BLOCK);
            position = chunk_end;
            continue;
        }
        let len = usize::try_from(end - position)
            .unwrap_or(WINDOW)
            .min(WINDOW);
        read(&opened, &mut window[..len], position, content.size)?;
        let mut at = 0;
        while at < len {
            let to = (at + BLOCK).min(len);
            file.block(&window[at..to])?;
            position += (to - at) as u64;
            at = to;
            if position % file.chunk == 0 || position == end {
                file.end_chunk()?;
            }
        }
    }
    let blocks = file.blocks;
    if blocks.contains(&NULL_BLOCK) {
        let mut blocks = blocks;
        if inline {
            // With chunks nothing lies behind the inode: the end of the file is one more.
            blocks.push(stream.block()?);
            let mut last = vec![0; tail];
            read(&opened, &mut last, end, content.size)?;
            stream.append(&last)?;
            stream.align()?;
        }
        return Ok(Body::Chunks { bits, blocks });
    }
    Ok(Body::Flat {
        start: blocks.first().copied().unwrap_or(0),
        tail: if inline { tail } else { 0 },
    })
}

/// The end of a file that lies behind its inode.
pub(super) fn tail(
    content: &Content,
    contents: &dyn Contents,
    tail: usize,
) -> Result<Vec<u8>, ErofsError> {
    let mut bytes = vec![0; tail];
    if tail > 0 {
        contents.check().map_err(ErofsError::unreadable)?;
        let (opened, _) = open(content, contents)?;
        read(
            &opened,
            &mut bytes,
            content.size - tail as u64,
            content.size,
        )?;
    }
    Ok(bytes)
}

/// The logarithm of the blocks in a chunk, for a file of this size.
fn chunk_bits(size: u64) -> u16 {
    let mut bits = 0;
    while size.div_ceil(BLOCK_SIZE << bits) > MAX_CHUNKS {
        bits += 1;
    }
    bits
}

fn open(content: &Content, contents: &dyn Contents) -> Result<(Opened, bool), ErofsError> {
    let opened = contents.open(content).map_err(ErofsError::unreadable)?;
    match opened
        .check_length(content)
        .map_err(ErofsError::unreadable)?
    {
        Ok(sparse) => Ok((opened, sparse)),
        Err(actual) => Err(ErofsError::new(
            ErofsErrorKind::Content,
            format!(
                "the content has {actual} bytes, not {}: it has changed since it was listed",
                content.size
            ),
        )),
    }
}

fn read(opened: &Opened, buffer: &mut [u8], position: u64, size: u64) -> Result<(), ErofsError> {
    opened
        .read_exact_at(buffer, position)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ErofsError::new(
                ErofsErrorKind::Content,
                format!("the content ends before its {size} bytes"),
            ),
            _ => ErofsError::unreadable(error),
        })
}

/// A file on its way.
struct File<'a> {
    stream: &'a mut Stream,
    /// Bytes of a chunk.
    chunk: u64,
    /// Bytes of zeros at the beginning of this chunk that are not written (yet).
    pending: u64,
    /// Where this chunk begins, once something of it was written.
    chunk_start: Option<u32>,
    blocks: Vec<u32>,
}

impl File<'_> {
    /// The next block, the last one of a file perhaps shorter.
    fn block(&mut self, bytes: &[u8]) -> Result<(), ErofsError> {
        const ZEROS: [u8; BLOCK] = [0; BLOCK];
        if self.chunk_start.is_none() {
            if *bytes == ZEROS[..bytes.len()] {
                self.pending += BLOCK_SIZE;
                return Ok(());
            }
            self.chunk_start = Some(self.stream.block()?);
            self.stream.zeros(self.pending)?;
        }
        self.stream.append(bytes)?;
        self.stream.align()
    }

    fn end_chunk(&mut self) -> Result<(), ErofsError> {
        self.pending = 0;
        self.blocks
            .push(self.chunk_start.take().unwrap_or(NULL_BLOCK));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_chunks_are_short() {
        assert_eq!(chunk_bits(1), 0);
        assert_eq!(chunk_bits(64 << 20), 0);
        assert_eq!(chunk_bits((64 << 20) + 1), 1);
        assert_eq!(chunk_bits(5 << 30), 7);
        assert_eq!(chunk_bits(1 << 62), 36);
    }
}
