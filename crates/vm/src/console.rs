//! The serial console of a guest: recorded up to a limit, its last lines kept for error reports.
//!
//! The console is the kernel's and the guest init's; what the application writes comes over the channel.

use fs_err::os::unix::fs::OpenOptionsExt;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fs_err as fs;
use rustix::io::Errno;

use crate::spec::ConsoleLog;
use crate::tail::Tail;

/// Bytes kept in memory for error reports.
const TAIL_BYTES: usize = 16 * 1024;
/// Most bytes read in one go, so that a chatty guest cannot keep its owner from anything else.
const READ_BYTES: usize = 64 * 1024;

/// The host's end of a serial console.
#[derive(Debug)]
pub struct Console {
    fd: Option<OwnedFd>,
    log: Option<fs::File>,
    room: u64,
    dropped: u64,
    tail: Tail,
    log_error: Option<io::Error>,
}

impl Console {
    /// Takes the host's end and opens the log (made 0600, continued where it exists).
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub fn open(fd: OwnedFd, log: &ConsoleLog) -> io::Result<Self> {
        let (file, used) = match &log.path {
            None => (None, 0),
            Some(path) => {
                let file = fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .open(path)?;
                let used = file.metadata()?.len();
                (Some(file), used)
            }
        };
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        let room = log.max_bytes.saturating_sub(used);
        Ok(Self {
            fd: Some(fd),
            log: file,
            room,
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

    fn record(&mut self, bytes: &[u8]) {
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

    /// Bytes that the log had no room for.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Why the log ended early, if it did.
    pub fn take_log_error(&mut self) -> Option<io::Error> {
        self.log_error.take()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::Console;
    use crate::spec::ConsoleLog;

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
