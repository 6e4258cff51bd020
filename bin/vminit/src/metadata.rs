//! The metadata service, for machines whose VMM has none: Firecracker's MMDS, answered by the init. How programs get
//! there is in `network`. Whoever asks is served in a few steps of the init's one loop: requests are small, answers are made
//! at once, and who is slow loses the connection.

mod answer;
mod network;
mod request;
mod tokens;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use firebuild_guest_proto::metadata::{Document, Metadata as Config};
use rustix::event::PollFlags;

use crate::journal::Journal;
use crate::modules::Spare;
use answer::Answered;
use network::Reachable;
use request::{Incoming, MAX_REQUEST_BYTES};
use tokens::Tokens;

/// Connections at once; the oldest one gives way.
const CONNECTIONS: usize = 32;
/// How long a request and its answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client has to close after the answer, as most do that have counted it. Whoever closes first keeps a trace of the
/// connection for a minute (`TIME_WAIT`), and ours would keep those from port 80 who bind it without `SO_REUSEADDR`.
const COURTESY: Duration = Duration::from_millis(50);

/// The service.
#[derive(Debug)]
pub(crate) struct Metadata {
    reachable: Reachable,
    tokens: Option<Tokens>,
    text_only: bool,
    document: Document,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    began: Instant,
    request: Vec<u8>,
    /// What is still to be sent, once there is an answer.
    answer: Option<Vec<u8>>,
    /// When all of it was sent.
    answered: Option<Instant>,
}

impl Metadata {
    /// Makes the way here and listens. `outside` are the machine's own interfaces, from which nobody is to get here; `spare` are
    /// the modules that are loaded when the kernel needs them for that.
    pub(crate) fn start(
        config: &Config,
        outside: &[String],
        spare: Spare,
        journal: &mut Journal,
    ) -> std::io::Result<Metadata> {
        Ok(Metadata {
            reachable: network::listen(outside, spare, journal)?,
            tokens: config.tokens.then(Tokens::default),
            text_only: config.text_only,
            document: config.document.clone(),
            connections: Vec::new(),
        })
    }

    /// Takes another document.
    pub(crate) fn set(&mut self, document: Document) {
        self.document = document;
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let mut fds = vec![(self.reachable.listener.as_fd(), PollFlags::IN)];
        fds.extend(self.connections.iter().map(|connection| {
            let wanted = match (&connection.answer, connection.answered) {
                (Some(_), None) => PollFlags::OUT,
                _ => PollFlags::IN,
            };
            (connection.stream.as_fd(), wanted)
        }));
        fds
    }

    /// When somebody loses patience with somebody.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let ends = self.connections.iter().map(|connection| {
            let patience = connection.began + PATIENCE;
            connection
                .answered
                .map_or(patience, |at| patience.min(at + COURTESY))
        });
        ends.min()
    }

    /// Serves whoever has come, without waiting.
    pub(crate) fn turn(&mut self) {
        while let Ok((stream, _)) = self.reachable.listener.accept() {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.connections.len() >= CONNECTIONS {
                self.connections.remove(0);
            }
            self.connections.push(Connection {
                stream,
                began: Instant::now(),
                request: Vec::new(),
                answer: None,
                answered: None,
            });
        }
        let mut answered = Answered {
            tokens: &mut self.tokens,
            text_only: self.text_only,
            document: &self.document,
        };
        self.connections.retain_mut(|connection| {
            connection.began.elapsed() < PATIENCE && connection.serve(&mut answered)
        });
    }
}

impl Connection {
    /// Whether there is more to do.
    fn serve(&mut self, from: &mut Answered<'_>) -> bool {
        if let Some(answered) = self.answered {
            return answered.elapsed() < COURTESY && self.is_open();
        }
        if self.answer.is_none() {
            match self.read() {
                Ok(None) => return true,
                Ok(Some(incoming)) => {
                    self.answer = Some(answer::to(&incoming, from));
                }
                Err(_) => return false,
            }
        }
        self.write()
    }

    /// The request, once it is whole.
    fn read(&mut self) -> std::io::Result<Option<Incoming>> {
        let mut buffer = [0; 2048];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.request.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if let Some(incoming) = request::parse(&self.request) {
                return Ok(Some(incoming));
            }
            if self.request.len() > MAX_REQUEST_BYTES {
                return Ok(Some(Incoming::Bad("the request is too long")));
            }
        }
    }

    fn write(&mut self) -> bool {
        let Some(answer) = &mut self.answer else {
            return true;
        };
        while !answer.is_empty() {
            match self.stream.write(answer) {
                Ok(count) => drop(answer.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.answered = Some(Instant::now());
        true
    }

    /// Whether the client has not closed; what it still says is of no interest.
    fn is_open(&mut self) -> bool {
        let mut buffer = [0; 2048];
        match self.stream.read(&mut buffer) {
            Ok(count) => count > 0,
            Err(error) => {
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
            }
        }
    }
}
