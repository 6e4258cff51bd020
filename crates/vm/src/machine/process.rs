//! A process of a machine: the VMM or a helper.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use firebuild_sys::pidfd;
use firebuild_sys::process::Exit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::backend::is_noise;
use crate::plan::Role;
use crate::tail::Tail;

/// Bytes of a process's output that are kept.
const LOG_BYTES: usize = 8 * 1024;
/// Lines of it that an error shows.
const LOG_LINES: usize = 8;

/// A child with its output.
#[derive(Debug)]
pub(crate) struct Process {
    pub(super) role: Role,
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) output: Option<OwnedFd>,
    pub(super) log: Tail,
    pub(super) exit: Option<Exit>,
    /// What kills it when this process dies ([`firebuild_sys::spawn::tether`]).
    _tether: Option<OwnedFd>,
}

impl Process {
    pub(crate) fn new(
        role: Role,
        pid: Pid,
        pidfd: OwnedFd,
        output: OwnedFd,
        tether: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&output)?;
        rustix::fs::fcntl_setfl(&output, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self {
            role,
            pid,
            pidfd,
            output: Some(output),
            log: Tail::new(LOG_BYTES),
            exit: None,
            _tether: tether,
        })
    }

    pub(super) fn pump(&mut self) {
        if self.exit.is_none() {
            // An error means that somebody else reaped it, which nobody does.
            self.exit = pidfd::try_wait(&self.pidfd).unwrap_or(Some(Exit::Signal(0)));
        }
        self.read_output();
    }

    pub(super) fn read_output(&mut self) {
        let mut buffer = [0; 2048];
        // Bounded, so that a process that writes without end cannot keep the owner here.
        for _ in 0..64 {
            let Some(output) = &self.output else { return };
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => self.output = None,
                Ok(count) => self.log.push(&buffer[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.output = None,
            }
        }
    }

    /// Its last lines, but for those that say nothing.
    pub(super) fn last_words(&self, backend: &str) -> Vec<String> {
        let mut lines = self.log.lines(usize::MAX);
        lines.retain(|line| !is_noise(backend, line));
        lines.split_off(lines.len().saturating_sub(LOG_LINES))
    }

    pub(super) fn kill(&self) -> io::Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        match pidfd::signal(&self.pidfd, Signal::KILL) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(()),
            result => result,
        }
    }

    /// Gives it until the deadline to end by itself, then kills it, and reaps it.
    pub(super) fn end_by(&mut self, deadline: Instant) -> io::Result<()> {
        self.pump();
        while self.exit.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.kill()?;
                self.exit = Some(pidfd::wait(&self.pidfd)?);
                break;
            }
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            fds.extend(
                self.output
                    .as_ref()
                    .map(|output| PollFd::new(output, PollFlags::IN)),
            );
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.pump();
        }
        self.read_output();
        Ok(())
    }
}
