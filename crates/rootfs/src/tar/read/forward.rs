//! Reading an archive that comes through a pipe: entry by entry, the data of each with it, nothing kept.

use std::io::{self, Read, Seek, SeekFrom};

use super::stream::Archive;
use super::{Failure, ReadOptions};
use crate::layer::{Change, Entry};
use crate::tar::{TarError, TarErrorKind};
use crate::tree::{Content, Kind, Segment, Source};

/// How much of a file is handed on at once, in bytes.
const PIECE: usize = 64 << 10;

/// Reads the entries of an uncompressed archive in their order, each with its data. The archive ends with two blocks of
/// zeros; what comes after is left unread. `Source`s of entries mean nothing here.
///
/// # Errors
/// As [`read_layer`](super::read_layer), and what `visit` gives.
pub fn read_entries<R: Read, E: From<TarError>>(
    reader: R,
    options: &ReadOptions,
    visit: &mut dyn FnMut(Entry, &mut EntryData<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut archive = Archive::new(
        Forward {
            reader,
            position: 0,
        },
        options.limits,
    )?;
    let mut count = 0;
    while let Some(raw) = archive.next()? {
        count += 1;
        if count > options.limits.entries {
            return Err(TarError::new(TarErrorKind::TooManyEntries, raw.start).into());
        }
        let (start, name) = (raw.start, raw.path.clone());
        let named = |failure: Failure| failure.into_error(start).named(&name);
        let (entry, end) = archive
            .entry(raw, [0; 32], options.whiteouts)
            .map_err(named)?;
        if let Some(entry) = entry {
            let segments = segments(&entry);
            let mut source = |segment: &Segment, buffer: &mut [u8], done: u64| {
                archive.go_to(segment.offset + done)?;
                archive.read(buffer)
            };
            let mut data = EntryData {
                segments,
                source: &mut source,
            };
            visit(entry, &mut data)?;
        }
        archive.go_to(end)?;
    }
    Ok(())
}

/// Fills a buffer from a segment of the archive, this many bytes into it.
type Fill<'a> = &'a mut dyn FnMut(&Segment, &mut [u8], u64) -> Result<(), TarError>;

/// Takes a piece of a file, with its position in it.
pub type Take<'a, E> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), E>;

/// The data of an entry.
pub struct EntryData<'a> {
    segments: Vec<Segment>,
    source: Fill<'a>,
}

impl std::fmt::Debug for EntryData<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntryData")
            .field("segments", &self.segments.len())
            .finish_non_exhaustive()
    }
}

impl EntryData<'_> {
    /// Gives the data piece by piece with its position in the file; what lies between is a hole. Once.
    ///
    /// # Errors
    /// An archive that is cut off, and what `take` gives.
    pub fn read<E: From<TarError>>(&mut self, take: Take<'_, E>) -> Result<(), E> {
        let mut buffer = vec![0; PIECE];
        for segment in std::mem::take(&mut self.segments) {
            let mut done = 0;
            while done < segment.len {
                let left = usize::try_from(segment.len - done).unwrap_or(PIECE);
                let piece = &mut buffer[..left.min(PIECE)];
                (self.source)(&segment, piece, done)?;
                take(segment.position + done, piece)?;
                done += piece.len() as u64;
            }
        }
        Ok(())
    }
}

fn segments(entry: &Entry) -> Vec<Segment> {
    let Change::Node(inode) = &entry.change else {
        return Vec::new();
    };
    match &inode.kind {
        Kind::File(Content {
            source: Source::Blob { offset, .. },
            size,
        }) => vec![Segment {
            position: 0,
            offset: *offset,
            len: *size,
        }],
        Kind::File(Content {
            source: Source::SparseBlob { segments, .. },
            ..
        }) => segments.to_vec(),
        _ => Vec::new(),
    }
}

/// A reader that only goes forward. It does not know its length: an archive that ends too soon is cut off.
struct Forward<R> {
    reader: R,
    position: u64,
}

impl<R: Read> Read for Forward<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Read> Seek for Forward<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::End(_) => return Ok(u64::MAX),
            SeekFrom::Start(target) => target,
            SeekFrom::Current(count) => self.position.saturating_add_signed(count),
        };
        let Some(skip) = target.checked_sub(self.position) else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a pipe does not go back",
            ));
        };
        let skipped = io::copy(&mut self.take(skip), &mut io::sink())?;
        if skipped < skip {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use super::read_entries;
    use crate::layer::{Change, Entry};
    use crate::tar::{ReadOptions, TarError};

    /// Gives a byte or three at a time, as a pipe may.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = buffer.len().min(self.0.len()).min(4093);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    /// Names with their contents.
    type Files = Vec<(Vec<u8>, Vec<u8>)>;

    fn all(bytes: &[u8]) -> Result<Files, TarError> {
        let mut seen = Vec::new();
        read_entries(
            Slow(bytes),
            &ReadOptions::default(),
            &mut |entry: Entry, data| {
                let size = match &entry.change {
                    Change::Node(inode) => match &inode.kind {
                        crate::tree::Kind::File(content) => content.size,
                        _ => 0,
                    },
                    _ => 0,
                };
                let mut content = vec![0; usize::try_from(size).unwrap()];
                data.read(&mut |position, piece| -> Result<(), TarError> {
                    let at = usize::try_from(position).unwrap();
                    content[at..at + piece.len()].copy_from_slice(piece);
                    Ok(())
                })?;
                seen.push((entry.path, content));
                Ok::<_, TarError>(())
            },
        )?;
        Ok(seen)
    }

    #[test]
    fn a_pipe_gives_what_the_file_would() {
        let dir = tempfile::tempdir().unwrap();
        let big: Vec<u8> = (0..300_000_u32)
            .map(|n| u8::try_from(n % 251).unwrap())
            .collect();
        fs_err::write(dir.path().join("big"), &big).unwrap();
        fs_err::write(dir.path().join("empty"), "").unwrap();
        let mut sparse = vec![0; 1 << 20];
        sparse[700_000..700_003].copy_from_slice(b"end");
        let file = fs_err::File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(file.file(), b"end", 700_000).unwrap();
        for flags in [
            &["--format=gnu", "-S"][..],
            &["--format=pax", "-S"],
            &["--format=pax"],
        ] {
            let made = Command::new("tar")
                .args(flags)
                .args([
                    "-C",
                    dir.path().to_str().unwrap(),
                    "-cf",
                    "-",
                    "big",
                    "empty",
                    "sparse",
                ])
                .output()
                .unwrap();
            assert!(made.status.success());
            let seen = all(&made.stdout).unwrap();
            let names: Vec<&[u8]> = seen.iter().map(|(name, _)| name.as_slice()).collect();
            assert_eq!(names, [&b"big"[..], b"empty", b"sparse"]);
            assert!(seen[0].1 == big && seen[1].1.is_empty() && seen[2].1 == sparse);
            for cut in [100, 512, 700, 200_000] {
                assert!(all(&made.stdout[..cut]).is_err(), "cut at {cut}");
            }
        }
    }
}
