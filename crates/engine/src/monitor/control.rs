//! How other processes talk to the owner of an instance: `control.sock` in its run dir.
//!
//! One request per connection, a line of JSON each way. The directory is private to the user and the socket
//! too, so whoever can connect may. `docs/formats/control.md` has the whole of it.
//!
//! | request | answer |
//! |---|---|
//! | `{"do":"stop","graceMs":10000,"signal":null}` | `{"done":true}` at once |
//! | `{"do":"restart","graceMs":10000,"signal":null}` | `{"done":true}` at once |
//! | `{"do":"kill","signal":15}`, `{"do":"kill","signal":null}` | `{"done":true}` at once |
//! | `{"do":"mmdsGet"}`, `{"do":"mmdsPut","document":{}}`, `{"do":"mmdsPatch","document":{}}` | `{"done":true}`, with the `document` |
//! | `{"do":"balloon"}` | `{"done":true}` with the `balloon`'s statistics when the VMM has told them |
//! | `{"do":"wait"}` | how it ended, when it has |
//! | `{"do":"pause"}`, `{"do":"unpause"}` | `{"done":true}` when it has been done |
//! | `{"do":"session"}`, `{"do":"attach"}` | `{"done":true}`, then the guest protocol ([`super::sessions`]) |

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use firebuild_guest_proto::metadata::Document;
use firebuild_vm::RunDir;
use firebuild_vm::hardware::BalloonStatistics;
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
/// A VMM does not always.
const VMM_PATIENCE: Duration = Duration::from_secs(15);

/// What an owner can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Request {
    /// End the application with its stop signal or this one, and by force after the grace period.
    Stop {
        /// The grace period in milliseconds.
        grace_ms: u64,
        /// The signal by its number.
        signal: Option<u8>,
    },
    /// End the application likewise, and start it again.
    Restart {
        /// The grace period in milliseconds.
        grace_ms: u64,
        /// The signal by its number.
        signal: Option<u8>,
    },
    /// Send this signal, or end the machine at once.
    Kill {
        /// The signal by its number.
        signal: Option<u8>,
    },
    /// Give the metadata document.
    MmdsGet,
    /// Put this one in its place.
    MmdsPut {
        /// The document.
        document: Document,
    },
    /// Merge this into it.
    MmdsPatch {
        /// The document.
        document: Document,
    },
    /// Give what the balloon tells of the guest's memory.
    Balloon,
    /// Say when it has ended, and how.
    Wait,
    /// Stop its processors.
    Pause,
    /// Let them run again.
    Unpause,
    /// Open a session with its guest on this connection.
    Session,
    /// Carry the application's streams on this connection.
    Attach,
}

/// What an owner makes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// The answer; the connection is over.
    Answer(Answer),
    /// The connection stays until the instance has ended.
    Later,
    /// The connection stays until the work of this number has been done.
    Working(u64),
    /// The connection becomes a client's ([`NewSession`]).
    Session(SessionKind),
}

/// What a connection that stays is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// A session with the guest.
    Guest,
    /// The application's streams.
    Attach,
}

/// A connection that has become a client's.
#[derive(Debug)]
pub struct NewSession {
    /// What for.
    pub kind: SessionKind,
    /// The connection.
    pub socket: UnixStream,
    /// What came behind the request.
    pub early: Vec<u8>,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The request is carried out, or on its way.
    pub done: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// For `mmdsGet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
    /// For `balloon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<Box<BalloonStatistics>>,
    /// For `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

impl Answer {
    /// Yes.
    #[must_use]
    pub fn done() -> Self {
        Self {
            done: true,
            problem: None,
            document: None,
            balloon: None,
            ended: None,
        }
    }

    /// No, and why.
    pub fn refused(problem: impl Into<String>) -> Self {
        Self {
            done: false,
            problem: Some(problem.into()),
            document: None,
            balloon: None,
            ended: None,
        }
    }
}

/// The owner's side.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    connections: Vec<Connection>,
    sessions: Vec<NewSession>,
}

/// A connection that has not said all that it came for, or waits for an answer.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    request: Vec<u8>,
    waiting: bool,
    /// The number of the work that it waits for.
    work: Option<u64>,
    /// It is to become a client's, and what of `request` belongs to that.
    session: Option<(SessionKind, usize)>,
}

impl Server {
    /// Listens in a run dir.
    pub(crate) fn new(dir: &RunDir) -> io::Result<Self> {
        let path = dir.socket(SOCKET).map_err(io::Error::other)?;
        let listener = UnixListener::bind(&path)?;
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            connections: Vec::new(),
            sessions: Vec::new(),
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

    /// Takes what has come, and does with it what `handle` says.
    pub(crate) fn serve(&mut self, handle: &mut dyn FnMut(Request) -> Verdict) {
        while self.connections.len() < MOST {
            let Ok((stream, _)) = self.listener.accept() else {
                break;
            };
            if stream.set_nonblocking(true).is_ok() {
                self.connections.push(Connection::new(stream));
            }
        }
        let over = |connection: &mut Connection| !connection.serve(handle);
        for connection in self.connections.extract_if(.., over) {
            self.sessions.extend(connection.into_session());
        }
    }

    /// The connections that have become clients' since the last call.
    pub(crate) fn take_sessions(&mut self) -> Vec<NewSession> {
        std::mem::take(&mut self.sessions)
    }

    /// Answers whoever waits for this work.
    pub(crate) fn settle(&mut self, work: u64, answer: &Answer) {
        let is_it = |connection: &mut Connection| connection.work == Some(work);
        for connection in self.connections.extract_if(.., is_it) {
            connection.answer(answer);
        }
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
            } else if connection.work.is_some() {
                connection.answer(&Answer::refused("it has ended meanwhile"));
            }
        }
    }
}

impl Connection {
    /// One that has just been made; it must not block.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            request: Vec::new(),
            waiting: false,
            work: None,
            session: None,
        }
    }

    /// How many bytes of it are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.request.len()
    }

    /// What has become of it when it does not stay: a client's connection, or nothing.
    #[must_use]
    pub fn into_session(self) -> Option<NewSession> {
        let (kind, from) = self.session?;
        Some(NewSession {
            kind,
            socket: self.stream,
            early: self.request[from..].to_vec(),
        })
    }

    /// Takes what has come, and does with it what `handle` says. Whether the connection stays.
    pub fn serve(&mut self, handle: &mut dyn FnMut(Request) -> Verdict) -> bool {
        let mut buffer = [0; 1024];
        loop {
            // What comes behind a request is its client's business.
            if !self.stays() && self.request.contains(&b'\n') {
                break;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) if self.stays() => {} // nothing more is expected
                Ok(count) => self.request.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.request.len() > LONGEST {
                return false;
            }
        }
        if self.stays() {
            return true;
        }
        let Some(end) = self.request.iter().position(|&byte| byte == b'\n') else {
            return true;
        };
        let verdict = match serde_json::from_slice(&self.request[..end]) {
            Ok(request) => handle(request),
            Err(error) => Verdict::Answer(Answer::refused(format!("not understood: {error}"))),
        };
        match verdict {
            Verdict::Answer(answer) => {
                self.answer(&answer);
                false
            }
            Verdict::Later => {
                self.waiting = true;
                true
            }
            Verdict::Working(work) => {
                self.work = Some(work);
                true
            }
            Verdict::Session(kind) => {
                self.answer(&Answer::done());
                self.session = Some((kind, end + 1));
                false
            }
        }
    }

    /// Whether it has said what it came for, and waits.
    fn stays(&self) -> bool {
        self.waiting || self.work.is_some()
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
    Ok(open(instance, request)?.map(|(answer, _)| answer))
}

/// As [`ask`], and gives the connection too: behind the answer it belongs to a session.
pub(crate) fn open(
    instance: &Instance,
    request: &Request,
) -> Result<Option<(Answer, UnixStream)>, InstanceError> {
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
    let patience = match request {
        Request::Wait => None,
        // The VMM is asked, which may have to finish with its disks first.
        Request::Pause
        | Request::Unpause
        | Request::Balloon
        | Request::MmdsPut { .. }
        | Request::MmdsPatch { .. } => Some(VMM_PATIENCE),
        _ => Some(PATIENCE),
    };
    stream.set_read_timeout(patience).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    match (&stream).write_all(&line) {
        Err(error) if is_gone(&error) => return Ok(None),
        written => written.map_err(failed)?,
    }
    let answer = match answer_line(&stream) {
        Ok(answer) if answer.is_empty() => return Ok(None),
        Err(error) if is_gone(&error) => return Ok(None),
        read => read.map_err(failed)?,
    };
    let answer = serde_json::from_slice(&answer).map_err(|error| failed(error.into()))?;
    Ok(Some((answer, stream)))
}

/// Reads to the end of a line and not a byte more: what follows is none of ours.
fn answer_line(mut stream: &UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LONGEST {
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(line)
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
