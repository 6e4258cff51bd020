//! Output to the log and the front, input to the application.

use std::os::fd::AsFd;

use firebuild_guest_proto::Incoming;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::EventLoop;
use crate::log_file::{LogWriter, Stream};
use crate::monitor::front::Notice;
use crate::monitor::output::Output;
use crate::monitor::sessions::Sessions;

/// Bytes of the caller's input read in one go.
const INPUT: usize = 64 << 10;

impl EventLoop<'_, '_> {
    /// Moves output to the log and the front; says whether anything moved.
    pub(super) fn output(&mut self) -> bool {
        let stdout = take(
            self.agent.stdout(),
            Stream::Stdout,
            self.front.stdout.as_ref().filter(|_| !self.give_up),
            &mut self.sessions,
            &mut self.log,
        );
        let stderr = take(
            self.agent.stderr(),
            Stream::Stderr,
            self.front.stderr.as_ref().filter(|_| !self.give_up),
            &mut self.sessions,
            &mut self.log,
        );
        for (taken, is_stdout) in [(&stdout, true), (&stderr, false)] {
            match (taken, is_stdout) {
                (Taken::Bytes(count), true) => self.agent.consume_stdout(*count),
                (Taken::Bytes(count), false) => self.agent.consume_stderr(*count),
                (Taken::Stop, true) => self.agent.stop_stdout(),
                (Taken::Stop, false) => self.agent.stop_stderr(),
                (Taken::Nothing | Taken::LogFailed(..), _) => {}
            }
            if let Taken::LogFailed(count, error) = taken {
                let text = format!("the output is not recorded any more: {error}");
                (self.front.notices)(Notice::Note(text));
                self.log = None;
                if is_stdout {
                    self.agent.consume_stdout(*count);
                } else {
                    self.agent.consume_stderr(*count);
                }
            }
        }
        !matches!((stdout, stderr), (Taken::Nothing, Taken::Nothing))
    }

    /// Moves the caller's input to the application.
    pub(super) fn input(&mut self) {
        let Some(stdin) = &self.front.stdin else {
            return;
        };
        let Some(room) = self.agent.stdin_room() else {
            self.front.stdin = None; // the application reads no more
            return;
        };
        if room == 0 || !is_readable(stdin) {
            return;
        }
        let mut buffer = [0; INPUT];
        let wanted = room.min(INPUT);
        match rustix::io::read(stdin, &mut buffer[..wanted]) {
            Ok(0) => {
                self.agent.end_stdin();
                self.front.stdin = None;
            }
            Ok(count) => {
                self.agent.write_stdin(&buffer[..count]);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A terminal that has gone, a directory: nothing more will come.
            Err(_) => {
                self.agent.end_stdin();
                self.front.stdin = None;
            }
        }
    }
}

enum Taken {
    Nothing,
    Bytes(usize),
    /// Nobody reads any more.
    Stop,
    /// So many bytes went to the front, but not to the log.
    LogFailed(usize, std::io::Error),
}

/// Takes what there is room for.
fn take(
    incoming: Incoming<'_>,
    stream: Stream,
    front: Option<&Output>,
    attached: &mut Sessions,
    log: &mut Option<LogWriter>,
) -> Taken {
    let Incoming::Bytes(bytes) = incoming else {
        return Taken::Nothing;
    };
    let mut room = attached.room(stream);
    match front {
        Some(front) if front.is_broken() => return Taken::Stop,
        Some(front) => room = room.min(front.room()),
        None => {}
    }
    let bytes = &bytes[..bytes.len().min(room)];
    if bytes.is_empty() {
        return Taken::Nothing;
    }
    if let Some(front) = front {
        front.push(bytes);
    }
    attached.output(stream, bytes);
    match log.as_mut().map(|log| log.write(stream, bytes)) {
        Some(Err(error)) => Taken::LogFailed(bytes.len(), error),
        _ => Taken::Bytes(bytes.len()),
    }
}

/// Whether a read returns at once.
fn is_readable(fd: impl AsFd) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&now)), Ok(ready) if ready > 0)
}
