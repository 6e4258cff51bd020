//! How other processes talk to the owner of an instance: `control.sock` in its run dir.
//!
//! One request per connection, a line of JSON each way. The directory is private to the user, so whoever
//! can connect may.
//!
//! | request | answer |
//! |---|---|
//! | `{"do":"stop","graceMs":10000,"signal":null}` | `{"done":true}` at once |
//! | `{"do":"restart","graceMs":10000,"signal":null}` | `{"done":true}` at once |
//! | `{"do":"kill","signal":15}`, `{"do":"kill","signal":null}` | `{"done":true}` at once |
//! | `{"do":"mmdsGet"}`, `{"do":"mmdsPut","document":{}}`, `{"do":"mmdsPatch","document":{}}` | `{"done":true}`, with the `document` |
//! | `{"do":"wait"}` | how it ended, when it has |

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use firebuild_guest_proto::metadata::Document;
use firebuild_vm::RunDir;
use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::instance::{Ended, Instance, InstanceError, InstanceErrorKind};

/// The name of the socket.
pub(crate) const SOCKET: &str = "control.sock";
/// Longest request or answer.
const LONGEST: usize = 64 << 10;
/// Connections at once; more wait in the listener's queue.
const MOST: usize = 64;
/// An owner answers at once, unless it is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an owner can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Request {
    /// End the application with its stop signal or this one, and by force after the grace period.
    Stop { grace_ms: u64, signal: Option<u8> },
    /// End the application likewise, and start it again.
    Restart { grace_ms: u64, signal: Option<u8> },
    /// Send this signal, or end the machine at once.
    Kill { signal: Option<u8> },
    /// Give the metadata document.
    MmdsGet,
    /// Put this one in its place.
    MmdsPut { document: Document },
    /// Merge this into it.
    MmdsPatch { document: Document },
    /// Say when it has ended, and how.
    Wait,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    /// The request is carried out, or on its way.
    pub(crate) done: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// For `mmdsGet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) document: Option<Document>,
    /// For `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Ended>,
}

impl Answer {
    /// Yes.
    pub(crate) fn done() -> Self {
        Self {
            done: true,
            problem: None,
            document: None,
            ended: None,
        }
    }

    /// No, and why.
    pub(crate) fn refused(problem: impl Into<String>) -> Self {
        Self {
            done: false,
            problem: Some(problem.into()),
            document: None,
            ended: None,
        }
    }
}

/// The owner's side.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    request: Vec<u8>,
    waiting: bool,
}

impl Server {
    /// Listens in a run dir.
    pub(crate) fn new(dir: &RunDir) -> io::Result<Self> {
        let path = dir.socket(SOCKET).map_err(io::Error::other)?;
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            connections: Vec::new(),
        })
    }

    /// What to wait for.
    pub(crate) fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if self.connections.len() < MOST {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        for connection in &self.connections {
            fds.push(PollFd::new(&connection.stream, PollFlags::IN));
        }
    }

    /// Takes what has come, and answers what `handle` answers. `None` keeps the connection until
    /// [`Server::end`].
    pub(crate) fn serve(&mut self, handle: &mut dyn FnMut(Request) -> Option<Answer>) {
        while self.connections.len() < MOST {
            let Ok((stream, _)) = self.listener.accept() else {
                break;
            };
            if stream.set_nonblocking(true).is_ok() {
                self.connections.push(Connection {
                    stream,
                    request: Vec::new(),
                    waiting: false,
                });
            }
        }
        self.connections
            .retain_mut(|connection| connection.serve(handle));
    }

    /// Takes over those who wait at another one.
    pub(crate) fn adopt(&mut self, other: Server) {
        let waiting = other.connections.into_iter();
        self.connections
            .extend(waiting.filter(|connection| connection.waiting));
    }

    /// Tells everybody who waits how it ended.
    pub(crate) fn end(self, ended: &Ended) {
        let answer = Answer {
            ended: Some(ended.clone()),
            ..Answer::done()
        };
        for connection in self.connections {
            if connection.waiting {
                connection.answer(&answer);
            }
        }
    }
}

impl Connection {
    /// Whether the connection stays.
    fn serve(&mut self, handle: &mut dyn FnMut(Request) -> Option<Answer>) -> bool {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) if self.waiting => {} // nothing more is expected
                Ok(count) => self.request.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.request.len() > LONGEST {
                return false;
            }
        }
        if self.waiting {
            return true;
        }
        let Some(end) = self.request.iter().position(|&byte| byte == b'\n') else {
            return true;
        };
        let answer = match serde_json::from_slice(&self.request[..end]) {
            Ok(request) => handle(request),
            Err(error) => Some(Answer::refused(format!("not understood: {error}"))),
        };
        match answer {
            Some(answer) => {
                self.answer(&answer);
                false
            }
            None => {
                self.waiting = true;
                true
            }
        }
    }

    /// A short line fits into the socket's buffer; who does not take it gets none.
    fn answer(&self, answer: &Answer) {
        if let Ok(mut line) = serde_json::to_vec(answer) {
            line.push(b'\n');
            let _ = (&self.stream).write_all(&line);
        }
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Asks the owner of an instance. `None` when nobody listens: it is being started, or has just ended.
pub(crate) fn ask(instance: &Instance, request: &Request) -> Result<Option<Answer>, InstanceError> {
    let short = instance.id().short();
    let failed = |cause: io::Error| {
        Error::caused(
            InstanceErrorKind::Control,
            format!("the monitor of the VM {short} does not answer"),
            cause,
        )
    };
    let dir = RunDir::place(instance.runtime(), instance.id().as_str()).map_err(|error| {
        Error::caused(
            InstanceErrorKind::Control,
            format!("cannot find the run dir of the VM {short}"),
            error,
        )
    })?;
    let Some(stream) = connect(&dir.join(SOCKET)).map_err(failed)? else {
        return Ok(None);
    };
    let patience = (*request != Request::Wait).then_some(PATIENCE);
    stream.set_read_timeout(patience).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    match (&stream).write_all(&line) {
        Err(error) if is_gone(&error) => return Ok(None),
        written => written.map_err(failed)?,
    }
    let mut answer = Vec::new();
    let limit = LONGEST as u64;
    match BufReader::new(stream.take(limit)).read_until(b'\n', &mut answer) {
        Ok(0) => return Ok(None),
        Err(error) if is_gone(&error) => return Ok(None),
        read => read.map_err(failed)?,
    };
    let answer = serde_json::from_slice(&answer).map_err(|error| failed(error.into()))?;
    Ok(Some(answer))
}

fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
    )
}
