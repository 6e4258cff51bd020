//! `Agent`: the host's end of the guest channel.
//!
//! One connection carries control messages and streams (`docs/formats/guest-protocol.md`); the owner's poll loop drives
//! it, nothing here blocks and no thread is made:
//!
//! ```text
//! loop {
//!     poll(agent.poll_fd(), stdin if agent.stdin_room() > 0, stdout if agent.stdout() has bytes, …)
//!     agent.pump(now)?                          reads and writes the connection
//!     while let Some(event) = agent.next_event()? { … }
//!     match agent.stdout() { Bytes(b) => agent.consume_stdout(write(1, b)), … }
//! }
//! ```
//!
//! Conversation: the guest's hello is answered at once. `Exit` is given only when everything that came on stdout and
//! stderr before it has been taken; the owner records it and calls [`Agent::acknowledge_exit`], and only then the guest
//! restarts, so no last line is ever lost.
//!
//! The guest is hostile: what breaks the protocol is an [`AgentError`], after which the connection is of no use and the
//! machine is to be killed. Memory is bounded by the multiplexer's limits.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use firebuild_guest_proto::message::one_line;
use firebuild_guest_proto::metadata::Document;
use firebuild_guest_proto::mux::{Event, Limits, Mux, Role};
use firebuild_guest_proto::{
    ExitRecord, GuestMessage, HealthReport, Hello, HostMessage, Incoming, MessageError,
    MessageLevel, ProtocolError, SendError, Signal, StreamId, WindowSize,
};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

mod end;
mod sessions;
mod tasks;

pub use end::ChannelEnd;
pub use sessions::GuestSession;
pub use tasks::TaskFiles;

/// Most bytes read or written in one turn of the owner's loop, so that no guest can keep it there.
const TURN_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 64 * 1024;
/// Features of a guest that are remembered.
const MAX_FEATURES: usize = 64;

/// The host's end of a guest channel.
#[derive(Debug)]
pub struct Agent {
    connection: Option<OwnedFd>,
    /// Where the guest will connect, until it has.
    listener: Option<OwnedFd>,
    mux: Mux,
    buffer: Vec<u8>,
    phase: Phase,
    /// The host's time at the last turn.
    unix_ns: Option<u64>,
    /// Whether there may be something to write; cleared when the multiplexer has nothing.
    has_output: bool,
    /// Cleared when the guest's end takes nothing any more.
    writable: bool,
    exit: Option<ExitRecord>,
    closed_told: bool,
    /// What the guest can do beyond the version.
    features: Vec<String>,
    /// The number of the session that was opened last.
    last_session: u32,
}

/// How far the conversation has come; it only goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Nothing yet.
    New,
    /// Both have said hello.
    Greeted,
    /// The configuration has been read.
    Configured,
    /// The application runs.
    Running,
    /// The application has ended, or could not be started.
    Exited,
}

/// Something that the guest reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// The guest init runs and speaks this version.
    Greeted {
        /// Version of the protocol.
        version: u32,
    },
    /// The configuration has been read: [`Machine::wipe_initrd`](crate::Machine::wipe_initrd) now.
    Configured,
    /// A line of the guest init's diagnostics, plain text on one line.
    Log {
        /// How grave it is.
        level: MessageLevel,
        /// The line.
        text: String,
    },
    /// The application runs.
    Started {
        /// Its process id in the guest.
        pid: u32,
        /// Nanoseconds since 1970 by the guest's clock.
        unix_ns: u64,
        /// Nanoseconds from the start of the guest's kernel to the exec.
        uptime_ns: u64,
    },
    /// A probe of the application's health has ended.
    Health(HealthReport),
    /// The application has ended or could not be started, and all its output has been taken. Record it, then
    /// [`Agent::acknowledge_exit`].
    Exited(ExitRecord),
    /// The guest of a build takes tasks ([`Agent::start_task`]).
    Ready,
    /// Somebody in the guest wants a connection to a socket of a task ([`Agent::connect`]).
    Connect {
        /// The task.
        task: u32,
        /// Which of its sockets.
        socket: u32,
    },
    /// The guest init lives ([`Agent::ping`]).
    Pong,
    /// The process of a session runs ([`Agent::open_session`]).
    SessionStarted {
        /// The session's number.
        session: u32,
        /// Its process id in the guest.
        pid: u32,
    },
    /// A session is over. What came on its streams before may still be there to be taken.
    SessionEnded {
        /// The session's number.
        session: u32,
        /// How.
        record: ExitRecord,
    },
    /// The guest's end of the channel is closed: the machine is ending or has ended.
    Closed,
}

/// A guest that breaks the protocol, or a connection that fails. The machine is of no more use.
#[derive(Debug)]
#[non_exhaustive]
pub enum AgentError {
    /// Its bytes are not the protocol's.
    Protocol(ProtocolError),
    /// A message that cannot be understood, or no version in common.
    Message(MessageError),
    /// A message where it does not belong.
    OutOfOrder {
        /// Which one.
        message: &'static str,
    },
    /// A message cannot be sent.
    Send(SendError),
    /// The connection failed.
    Io(io::Error),
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(_) => f.write_str("the guest breaks the protocol of its channel"),
            Self::Message(_) => f.write_str("the guest sent a message that cannot be used"),
            Self::OutOfOrder { message } => write!(f, "the guest sent {message} out of order"),
            Self::Send(_) => f.write_str("cannot send a message to the guest"),
            Self::Io(_) => f.write_str("the channel to the guest failed"),
        }
    }
}

impl std::error::Error for AgentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Protocol(source) => Some(source),
            Self::Message(source) => Some(source),
            Self::Send(source) => Some(source),
            Self::Io(source) => Some(source),
            Self::OutOfOrder { .. } => None,
        }
    }
}

impl Agent {
    /// Takes over the channel of a machine ([`Machine::take_channel`](crate::Machine::take_channel)).
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn new(channel: impl Into<ChannelEnd>) -> io::Result<Self> {
        let (connection, listener) = channel.into().open()?;
        Ok(Self {
            connection,
            listener,
            mux: Mux::new(Role::Host, Limits::default()),
            buffer: vec![0; READ_BYTES],
            phase: Phase::New,
            unix_ns: None,
            has_output: true,
            writable: true,
            exit: None,
            closed_told: false,
            features: Vec::new(),
            last_session: 0,
        })
    }

    /// What to wait for; `None` when the guest's end is closed.
    #[must_use]
    pub fn poll_fd(&self) -> Option<PollFd<'_>> {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, self.has_output && self.writable);
        if let Some(listener) = &self.listener {
            return Some(PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
        }
        self.connection
            .as_ref()
            .map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), wanted))
    }

    /// Nobody waits for the guest to connect any more: its VMM has ended. A guest that has connected is still heard.
    pub fn vmm_ended(&mut self) {
        // It may have connected at the last moment; what it sent counts.
        let _ = self.accept();
        self.listener = None;
    }

    /// Reads what the guest sent and writes what waits for it. Call it at every turn of the loop, and take the events
    /// after it. `unix_ns` is the host's time, which the guest's clock follows.
    ///
    /// # Errors
    /// A guest that breaks the protocol, a connection that fails.
    pub fn pump(&mut self, unix_ns: Option<u64>) -> Result<(), AgentError> {
        self.unix_ns = unix_ns;
        self.accept()?;
        self.read()?;
        self.write()
    }

    fn accept(&mut self) -> Result<(), AgentError> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        if let Some(connection) = end::accept(listener).map_err(AgentError::Io)? {
            self.connection = Some(connection);
            // There is one channel: who comes later finds nobody.
            self.listener = None;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), AgentError> {
        let mut total = 0;
        while let Some(connection) = &self.connection
            && total < TURN_BYTES
        {
            match rustix::net::recv(connection, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.connection = None,
                Ok((_, count)) => {
                    total += count;
                    self.mux
                        .receive(&self.buffer[..count])
                        .map_err(AgentError::Protocol)?;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // A VMM that is killed with bytes unread; what came before counts.
                Err(Errno::CONNRESET) => self.connection = None,
                Err(error) => return Err(AgentError::Io(error.into())),
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), AgentError> {
        let mut total = 0;
        while let Some(connection) = &self.connection
            && self.writable
            && total < TURN_BYTES
        {
            let bytes = self.mux.output();
            if bytes.is_empty() {
                self.has_output = false;
                break;
            }
            match rustix::net::send(connection, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    total += count;
                    self.mux.written(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // What the guest sent before its end may still be there to read.
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.writable = false;
                    break;
                }
                Err(error) => return Err(AgentError::Io(error.into())),
            }
        }
        Ok(())
    }

    /// The next thing that the guest reports.
    ///
    /// # Errors
    /// A message that cannot be understood, or does not belong here.
    pub fn next_event(&mut self) -> Result<Option<AgentEvent>, AgentError> {
        while let Some(event) = self.mux.next_event() {
            let message = match event {
                Event::Control(bytes) => {
                    GuestMessage::decode(&bytes).map_err(AgentError::Message)?
                }
                // This side asks for no streams beside those of the protocol.
                Event::Opened(_) => {
                    return Err(AgentError::OutOfOrder {
                        message: "a new stream",
                    });
                }
            };
            if let Some(event) = self.handle(message)? {
                return Ok(Some(event));
            }
        }
        if self.output_taken()
            && let Some(record) = self.exit.take()
        {
            return Ok(Some(AgentEvent::Exited(record)));
        }
        let open = self.connection.is_some() || self.listener.is_some();
        if !open && self.output_taken() && !self.closed_told {
            self.closed_told = true;
            return Ok(Some(AgentEvent::Closed));
        }
        Ok(None)
    }

    fn handle(&mut self, message: GuestMessage) -> Result<Option<AgentEvent>, AgentError> {
        match message {
            GuestMessage::Hello(theirs) => {
                self.advance(Phase::New, Phase::Greeted, "hello")?;
                let ours = Hello::new(Vec::new(), self.unix_ns);
                let version = ours.negotiate(&theirs).map_err(AgentError::Message)?;
                self.send(&HostMessage::Hello(ours))?;
                self.features = theirs.features;
                self.features.truncate(MAX_FEATURES);
                Ok(Some(AgentEvent::Greeted { version }))
            }
            GuestMessage::ConfigAck => {
                self.advance(
                    Phase::Greeted,
                    Phase::Configured,
                    "its acknowledgement of the configuration",
                )?;
                Ok(Some(AgentEvent::Configured))
            }
            GuestMessage::Log { level, text } => {
                self.greeted("a log line")?;
                Ok(Some(AgentEvent::Log {
                    level,
                    text: one_line(&text),
                }))
            }
            GuestMessage::Started {
                pid,
                unix_ns,
                uptime_ns,
            } => {
                self.advance(
                    Phase::Configured,
                    Phase::Running,
                    "the start of the application",
                )?;
                Ok(Some(AgentEvent::Started {
                    pid,
                    unix_ns,
                    uptime_ns,
                }))
            }
            GuestMessage::Ready => {
                self.advance(Phase::Configured, Phase::Running, "that it takes tasks")?;
                Ok(Some(AgentEvent::Ready))
            }
            GuestMessage::Connect { task, socket } => {
                self.greeted("a connection")?;
                Ok(Some(AgentEvent::Connect { task, socket }))
            }
            GuestMessage::Pong => {
                self.greeted("a sign of life")?;
                Ok(Some(AgentEvent::Pong))
            }
            GuestMessage::Health(mut report) => {
                if self.phase != Phase::Running {
                    return Err(AgentError::OutOfOrder {
                        message: "a report of the application's health",
                    });
                }
                report.probe.clip();
                Ok(Some(AgentEvent::Health(report)))
            }
            GuestMessage::SessionStarted { session, pid } => {
                self.session(session)?;
                Ok(Some(AgentEvent::SessionStarted { session, pid }))
            }
            GuestMessage::SessionEnded { session, record } => {
                self.session(session)?;
                Ok(Some(AgentEvent::SessionEnded { session, record }))
            }
            GuestMessage::Exit(record) => {
                self.greeted("an exit record")?;
                if self.phase == Phase::Exited {
                    return Err(AgentError::OutOfOrder {
                        message: "a second exit record",
                    });
                }
                self.phase = Phase::Exited;
                self.exit = Some(record);
                Ok(None)
            }
        }
    }

    fn advance(&mut self, from: Phase, to: Phase, message: &'static str) -> Result<(), AgentError> {
        if self.phase != from {
            return Err(AgentError::OutOfOrder { message });
        }
        self.phase = to;
        Ok(())
    }

    fn greeted(&self, message: &'static str) -> Result<(), AgentError> {
        if self.phase >= Phase::Greeted {
            Ok(())
        } else {
            Err(AgentError::OutOfOrder { message })
        }
    }

    /// Whether no byte of stdout or stderr waits to be taken. A guest says nothing more on them after its exit record.
    fn output_taken(&self) -> bool {
        [StreamId::STDOUT, StreamId::STDERR]
            .iter()
            .all(|&id| !matches!(self.mux.peek(id), Incoming::Bytes(_)))
    }

    /// What has come on the application's stdout.
    #[must_use]
    pub fn stdout(&self) -> Incoming<'_> {
        self.mux.peek(StreamId::STDOUT)
    }

    /// Takes bytes of stdout that have been written out.
    pub fn consume_stdout(&mut self, count: usize) {
        self.has_output = true;
        self.mux.consume(StreamId::STDOUT, count);
    }

    /// What has come on the application's stderr.
    #[must_use]
    pub fn stderr(&self) -> Incoming<'_> {
        self.mux.peek(StreamId::STDERR)
    }

    /// Takes bytes of stderr that have been written out.
    pub fn consume_stderr(&mut self, count: usize) {
        self.has_output = true;
        self.mux.consume(StreamId::STDERR, count);
    }

    /// Nobody reads stdout any more: the application gets SIGPIPE, as in a pipeline.
    pub fn stop_stdout(&mut self) {
        self.has_output = true;
        self.mux.stop(StreamId::STDOUT);
    }

    /// Nobody reads stderr any more.
    pub fn stop_stderr(&mut self) {
        self.has_output = true;
        self.mux.stop(StreamId::STDERR);
    }

    /// How many bytes [`Agent::write_stdin`] takes now; none when the application reads no more.
    #[must_use]
    pub fn stdin_room(&self) -> Option<usize> {
        self.mux.room(StreamId::STDIN)
    }

    /// Takes bytes for the application's stdin, as many as there is room for, and says how many; `None` when it reads no
    /// more.
    pub fn write_stdin(&mut self, bytes: &[u8]) -> Option<usize> {
        self.has_output = true;
        self.mux.write(StreamId::STDIN, bytes).ok()
    }

    /// Ends the application's stdin after what was written.
    pub fn end_stdin(&mut self) {
        self.has_output = true;
        self.mux.end(StreamId::STDIN);
    }

    /// Sends a signal to the application.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn signal(&mut self, signal: Signal) -> Result<(), AgentError> {
        self.send(&HostMessage::Signal { signal })
    }

    /// Tells the size of the caller's terminal.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn resize(&mut self, size: WindowSize) -> Result<(), AgentError> {
        self.send(&HostMessage::WindowSize(size))
    }

    /// Asks the application to end: its stop signal now, SIGKILL after the grace period.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn shutdown(&mut self, grace: Duration) -> Result<(), AgentError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.send(&HostMessage::Shutdown { grace_ms })
    }

    /// Gives the guest init another metadata document.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn metadata(&mut self, document: Document) -> Result<(), AgentError> {
        self.send(&HostMessage::Metadata { document })
    }

    /// Says that the exit record is safe: the guest may end. Goes out with the next [`Agent::pump`].
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn acknowledge_exit(&mut self) -> Result<(), AgentError> {
        self.send(&HostMessage::ExitAck)
    }

    fn send(&mut self, message: &HostMessage) -> Result<(), AgentError> {
        let bytes = message.encode().map_err(AgentError::Message)?;
        self.has_output = true;
        self.mux.send_control(&bytes).map_err(AgentError::Send)
    }
}

#[cfg(test)]
mod tests;
