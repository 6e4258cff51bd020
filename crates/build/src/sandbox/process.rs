//! A running inner half, seen from outside.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_sys::pidfd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};

use crate::cancel::Cancel;
use crate::event::Stream;
use crate::exec::{ExecError, ExecErrorKind};
use firebuild_sandbox::SUBCOMMAND;
use firebuild_sandbox::job::{Ask, Failure, FailureKind, Job, Reply, Scope, Start, Status};
use firebuild_sandbox::wire::{Frame, Link};

/// How long a job that was told to stop may clean up before it is killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of output that are handed on at once.
const CHUNK: usize = 64 << 10;

/// What the executor calls a failure.
fn exec_kind(failure: &Failure) -> ExecErrorKind {
    match failure.kind {
        _ if failure.no_space => ExecErrorKind::NoSpace,
        FailureKind::Step => ExecErrorKind::Step,
        FailureKind::Ids => ExecErrorKind::Ids,
        FailureKind::Host | FailureKind::NoOverlay => ExecErrorKind::Host,
        FailureKind::Base => ExecErrorKind::Base,
        FailureKind::Layer => ExecErrorKind::Layer,
        FailureKind::Cancelled => ExecErrorKind::Cancelled,
    }
}

/// A failure of the inner half as an error of the executor.
#[must_use]
pub fn error(failure: Failure, hint: Option<String>) -> ExecError {
    let kind = exec_kind(&failure);
    let mut messages = failure.messages.into_iter();
    let context = messages.next().unwrap_or_default();
    let mut source: Option<Box<dyn std::error::Error + Send + Sync>> = None;
    for text in messages.rev() {
        source = Some(Box::new(Told { text, source }));
    }
    let error = match source {
        Some(source) => ExecError::caused(kind, context, source),
        None => ExecError::new(kind, context),
    };
    match hint {
        Some(hint) if matches!(kind, ExecErrorKind::Ids | ExecErrorKind::Host) => {
            error.with_hint(hint)
        }
        _ => error,
    }
}

/// A link of a chain of errors that came over the socket.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Told {
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

fn host(context: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ExecError {
    ExecError::caused(ExecErrorKind::Host, context, source)
}

/// A started inner half. Dropped before its end it is killed, and with it all that it has started.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pidfd: OwnedFd,
    pub(super) link: Link,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    ended: bool,
}

impl Running {
    /// Starts a process that waits for its job.
    pub(super) fn spawn(program: &Path, with_output: bool) -> Result<Self, ExecError> {
        let (link, socket) =
            Link::pair().map_err(|error| host("cannot make a socket for the sandbox", error))?;
        let output = || {
            if with_output {
                Stdio::piped()
            } else {
                Stdio::null()
            }
        };
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .env_clear()
            .stdin(Stdio::from(socket))
            .stdout(output())
            .stderr(output())
            .spawn()
            .map_err(|error| host("cannot start the sandbox", error))?;
        let pidfd = match pidfd::open(Pid::from_child(&child)) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(host("cannot watch the sandbox", error));
            }
        };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Ok(Self {
            child,
            pidfd,
            link,
            stdout,
            stderr,
            ended: false,
        })
    }

    /// Gives it its one job.
    pub(super) fn begin(
        &self,
        job: Job,
        scope: Scope,
        namespace: Option<&OwnedFd>,
        network: Option<&OwnedFd>,
    ) -> Result<(), ExecError> {
        let parent = rustix::process::getpid().as_raw_nonzero().get();
        let start = Start {
            parent,
            scope,
            network: network.is_some(),
            job,
        };
        let fds: Vec<_> = namespace
            .into_iter()
            .chain(network)
            .map(AsFd::as_fd)
            .collect();
        self.link
            .say(&start, &fds)
            .map_err(|error| host("cannot give the sandbox its job", error))
    }

    /// The id of the process.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for the next frame.
    pub(super) fn receive(&mut self) -> Result<Frame, ExecError> {
        match self.link.receive() {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(self.died()),
            Err(error) => Err(host("cannot hear the sandbox", error)),
        }
    }

    /// Waits for the next reply; a failure is an error.
    pub(super) fn reply(&mut self) -> Result<(Reply, Vec<OwnedFd>), ExecError> {
        let frame = self.receive()?;
        match frame.message::<Reply>() {
            Ok(Reply::Failed(failure)) => Err(error(failure, None)),
            Ok(reply) => Ok((reply, frame.fds)),
            Err(error) => Err(host("cannot understand the sandbox", error)),
        }
    }

    /// As [`Running::reply`], but a raised flag ends the wait; the job is then to be dropped.
    pub(super) fn reply_unless(
        &mut self,
        cancel: &Cancel,
    ) -> Result<(Reply, Vec<OwnedFd>), ExecError> {
        loop {
            let mut fds = [
                PollFd::new(&self.link, PollFlags::IN),
                PollFd::new(cancel, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(host("cannot wait for the sandbox", error)),
            }
            let (answered, cancelled) =
                (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if answered {
                return self.reply();
            }
            if cancelled {
                return Err(ExecError::new(
                    ExecErrorKind::Cancelled,
                    "the step was stopped",
                ));
            }
        }
    }

    pub(super) fn expect_done(&mut self) -> Result<(), ExecError> {
        match self.reply()?.0 {
            Reply::Done => Ok(()),
            other => Err(ExecError::new(
                ExecErrorKind::Host,
                format!("the sandbox answered with {other:?}"),
            )),
        }
    }

    pub(super) fn ask(&self, ask: &Ask) -> Result<(), ExecError> {
        self.link
            .say(ask, &[])
            .map_err(|error| host("cannot ask the sandbox", error))
    }

    /// What to say of an inner half that ended without a word.
    fn died(&mut self) -> ExecError {
        self.ended = true;
        let how = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        ExecError::new(
            ExecErrorKind::Host,
            format!("the sandbox ended without an answer: {how}"),
        )
    }

    /// Waits for the end.
    pub(super) fn finish(mut self) -> Result<(), ExecError> {
        self.end()
    }

    /// Waits for the end.
    pub(super) fn end(&mut self) -> Result<(), ExecError> {
        self.ended = true;
        self.link.close_sending();
        self.child
            .wait()
            .map(drop)
            .map_err(|error| host("cannot wait for the sandbox", error))
    }

    /// Hands on a step's output until it has ended and all of its output is read; gives how it ended, or why it could
    /// not be run.
    pub(super) fn pump(
        &mut self,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Result<Status, Failure>, ExecError> {
        let mut ended = None;
        let mut deadline = None;
        let mut buffer = vec![0; CHUNK];
        while ended.is_none() || self.stdout.is_some() || self.stderr.is_some() {
            let ready = self.poll(ended.is_some(), cancel, deadline)?;
            if ready.cancelled && deadline.is_none() {
                // It kills the step, removes what it had made, and says that it was stopped.
                self.link.close_sending();
                deadline = Some(Instant::now() + PATIENCE);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(ExecError::new(
                    ExecErrorKind::Cancelled,
                    "the step was stopped",
                ));
            }
            if ready.stdout
                && !forward(self.stdout.as_ref(), &mut buffer, &mut |data| {
                    output(Stream::Stdout, data)
                })
            {
                self.stdout = None;
            }
            if ready.stderr
                && !forward(self.stderr.as_ref(), &mut buffer, &mut |data| {
                    output(Stream::Stderr, data)
                })
            {
                self.stderr = None;
            }
            if ready.link {
                let frame = self.receive()?;
                let reply = frame
                    .message::<Reply>()
                    .map_err(|error| host("cannot understand the sandbox", error))?;
                ended = Some(match reply {
                    Reply::Exited { status } => Ok(status),
                    Reply::Failed(failure) => Err(failure),
                    other => Err(Failure::new(
                        FailureKind::Host,
                        format!("the sandbox answered with {other:?}"),
                    )),
                });
            }
        }
        Ok(ended.expect("the loop ends with an answer"))
    }

    fn poll(
        &self,
        answered: bool,
        cancel: &Cancel,
        deadline: Option<Instant>,
    ) -> Result<Ready, ExecError> {
        let mut fds = Vec::with_capacity(4);
        // Of what is not to be watched the link stands in, with no event asked for.
        let nothing = PollFlags::empty();
        let watch = |wanted: bool| if wanted { PollFlags::IN } else { nothing };
        fds.push(match &self.stdout {
            Some(stdout) => PollFd::new(stdout, PollFlags::IN),
            None => PollFd::new(cancel, nothing),
        });
        fds.push(match &self.stderr {
            Some(stderr) => PollFd::new(stderr, PollFlags::IN),
            None => PollFd::new(cancel, nothing),
        });
        fds.push(PollFd::new(cancel, watch(deadline.is_none())));
        if !answered {
            fds.push(PollFd::new(&self.link, PollFlags::IN));
        }
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(host("cannot wait for the step", error)),
        }
        let is_ready = |index: usize| {
            fds.get(index)
                .is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty())
        };
        Ok(Ready {
            stdout: self.stdout.is_some() && is_ready(0),
            stderr: self.stderr.is_some() && is_ready(1),
            cancelled: is_ready(2),
            link: is_ready(3),
        })
    }
}

struct Ready {
    stdout: bool,
    stderr: bool,
    cancelled: bool,
    link: bool,
}

/// Reads once and hands on; gives whether there may be more.
fn forward(from: Option<&impl AsFd>, buffer: &mut [u8], to: &mut dyn FnMut(&[u8])) -> bool {
    let Some(from) = from else { return false };
    match rustix::io::read(from, &mut *buffer) {
        Ok(0) => false,
        Ok(count) => {
            to(&buffer[..count]);
            true
        }
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => true,
        Err(_) => false,
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let _ = pidfd::signal(&self.pidfd, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
