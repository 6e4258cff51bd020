//! What is in front of a machine: the caller of a `run` in the foreground, or nobody.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use firebuild_sys::signal::SignalFd;

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
    /// What a signal means.
    pub(crate) meaning: SignalMeaning,
    /// The `run` that waits for the start of a detached instance.
    pub(crate) reporter: Option<Reporter>,
    pub(crate) notices: Notices<'a>,
}

/// What signals mean to an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalMeaning {
    /// They are the application's, as with `docker run`.
    Forwarded,
    /// They ask this process to end: the machine is stopped.
    Stop,
}
