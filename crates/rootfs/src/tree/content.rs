//! Reading content, wherever it is, and finding its holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{SeekFrom, fstat, seek};
use rustix::io::Errno;

use super::{Content, Opened, Segment, Source};

/// A file smaller than this is not asked for its holes; reading them is faster.
const ASK_FOR_HOLES: u64 = 256 * 1024;

/// A range of a file that has data; what is between extents is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file it begins, in bytes.
    pub position: u64,
    /// How many bytes it has; never 0.
    pub len: u64,
}

impl Content {
    /// Bytes in memory.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self {
            size: bytes.len() as u64,
            source: Source::Bytes(bytes),
        }
    }

    /// The blob that holds the content, if a blob does.
    #[must_use]
    pub fn blob(&self) -> Option<[u8; 32]> {
        match self.source {
            Source::Blob { id, .. } | Source::SparseBlob { id, .. } => Some(id),
            Source::Path(_) | Source::Bytes(_) => None,
        }
    }

    /// The content, given its open blob. What is in memory needs no blob; what is a path is none: `None`.
    #[must_use]
    pub fn opened_in(&self, blob: &Arc<File>) -> Option<Opened> {
        match &self.source {
            Source::Blob { offset, .. } => Some(Opened::File {
                file: Arc::clone(blob),
                offset: *offset,
            }),
            Source::SparseBlob { segments, .. } => Some(Opened::Segments {
                file: Arc::clone(blob),
                segments: Arc::clone(segments),
            }),
            Source::Bytes(bytes) => Some(Opened::Bytes(Arc::clone(bytes))),
            Source::Path(_) => None,
        }
    }
}

impl Opened {
    /// Fills `buf` with the bytes from `position` of the content on.
    ///
    /// # Errors
    /// When reading fails or the content ends before; the latter is [`io::ErrorKind::UnexpectedEof`].
    pub fn read_exact_at(&self, buf: &mut [u8], position: u64) -> io::Result<()> {
        match self {
            Self::File { file, offset } => {
                let at = offset
                    .checked_add(position)
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                file.read_exact_at(buf, at)
            }
            Self::Bytes(bytes) => {
                let from = usize::try_from(position).unwrap_or(usize::MAX);
                let to = from.saturating_add(buf.len());
                let part = bytes.get(from..to).ok_or(io::ErrorKind::UnexpectedEof)?;
                buf.copy_from_slice(part);
                Ok(())
            }
            Self::Segments { file, segments } => read_segments(file, segments, buf, position),
        }
    }

    /// Compares with the length that was announced, as far as it can be known without reading: whether it is worth while
    /// to ask for holes, or else the length that the content has in truth.
    pub(crate) fn check_length(&self, content: &Content) -> io::Result<Result<bool, u64>> {
        Ok(match self {
            Self::Bytes(bytes) if bytes.len() as u64 != content.size => Err(bytes.len() as u64),
            Self::Bytes(_) => Ok(false),
            Self::Segments { .. } => Ok(true),
            Self::File { file, .. } => match content.source {
                Source::Path(_) => {
                    let meta = fstat(file.as_ref())?;
                    let size = u64::try_from(meta.st_size).unwrap_or(0);
                    let stored = u64::try_from(meta.st_blocks)
                        .unwrap_or(0)
                        .saturating_mul(512);
                    if size == content.size {
                        Ok(size >= ASK_FOR_HOLES && stored < size)
                    } else {
                        Err(size)
                    }
                }
                _ => Ok(content.size >= ASK_FOR_HOLES),
            },
        })
    }

    /// The ranges below `size` that have data, in order. A file system that knows no holes gives one range.
    ///
    /// The extents are a hint for speed and size: what lies between them reads as zeros.
    ///
    /// # Errors
    /// When seeking fails.
    pub fn extents(&self, size: u64) -> io::Result<Vec<Extent>> {
        if size == 0 {
            return Ok(Vec::new());
        }
        match self {
            Self::Bytes(_) => Ok(vec![Extent {
                position: 0,
                len: size,
            }]),
            Self::Segments { segments, .. } => Ok(segments
                .iter()
                .filter(|s| s.len > 0 && s.position < size)
                .map(|s| Extent {
                    position: s.position,
                    len: s.len.min(size - s.position),
                })
                .collect()),
            Self::File { file, offset } => file_extents(file, *offset, size),
        }
    }
}

/// Asks with `SEEK_DATA` and `SEEK_HOLE`. The position of a shared file moves; all reading here is by position.
fn file_extents(file: &File, offset: u64, size: u64) -> io::Result<Vec<Extent>> {
    // Below one page there is nothing to win.
    if size < 4096 {
        return Ok(vec![Extent {
            position: 0,
            len: size,
        }]);
    }
    let end = offset
        .checked_add(size)
        .ok_or(io::ErrorKind::InvalidInput)?;
    // A file with as many blocks as bytes has no holes. It matters: looking for the next hole from the middle of a large
    // blob goes over all that follows, for each file that is in it.
    let stat = fstat(file)?;
    if u64::try_from(stat.st_blocks)
        .unwrap_or(0)
        .saturating_mul(512)
        >= u64::try_from(stat.st_size).unwrap_or(0)
    {
        return Ok(vec![Extent {
            position: 0,
            len: size,
        }]);
    }
    let mut extents = Vec::new();
    let mut at = offset;
    while at < end {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.max(at),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(error) => return Err(error.into()),
        };
        if data >= end {
            break;
        }
        let hole = match seek(file, SeekFrom::Hole(data)) {
            Ok(hole) if hole > data => hole.min(end),
            Ok(_) | Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => end,
            Err(error) => return Err(error.into()),
        };
        extents.push(Extent {
            position: data - offset,
            len: hole - data,
        });
        at = hole;
    }
    Ok(extents)
}

fn read_segments(
    file: &File,
    segments: &[Segment],
    buf: &mut [u8],
    position: u64,
) -> io::Result<()> {
    buf.fill(0);
    let end = position
        .checked_add(buf.len() as u64)
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let first = segments.partition_point(|s| s.position.saturating_add(s.len) <= position);
    for segment in &segments[first..] {
        if segment.position >= end {
            break;
        }
        let from = segment.position.max(position);
        let to = segment.position.saturating_add(segment.len).min(end);
        let range = index(from - position)?..index(to - position)?;
        file.read_exact_at(
            &mut buf[range],
            segment.offset.saturating_add(from - segment.position),
        )?;
    }
    Ok(())
}

fn index(n: u64) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::ErrorKind::InvalidInput.into())
}
