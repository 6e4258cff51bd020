//! What is in front of a machine: the caller of a `run` in the foreground, or nobody.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use firebuild_sys::signal::SignalFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::event_loop::WINCH;
use super::output::Output;
use super::report::Reporter;
use super::terminal::RawMode;

/// Standard streams of the caller.
#[derive(Debug)]
pub struct Stdio {
    /// Where the application's input comes from; none for an application without any.
    pub stdin: Option<OwnedFd>,
    /// Where its output goes.
    pub stdout: OwnedFd,
    /// Where its errors go.
    pub stderr: OwnedFd,
}

impl Stdio {
    /// The streams of this process.
    ///
    /// # Errors
    /// When one of them is closed.
    pub fn of_process(with_stdin: bool) -> io::Result<Self> {
        let stdin = with_stdin.then(|| io::stdin().as_fd().try_clone_to_owned());
        Ok(Self {
            stdin: stdin.transpose()?,
            stdout: io::stdout().as_fd().try_clone_to_owned()?,
            stderr: io::stderr().as_fd().try_clone_to_owned()?,
        })
    }
}

/// Something that people in front of a run should see.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Something to know once: a choice that costs something.
    Note(String),
    /// What the guest init has to tell.
    Guest(String),
}

/// Where notices go.
pub type Notices<'a> = &'a mut dyn FnMut(Notice);

/// The parts of the front that the loop handles.
pub(crate) struct Front<'a> {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<Output>,
    pub(crate) stderr: Option<Output>,
    /// The terminal in raw mode, while it is.
    pub(crate) raw: Option<RawMode>,
    /// A terminal whose size the application follows.
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) signals: SignalFd,
    /// The window changed its size while nobody could be told.
    pub(crate) resized: bool,
    /// What a signal means.
    pub(crate) meaning: SignalMeaning,
    /// The `run` that waits for the start of a detached instance.
    pub(crate) reporter: Option<Reporter>,
    pub(crate) notices: Notices<'a>,
}

impl Front<'_> {
    /// What ends the start of a machine before there is one: the number of a signal, or of `SIGPIPE` when the `run` that
    /// waits for a detached one has gone.
    pub(crate) fn interrupted(&mut self) -> Option<u8> {
        while let Ok(Some(received)) = self.signals.read() {
            if received.number == WINCH {
                self.resized = true;
            } else {
                return u8::try_from(received.number).ok();
            }
        }
        let reporter = self.reporter.as_ref()?;
        let mut pipe = [PollFd::from_borrowed_fd(
            reporter.as_fd(),
            PollFlags::empty(),
        )];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let _ = poll(&mut pipe, Some(&now));
        pipe[0]
            .revents()
            .contains(PollFlags::ERR)
            .then_some(SIGPIPE)
    }
}

/// `signal(7)`.
const SIGPIPE: u8 = 13;

/// What signals mean to an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalMeaning {
    /// They are the application's, as with `docker run`.
    Forwarded,
    /// They ask this process to end: the machine is stopped.
    Stop,
}
