//! The serial console of a guest: recorded up to a limit, its last lines kept for error reports.
//!
//! The console is the kernel's and the guest init's; what the application writes comes over the channel.

use fs_err::os::unix::fs::OpenOptionsExt;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::io::Errno;

use crate::hardware::TokenBucket;
use crate::spec::ConsoleLog;
use crate::tail::Tail;

/// Bytes kept in memory for error reports.
const TAIL_BYTES: usize = 16 * 1024;
/// Most bytes read in one go, so that a chatty guest cannot keep its owner from anything else.
const READ_BYTES: usize = 64 * 1024;

/// What a VMM may write of metrics: a line has some ten kilobytes, and there is one a minute.
const METRICS: TokenBucket = TokenBucket {
    size: 8 << 20,
    refill_time: 3_600_000,
    one_time_burst: None,
};

/// The host's end of a serial console.
#[derive(Debug)]
pub struct Console {
    fd: Option<OwnedFd>,
    log: Option<fs::File>,
    room: u64,
    limit: Option<Bucket>,
    dropped: u64,
    tail: Tail,
    log_error: Option<io::Error>,
}

impl Console {
    /// Takes the host's end and opens the log (made 0600, continued where it exists). Of what exceeds `limit` nothing is
    /// recorded.
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub fn open(fd: OwnedFd, log: &ConsoleLog, limit: Option<TokenBucket>) -> io::Result<Self> {
        let (file, used) = match &log.path {
            None => (None, 0),
            Some(path) => {
                let file = append(path)?;
                let used = file.metadata()?.len();
                (Some(file), used)
            }
        };
        let room = log.max_bytes.saturating_sub(used);
        let limit = limit.map(|bucket| Bucket::new(bucket, Instant::now()));
        Self::new(fd, file, room, limit)
    }

    /// Takes the host's end of a VMM's metrics and opens the file to which they are added (made 0600). A VMM that writes more
    /// than any does loses what exceeds 8 MiB an hour.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn of_metrics(fd: OwnedFd, path: &Path) -> io::Result<Self> {
        let limit = Bucket::new(METRICS, Instant::now());
        Self::new(fd, Some(append(path)?), u64::MAX, Some(limit))
    }

    fn new(
        fd: OwnedFd,
        log: Option<fs::File>,
        room: u64,
        limit: Option<Bucket>,
    ) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self {
            fd: Some(fd),
            log,
            room,
            limit,
            dropped: 0,
            tail: Tail::new(TAIL_BYTES),
            log_error: None,
        })
    }

    /// What to poll for input; `None` after the end.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is there and records it; `false` when the guest's end is closed. Never blocks.
    pub fn pump(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let mut read = 0;
        while let Some(fd) = &self.fd
            && read < READ_BYTES
        {
            match rustix::io::read(fd, &mut buffer) {
                Ok(0) => self.fd = None,
                Ok(count) => {
                    read += count;
                    self.record(&buffer[..count]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.fd = None,
            }
        }
        self.fd.is_some()
    }

    fn record(&mut self, all: &[u8]) {
        let passed = match &mut self.limit {
            Some(limit) => limit.take(all.len(), Instant::now()),
            None => all.len(),
        };
        let (bytes, over) = all.split_at(passed);
        self.dropped += over.len() as u64;
        self.tail.push(bytes);
        let fits = usize::try_from(self.room)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        self.dropped += (bytes.len() - fits) as u64;
        self.room -= fits as u64;
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.write_all(&bytes[..fits]) {
            // A full disk must not end the machine; the error is told at its end.
            self.log = None;
            self.log_error = Some(error);
        }
    }

    /// The last lines, at most `count`, as plain text.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        self.tail.lines(count)
    }

    /// Bytes that the log had no room for, or that came faster than they may.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Why the log ended early, if it did.
    pub fn take_log_error(&mut self) -> Option<io::Error> {
        self.log_error.take()
    }
}

fn append(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        // A named pipe that nobody reads must keep nobody waiting.
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
}

/// A token bucket whose tokens are bytes.
#[derive(Debug)]
struct Bucket {
    size: u64,
    refill: Duration,
    /// What it holds beyond its size, once.
    burst: u64,
    tokens: u64,
    filled: Instant,
}

impl Bucket {
    fn new(bucket: TokenBucket, now: Instant) -> Self {
        Self {
            size: bucket.size,
            refill: Duration::from_millis(bucket.refill_time.max(1)),
            burst: bucket.one_time_burst.unwrap_or(0),
            tokens: bucket.size,
            filled: now,
        }
    }

    /// How many of `wanted` may pass now.
    fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let wanted = wanted as u64;
        let of_burst = wanted.min(self.burst);
        self.burst -= of_burst;
        let since = now.saturating_duration_since(self.filled);
        let fresh = u128::from(self.size) * since.as_nanos() / self.refill.as_nanos();
        // What is less than a token goes on growing.
        if fresh > 0 {
            let fresh = u64::try_from(fresh).unwrap_or(u64::MAX);
            self.tokens = self.tokens.saturating_add(fresh).min(self.size);
            self.filled = now;
        }
        let of_tokens = (wanted - of_burst).min(self.tokens);
        self.tokens -= of_tokens;
        usize::try_from(of_burst + of_tokens).expect("no more than was wanted")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::{Bucket, Console};
    use crate::hardware::TokenBucket;
    use crate::spec::ConsoleLog;

    #[test]
    fn a_bucket_lets_its_burst_and_its_size_pass_and_fills_by_time() {
        let begin = Instant::now();
        let later = |ms| begin + Duration::from_millis(ms);
        let limit = TokenBucket {
            size: 10,
            refill_time: 1000,
            one_time_burst: Some(3),
        };
        let mut bucket = Bucket::new(limit, begin);
        assert_eq!(bucket.take(2, begin), 2);
        assert_eq!(bucket.take(20, begin), 11, "the rest of the burst, and all");
        assert_eq!(bucket.take(1, later(99)), 0);
        assert_eq!(bucket.take(5, later(200)), 2);
        assert_eq!(bucket.take(50, later(60_000)), 10, "no more than its size");
        // The clock that goes back fills nothing.
        assert_eq!(bucket.take(1, begin), 0);
    }

    #[test]
    fn what_comes_too_fast_is_dropped_and_counted() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let limit = TokenBucket {
            size: 4,
            refill_time: 3_600_000,
            one_time_burst: None,
        };
        let log = ConsoleLog {
            path: None,
            max_bytes: 100,
        };
        let mut console = Console::open(OwnedFd::from(host), &log, Some(limit)).unwrap();
        guest.write_all(b"one\ntwo\n").unwrap();
        assert!(console.pump());
        assert_eq!(console.last_lines(9), ["one"]);
        assert_eq!(console.dropped(), 4);
    }

    #[test]
    fn metrics_are_added_to_a_file_and_a_pipe_without_a_reader_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics");
        fs_err::write(&path, "before\n").unwrap();
        let (host, mut vmm) = UnixStream::pair().unwrap();
        let mut metrics = Console::of_metrics(OwnedFd::from(host), &path).unwrap();
        vmm.write_all(b"{}\n").unwrap();
        drop(vmm);
        assert!(!metrics.pump());
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "before\n{}\n");
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let (host, _vmm) = UnixStream::pair().unwrap();
        Console::of_metrics(OwnedFd::from(host), &pipe).unwrap_err();
    }

    #[test]
    fn the_log_has_a_limit_and_the_tail_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let (host, mut guest) = UnixStream::pair().unwrap();
        let mut console = Console::open(
            OwnedFd::from(host),
            &ConsoleLog {
                path: Some(path.clone()),
                max_bytes: 6,
            },
            None,
        )
        .unwrap();
        guest.write_all(b"one\ntwo\nthree\n").unwrap();
        assert!(console.pump());
        drop(guest);
        assert!(!console.pump());
        assert!(console.fd().is_none());
        assert_eq!(fs_err::read(&path).unwrap(), b"one\ntw");
        assert_eq!(
            fs_err::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(console.dropped(), 8);
        assert_eq!(console.last_lines(2), ["two", "three"]);
    }
}
