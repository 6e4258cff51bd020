//! Writing the content of one file, holes left out.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{copy_file_range, ftruncate};
use rustix::io::{Errno, pwrite};

use crate::tree::{Contents, Extent, Opened};

/// Files up to this size are copied through memory: asking for their holes costs more than copying them.
const SMALL: u64 = 64 << 10;
const BUFFER: usize = 256 << 10;
/// What the kernel copies at once: a stop waits for one of these at most.
const PIECE: usize = 64 << 20;

/// Which end failed.
pub(super) enum Failed {
    Read(io::Error),
    Write(io::Error),
}

/// A buffer that is kept between files.
pub(super) struct Filler {
    buffer: Box<[u8]>,
    /// Whether the kernel can copy between the two file systems.
    kernel_copies: bool,
}

impl Filler {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            kernel_copies: true,
        }
    }

    /// Fills an empty file with `size` bytes. `contents` may end it between two pieces.
    pub(super) fn fill(
        &mut self,
        to: &OwnedFd,
        from: &Opened,
        size: u64,
        contents: &dyn Contents,
    ) -> Result<(), Failed> {
        if size == 0 {
            return Ok(());
        }
        if size <= SMALL {
            return self.through_memory(
                to,
                from,
                Extent {
                    position: 0,
                    len: size,
                },
                contents,
            );
        }
        let extents = from.extents(size).map_err(Failed::Read)?;
        let end = extents.last().map_or(0, |e| e.position + e.len);
        for extent in extents {
            let done = self.in_kernel(to, from, extent, contents)?;
            if done < extent.len {
                let rest = Extent {
                    position: extent.position + done,
                    len: extent.len - done,
                };
                self.through_memory(to, from, rest, contents)?;
            }
        }
        if end < size {
            ftruncate(to, size).map_err(|e| Failed::Write(e.into()))?;
        }
        Ok(())
    }

    /// `copy_file_range(2)`, which shares blocks where the file system can. Tells how much it copied.
    fn in_kernel(
        &mut self,
        to: &OwnedFd,
        from: &Opened,
        extent: Extent,
        contents: &dyn Contents,
    ) -> Result<u64, Failed> {
        let Opened::File { file, offset } = from else {
            return Ok(0);
        };
        let mut done = 0;
        while self.kernel_copies && done < extent.len {
            contents.check().map_err(Failed::Read)?;
            let mut read = offset + extent.position + done;
            let mut write = extent.position + done;
            let want = usize::try_from(extent.len - done)
                .unwrap_or(usize::MAX)
                .min(PIECE);
            match copy_file_range(file.as_fd(), Some(&mut read), to, Some(&mut write), want) {
                // The end of the blob: reading will say so.
                Ok(0) => break,
                Ok(n) => done += n as u64,
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                    self.kernel_copies = false;
                }
                Err(error) => return Err(Failed::Write(error.into())),
            }
        }
        Ok(done)
    }

    fn through_memory(
        &mut self,
        to: &OwnedFd,
        from: &Opened,
        extent: Extent,
        contents: &dyn Contents,
    ) -> Result<(), Failed> {
        let (mut at, end) = (extent.position, extent.position + extent.len);
        while at < end {
            contents.check().map_err(Failed::Read)?;
            let n = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let part = &mut self.buffer[..n];
            from.read_exact_at(part, at).map_err(Failed::Read)?;
            let mut written = 0;
            while written < n {
                match pwrite(to, &part[written..], at + written as u64) {
                    Ok(0) => return Err(Failed::Write(io::ErrorKind::WriteZero.into())),
                    Ok(count) => written += count,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(Failed::Write(error.into())),
                }
            }
            at += n as u64;
        }
        Ok(())
    }
}
