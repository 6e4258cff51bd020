//! A session whose output is read by this program, as from a pipe: `cp`, `stats`, `top`.
//!
//! A thread carries the streams; what is not read fills the pipe and holds up the guest. When the value is dropped the
//! pipe breaks, the thread ends, and with its connection the work in the guest.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use firebuild_guest_proto::{ExitStatus, SessionWork};
use rustix::pipe::{PipeFlags, pipe_with};

use super::carry::{Carried, Carry};
use super::connect::{connect, order};
use super::exec::broken;
use crate::instance::{Instance, InstanceError};
use crate::monitor::Output;
use crate::monitor::control::Request;

/// Most of a guest's words about a failure that are kept.
const MOST_WORDS: u64 = 8 << 10;

/// The reading end.
#[derive(Debug)]
pub(super) struct Quiet {
    stdout: Option<File>,
    thread: Option<JoinHandle<Result<Carried, String>>>,
    words: Option<JoinHandle<Vec<u8>>>,
}

impl Quiet {
    /// Begins a session that has no input. Without a first sign of life within `patience` it ends.
    pub(super) fn begin(
        instance: &Instance,
        work: &SessionWork,
        patience: Option<Duration>,
    ) -> Result<Self, InstanceError> {
        Self::with_input(instance, work, None, patience)
    }

    /// Begins a session that reads `stdin` after its work.
    pub(super) fn with_input(
        instance: &Instance,
        work: &SessionWork,
        stdin: Option<OwnedFd>,
        patience: Option<Duration>,
    ) -> Result<Self, InstanceError> {
        let prefix = order(work)?;
        let agent = connect(instance, &Request::Session)?;
        let broken = |error: io::Error| broken(instance, error);
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| broken(error.into()));
        let (stdout, stdout_end) = pipe()?;
        let (stderr, stderr_end) = pipe()?;
        let carry = Carry {
            agent,
            prefix,
            stdin,
            stdout: Output::new(stdout_end).map_err(broken)?,
            stderr: Output::new(stderr_end).map_err(broken)?,
            signals: None,
            terminal: None,
            keys: None,
            lets_go: false,
            proxy: false,
            deadline: patience.and_then(|patience| Instant::now().checked_add(patience)),
        };
        let thread = std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || carry.run().map_err(|error| chain(&error)))
            .map_err(broken)?;
        let words = std::thread::Builder::new()
            .name("words".to_owned())
            .spawn(move || words(File::from(stderr)))
            .map_err(broken)?;
        Ok(Self {
            stdout: Some(File::from(stdout)),
            thread: Some(thread),
            words: Some(words),
        })
    }

    /// Waits for the end, and says why it was not a good one.
    pub(super) fn problem(&mut self) -> Option<String> {
        // What has not been read is not wanted.
        self.stdout = None;
        let words = self.words.take().and_then(|words| words.join().ok());
        let words = String::from_utf8_lossy(&words.unwrap_or_default())
            .trim()
            .to_owned();
        let said = |otherwise: &str| {
            Some(if words.is_empty() {
                otherwise.to_owned()
            } else {
                firebuild_guest_proto::message::one_line(&words)
            })
        };
        match self.thread.take()?.join() {
            Ok(Ok(Carried::Exited(record))) => match record.status {
                ExitStatus::Exited { code: 0 } => None,
                ExitStatus::Exited { .. } => said("it failed and did not say why"),
                ExitStatus::Signaled { signal, .. } => said(&format!("it was ended by {signal}")),
                ExitStatus::Failed { message, .. } => {
                    Some(firebuild_guest_proto::message::one_line(&message))
                }
            },
            Ok(Ok(Carried::Late)) => {
                Some("the guest does not answer; is the VM paused?".to_owned())
            }
            Ok(Ok(_)) => said("the connection was closed; has the VM ended?"),
            Ok(Err(problem)) => Some(problem),
            Err(_) => Some("the thread that carried it died".to_owned()),
        }
    }
}

impl Read for Quiet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stdout {
            Some(stdout) => stdout.read(buffer),
            None => Ok(0),
        }
    }
}

/// Reads all, keeps the beginning.
fn words(mut stderr: File) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = (&mut stderr).take(MOST_WORDS).read_to_end(&mut kept);
    let _ = io::copy(&mut stderr, &mut io::sink());
    kept
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
