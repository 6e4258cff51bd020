//! What an application printed, on disk: Docker's json-file format.
//!
//! One object per line: `{"log":"text\n","stream":"stdout","time":"2026-11-21T04:00:00.123456789Z"}`.
//! A line of the application is one record; one longer than 16 KiB, or one that the application has not
//! ended, is several, of which only the last `log` ends in a line feed (moby
//! `daemon/logger/jsonfilelog`, `daemon/logger/copier.go`). Bytes that are no UTF-8 become U+FFFD.
//!
//! A file grows to a limit, then it becomes `.1` and a new one begins: at most two limits of disk.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Bytes of a file before it is put aside.
const LIMIT: u64 = 32 << 20;
/// Longest text of one record, as in Docker.
const LONGEST: usize = 16 << 10;
/// Longest line of a file that is read: the longest text with every byte escaped, and the rest.
const LONGEST_LINE: u64 = 8 * LONGEST as u64;

/// Which output a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// The text; with its line feed unless it is a part.
    pub log: String,
    /// Where it was written to.
    pub stream: Stream,
    /// When it came.
    pub time: Timestamp,
}

/// Writes a log.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    limit: u64,
    file: BufWriter<File>,
    size: u64,
    /// Beginnings of lines that have not ended.
    open: [Vec<u8>; 2],
}

impl LogWriter {
    /// Opens a log, made 0600, continued where it exists.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, LIMIT)
    }

    fn with_limit(path: &Path, limit: u64) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            limit,
            file: BufWriter::new(file),
            size,
            open: [Vec::new(), Vec::new()],
        })
    }

    /// Takes what the application wrote, in pieces of any size. Whole lines are on their way to the disk
    /// when this returns.
    ///
    /// # Errors
    /// Those of `write(2)`; the log is to be given up then.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8]) -> io::Result<()> {
        let time = Timestamp::now();
        let slot = stream as usize;
        while !bytes.is_empty() {
            let room = LONGEST - self.open[slot].len();
            let line = bytes.iter().take(room).position(|&byte| byte == b'\n');
            let count = line.map_or(room.min(bytes.len()), |at| at + 1);
            let (piece, rest) = bytes.split_at(count);
            self.open[slot].extend_from_slice(piece);
            bytes = rest;
            if line.is_some() {
                self.record(stream, time, LONGEST)?;
            } else if self.open[slot].len() == LONGEST {
                // A character is not torn: what begins at the end waits for its rest.
                let whole = whole_characters(&self.open[slot]);
                self.record(stream, time, whole)?;
            }
        }
        self.file.flush()
    }

    /// Writes what has not ended in a line feed.
    ///
    /// # Errors
    /// As [`LogWriter::write`].
    pub fn finish(&mut self) -> io::Result<()> {
        let time = Timestamp::now();
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.open[stream as usize].is_empty() {
                self.record(stream, time, LONGEST)?;
            }
        }
        self.file.flush()
    }

    /// Writes the first `count` open bytes of a stream.
    fn record(&mut self, stream: Stream, time: Timestamp, count: usize) -> io::Result<()> {
        let open = &mut self.open[stream as usize];
        let rest = open.split_off(count.min(open.len()));
        let text = std::mem::replace(open, rest);
        let record = LogRecord {
            log: String::from_utf8_lossy(&text).into_owned(),
            stream,
            time,
        };
        let mut line = serde_json::to_vec(&record).map_err(io::Error::other)?;
        line.push(b'\n');
        if self.size > 0 && self.size + line.len() as u64 > self.limit {
            self.rotate()?;
        }
        self.size += line.len() as u64;
        self.file.write_all(&line)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        fs_err::rename(&self.path, older(&self.path))?;
        self.file = BufWriter::new(append(&self.path)?);
        self.size = 0;
        Ok(())
    }
}

/// Reads a log from its oldest record on, across the change of files, also while it grows.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// A line that was not whole yet.
    pending: Vec<u8>,
}

impl LogReader {
    /// Begins at the oldest record. A log that is not there yet is empty.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = match open_if_there(&older(path))? {
            Some(file) => Some(file),
            None => open_if_there(path)?,
        };
        Ok(Self {
            path: path.to_owned(),
            file: file.map(BufReader::new),
            pending: Vec::new(),
        })
    }

    /// The next record; `None` when there is none yet. Lines that are no records are skipped: a power cut
    /// may leave half of one.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub fn next_record(&mut self) -> io::Result<Option<LogRecord>> {
        loop {
            let Some(file) = &mut self.file else {
                self.file = open_if_there(&self.path)?.map(BufReader::new);
                if self.file.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let room = LONGEST_LINE
                .saturating_sub(self.pending.len() as u64)
                .max(1);
            let count = io::Read::take(&mut *file, room).read_until(b'\n', &mut self.pending)?;
            if count == 0 {
                if !self.follow_rotation()? {
                    return Ok(None);
                }
                continue;
            }
            let whole = self.pending.ends_with(b"\n");
            if !whole && (self.pending.len() as u64) < LONGEST_LINE {
                continue;
            }
            let line = std::mem::take(&mut self.pending);
            if let Ok(record) = serde_json::from_slice(&line) {
                return Ok(Some(record));
            }
        }
    }

    /// At the end of a file that is no longer the youngest, goes on to the youngest.
    fn follow_rotation(&mut self) -> io::Result<bool> {
        let identity = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
        let Some(file) = &self.file else {
            return Ok(false);
        };
        let here = identity(&file.get_ref().metadata()?);
        let Some(youngest) = open_if_there(&self.path)? else {
            return Ok(false);
        };
        if identity(&youngest.metadata()?) == here {
            return Ok(false);
        }
        self.pending.clear();
        self.file = Some(BufReader::new(youngest));
        Ok(true)
    }
}

/// The last `count` lines of what a reader has, as records.
///
/// # Errors
/// Those of `read(2)`.
pub fn tail(reader: &mut LogReader, count: usize) -> io::Result<Vec<LogRecord>> {
    let mut kept: VecDeque<LogRecord> = VecDeque::new();
    let mut lines = 0_usize;
    while let Some(record) = reader.next_record()? {
        lines += usize::from(record.log.ends_with('\n'));
        kept.push_back(record);
        while lines > count {
            if let Some(gone) = kept.pop_front() {
                lines -= usize::from(gone.log.ends_with('\n'));
            }
        }
    }
    Ok(if count == 0 { Vec::new() } else { kept.into() })
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

fn append(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match fs_err::File::open(path) {
        Ok(file) => Ok(Some(file.into_file())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many bytes of `bytes` end with a whole character. At most three are left out.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(&bytes[bytes.len().saturating_sub(3)..]) {
        // A sequence that breaks off has no length; one that is wrong has.
        Err(error) if error.error_len().is_none() => {
            bytes.len().saturating_sub(3) + error.valid_up_to()
        }
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, LogReader, LogWriter, Stream, tail};

    fn all(reader: &mut LogReader) -> Vec<(Stream, String)> {
        std::iter::from_fn(|| reader.next_record().unwrap())
            .map(|record| (record.stream, record.log))
            .collect()
    }

    #[test]
    fn lines_are_records_and_streams_are_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = LogWriter::open(&path).unwrap();
        writer.write(Stream::Stdout, b"one\ntw").unwrap();
        writer.write(Stream::Stderr, b"err\xff\n").unwrap();
        writer.write(Stream::Stdout, b"o\nlast").unwrap();
        writer.finish().unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        assert_eq!(
            all(&mut reader),
            [
                (Stream::Stdout, "one\n".to_owned()),
                (Stream::Stderr, "err\u{fffd}\n".to_owned()),
                (Stream::Stdout, "two\n".to_owned()),
                (Stream::Stdout, "last".to_owned()),
            ]
        );
        let text = fs_err::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        assert!(
            first.starts_with(r#"{"log":"one\n","stream":"stdout","time":"20"#)
                && first.ends_with("Z\"}"),
            "{first}"
        );
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = LogWriter::open(&path).unwrap();
        let text = format!("x{}\n", "ä".repeat(LONGEST));
        for piece in text.as_bytes().chunks(1000) {
            writer.write(Stream::Stdout, piece).unwrap();
        }
        writer.finish().unwrap();
        let records = all(&mut LogReader::open(&path).unwrap());
        assert_eq!(records.len(), 3);
        assert!(records.iter().all(|(_, log)| log.len() <= LONGEST));
        let joined: String = records.into_iter().map(|(_, log)| log).collect();
        assert!(joined == text, "nothing is lost or torn");
    }

    #[test]
    fn the_disk_is_bounded_and_a_reader_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = LogWriter::with_limit(&path, 1000).unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        assert_eq!(reader.next_record().unwrap(), None);
        let mut seen = Vec::new();
        for number in 0..100 {
            writer
                .write(Stream::Stdout, format!("{number}\n").as_bytes())
                .unwrap();
            seen.extend(all(&mut reader));
        }
        assert_eq!(seen.len(), 100, "the reader missed nothing");
        let size: u64 = fs_err::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(size <= 2000, "{size}");
        let late = all(&mut LogReader::open(&path).unwrap());
        assert_eq!(late.last().unwrap().1, "99\n");
        assert!(late.len() > 10 && late.len() < 100);
    }

    #[test]
    fn tails_count_lines_and_half_records_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = LogWriter::open(&path).unwrap();
        writer.write(Stream::Stdout, b"a\nb\nc\nopen").unwrap();
        writer.finish().unwrap();
        drop(writer);
        let mut text = fs_err::read(&path).unwrap();
        text.extend_from_slice(b"{\"log\":\"half");
        fs_err::write(&path, text).unwrap();
        let logs = |count| -> Vec<String> {
            tail(&mut LogReader::open(&path).unwrap(), count)
                .unwrap()
                .into_iter()
                .map(|record| record.log)
                .collect()
        };
        assert_eq!(logs(2), ["b\n", "c\n", "open"]);
        assert_eq!(logs(0), [""; 0]);
        assert_eq!(logs(9).len(), 4);
    }
}
