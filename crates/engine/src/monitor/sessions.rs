//! Clients of a machine that came to stay: sessions with its guest, and those attached to its application.
//!
//! A connection to the control socket that asked for one speaks the guest protocol from then on, with this process in the
//! guest's place: a hello, the three streams of the protocol, signals and window sizes one way, the exit record the other.
//! So a client is what a monitor is to a guest, an [`Agent`], and every bound and check of that protocol holds here too.
//!
//! ```text
//!   client ══ Mux ══ Client ── Agent::relay ── Agent ══ Mux ══ guest        a session
//!   client ══ Mux ══ Client ◀─ copy of the application's output             attached
//!                           ─▶ the application's input
//! ```
//!
//! Nothing here waits. A client that does not read fills its window and holds up its own session. One that is attached
//! holds up the application's output, as a terminal would, but only for ten seconds: then it is cut off.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use firebuild_guest_proto::session::MAX_SESSIONS;
use firebuild_guest_proto::{
    Event, ExitRecord, ExitStatus, GuestMessage, Hello, HostMessage, Incoming, Limits, Mux, Role,
    SendError, Signal, StreamId,
};
use firebuild_vm::{Agent, AgentError, GuestSession};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::log_file::Stream;

/// How long an attached client may hold up the application.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take to hear the last of it, once it is over.
const FAREWELL: Duration = Duration::from_secs(3);
/// Bytes that are moved for one client in one turn of the loop.
const TURN_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 64 << 10;
const OUTPUTS: [StreamId; 2] = [StreamId::STDOUT, StreamId::STDERR];

/// All clients.
#[derive(Debug)]
pub struct Sessions {
    clients: Vec<Client>,
    /// Sessions whose clients have gone and whose guest has no room for the message that says so.
    closing: Vec<GuestSession>,
    /// Sessions whose clients let them go on: what they print is lost.
    left: Vec<Left>,
    /// How long an attached client may hold up the application.
    patience: Duration,
    /// The end of what an attached client types is the end of the application's input.
    stdin_once: bool,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            clients: Vec::new(),
            closing: Vec::new(),
            left: Vec::new(),
            patience: PATIENCE,
            stdin_once: false,
        }
    }
}

/// What a client came for.
#[derive(Debug)]
enum Kind {
    /// A session with the guest.
    Guest {
        session: GuestSession,
        /// What the guest said of its end.
        record: Option<ExitRecord>,
    },
    /// The application's streams.
    Attached {
        /// Since when the client has had no room.
        stalled: Option<Instant>,
    },
    /// Nothing more: it only has to hear the end, once it has had all output, and until then at the latest.
    Leaving {
        until: Instant,
        record: Option<ExitRecord>,
    },
}

/// A session that goes on without its client.
#[derive(Debug)]
struct Left {
    session: GuestSession,
    has_ended: bool,
}

#[derive(Debug)]
struct Client {
    socket: UnixStream,
    mux: Mux,
    kind: Kind,
    /// Whether there may be something to write.
    has_output: bool,
    /// The connection is of no more use.
    gone: bool,
    /// Its session goes on without it.
    lets_go: bool,
}

impl Sessions {
    /// Says whether the end of what an attached client types is the end of the application's input.
    #[must_use]
    pub fn with_stdin_once(self, stdin_once: bool) -> Self {
        Self { stdin_once, ..self }
    }

    /// Whether there is room for another client.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.clients.len() + self.closing.len() + self.left.len() < MAX_SESSIONS
    }

    /// Opens a session with the guest for a client. `early` is what came on the connection already.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn open(
        &mut self,
        socket: UnixStream,
        early: &[u8],
        agent: &mut Agent,
    ) -> Result<(), AgentError> {
        let session = agent.open_session()?;
        let record = None;
        self.add(socket, early, Kind::Guest { session, record });
        Ok(())
    }

    /// Attaches a client to the application.
    pub fn attach(&mut self, socket: UnixStream, early: &[u8]) {
        self.add(socket, early, Kind::Attached { stalled: None });
        if let Some(client) = self.clients.last_mut() {
            client.started(1);
        }
    }

    fn add(&mut self, socket: UnixStream, early: &[u8], kind: Kind) {
        // It opens no streams: those of the protocol are enough.
        let limits = Limits {
            peer_streams: 0,
            ..Limits::default()
        };
        let mut client = Client {
            socket,
            mux: Mux::new(Role::Guest, limits),
            kind,
            has_output: true,
            gone: false,
            lets_go: false,
        };
        let now = u64::try_from(Timestamp::now().as_nanosecond()).ok();
        client.tell(&GuestMessage::Hello(Hello::new(Vec::new(), now)));
        client.tell(&GuestMessage::ConfigAck);
        client.gone |= client.mux.receive(early).is_err();
        self.clients.push(client);
    }

    /// What to wait for.
    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        for client in &self.clients {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, client.has_output);
            fds.push(PollFd::from_borrowed_fd(client.socket.as_fd(), flags));
        }
    }

    /// When to look again although nothing is reported.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let times = self.clients.iter().filter_map(|client| match client.kind {
            Kind::Attached { stalled } => stalled?.checked_add(self.patience),
            Kind::Leaving { until, .. } => Some(until),
            Kind::Guest { .. } => None,
        });
        times.min()
    }

    /// The process of a session runs.
    pub fn started(&mut self, number: u32, pid: u32) {
        if let Some(client) = self.find(number) {
            client.started(pid);
        }
    }

    /// A session is over; its client hears it when it has had all output.
    pub fn ended(&mut self, number: u32, ended: ExitRecord) {
        let mut left = self.left.iter_mut();
        if let Some(left) = left.find(|left| left.session.number() == number) {
            left.has_ended = true;
        }
        if let Some(client) = self.find(number)
            && let Kind::Guest { record, .. } = &mut client.kind
        {
            *record = Some(ended);
        }
    }

    fn find(&mut self, number: u32) -> Option<&mut Client> {
        self.clients.iter_mut().find(
            |client| matches!(&client.kind, Kind::Guest { session, .. } if session.number() == number),
        )
    }

    /// The application has ended, so everything has: those that are attached hear its record, the others that of a
    /// process that was killed with the machine.
    pub fn application_ended(&mut self, record: &ExitRecord) {
        for client in &mut self.clients {
            match &mut client.kind {
                Kind::Attached { .. } => client.leave(record.clone()),
                Kind::Guest { record, .. } => {
                    record.get_or_insert_with(ended_with_the_machine);
                }
                Kind::Leaving { .. } => {}
            }
        }
    }

    /// The machine has ended: nobody will hear more than waits for him already.
    pub fn machine_ended(&mut self) {
        for client in &mut self.clients {
            match client.kind {
                Kind::Leaving { .. } => {}
                Kind::Guest { ref mut record, .. } => {
                    let record = record.take();
                    client.leave(record.unwrap_or_else(ended_with_the_machine));
                }
                // How it ended stands in its records.
                Kind::Attached { .. } => client.gone = true,
            }
        }
        self.clients.retain(|client| !client.gone);
    }

    /// Whether nobody is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// How many bytes of the application's output all attached clients take now.
    #[must_use]
    pub fn room(&self, stream: Stream) -> usize {
        let rooms = self
            .attached()
            .filter_map(|client| client.mux.room(id(stream)));
        rooms.min().unwrap_or(usize::MAX)
    }

    fn attached(&self) -> impl Iterator<Item = &Client> {
        let is_attached = |client: &&Client| matches!(client.kind, Kind::Attached { .. });
        self.clients.iter().filter(is_attached)
    }

    /// Hands output of the application on, at most as much as there is room for.
    pub fn output(&mut self, stream: Stream, bytes: &[u8]) {
        for client in &mut self.clients {
            if matches!(client.kind, Kind::Attached { .. }) {
                // One that wants no more of it is left alone.
                let _ = client.mux.write(id(stream), bytes);
                client.has_output = true;
            }
        }
    }

    /// Moves what can be moved without waiting.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn turn(&mut self, agent: &mut Agent) -> Result<(), AgentError> {
        for client in &mut self.clients {
            client.read();
            client.obey(agent)?;
            client.carry(agent, self.stdin_once);
            client.watch(self.patience);
        }
        for client in self.clients.extract_if(.., |client| client.gone) {
            if let Kind::Guest { session, .. } = client.kind {
                if client.lets_go {
                    let has_ended = false;
                    self.left.push(Left { session, has_ended });
                } else {
                    self.closing.push(session);
                }
            }
        }
        self.left.retain_mut(|Left { session, has_ended }| {
            agent.discard(session);
            !(*has_ended && session.outputs_ended())
        });
        while let Some(session) = self.closing.last() {
            if !sent(agent.close_session(session))? {
                break;
            }
            self.closing.pop();
        }
        Ok(())
    }
}

impl Client {
    fn tell(&mut self, message: &GuestMessage) {
        self.has_output = true;
        let bytes = message.encode().ok();
        let sent = bytes.map(|bytes| self.mux.send_control(&bytes));
        // Messages to a client are few and short: one that does not fit is one that takes none.
        self.gone |= !matches!(sent, Some(Ok(())));
    }

    fn started(&mut self, pid: u32) {
        let unix_ns = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
        self.tell(&GuestMessage::Started {
            pid,
            unix_ns,
            uptime_ns: 0,
        });
    }

    /// Ends the client's streams and tells the record.
    fn leave(&mut self, record: ExitRecord) {
        self.mux.stop(StreamId::STDIN);
        for stream in OUTPUTS {
            self.mux.end(stream);
        }
        self.has_output = true;
        self.kind = Kind::Leaving {
            until: Instant::now() + FAREWELL,
            record: Some(record),
        };
    }

    fn read(&mut self) {
        let mut buffer = [0; READ_BYTES];
        let mut total = 0;
        while !self.gone && total < TURN_BYTES {
            match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.gone = true,
                Ok((_, count)) => {
                    total += count;
                    self.gone = self.mux.receive(&buffer[..count]).is_err();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.gone = true,
            }
        }
    }

    fn write(&mut self) {
        let mut total = 0;
        while !self.gone && total < TURN_BYTES {
            let bytes = self.mux.output();
            if bytes.is_empty() {
                self.has_output = false;
                return;
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, bytes, flags) {
                Ok(count) => {
                    total += count;
                    self.mux.written(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.gone = true,
            }
        }
        self.has_output = true;
    }

    /// Does what the client says. One that says what does not belong here is cut off.
    fn obey(&mut self, agent: &mut Agent) -> Result<(), AgentError> {
        while let Some(event) = self.mux.next_event() {
            let Event::Control(bytes) = event else {
                self.gone = true;
                return Ok(());
            };
            match HostMessage::decode(&bytes) {
                Ok(HostMessage::Hello(theirs)) => {
                    self.gone |= Hello::new(Vec::new(), None).negotiate(&theirs).is_err();
                }
                Ok(HostMessage::Signal { signal }) => match &self.kind {
                    Kind::Guest { session, .. } => {
                        sent(agent.signal_session(session, signal))?;
                    }
                    Kind::Attached { .. } => {
                        sent(agent.signal(signal))?;
                    }
                    Kind::Leaving { .. } => {}
                },
                Ok(HostMessage::WindowSize(size)) => match &self.kind {
                    Kind::Guest { session, .. } => {
                        sent(agent.resize_session(session, size))?;
                    }
                    Kind::Attached { .. } => {
                        sent(agent.resize(size))?;
                    }
                    Kind::Leaving { .. } => {}
                },
                // It leaves, and its program goes on.
                Ok(HostMessage::ExitAck) if matches!(self.kind, Kind::Guest { .. }) => {
                    self.lets_go = true;
                    self.gone = true;
                }
                // It has heard the end.
                Ok(HostMessage::ExitAck) if matches!(self.kind, Kind::Leaving { .. }) => {
                    self.gone = true;
                }
                Ok(_) | Err(_) => self.gone = true,
            }
        }
        Ok(())
    }

    /// Moves bytes both ways until nothing moves any more, or enough has for this turn.
    fn carry(&mut self, agent: &mut Agent, stdin_once: bool) {
        for _ in 0..TURN_BYTES / READ_BYTES {
            let moved = match &mut self.kind {
                Kind::Guest { session, .. } => agent.relay(session, &mut self.mux),
                Kind::Attached { .. } => {
                    input(&mut self.mux, agent, stdin_once);
                    false
                }
                Kind::Leaving { .. } => false,
            };
            self.has_output |= moved;
            self.write();
            if !moved {
                break;
            }
        }
        if let Kind::Guest { session, record } = &mut self.kind
            && session.outputs_ended()
            && let Some(record) = record.take()
        {
            self.leave(record);
            self.write();
        }
        if let Kind::Leaving { record, .. } = &mut self.kind
            && OUTPUTS.iter().all(|stream| self.mux.is_sent(*stream))
            && let Some(record) = record.take()
        {
            self.tell(&GuestMessage::Exit(record));
            self.write();
        }
    }

    /// Ends the patience with a client that holds others up.
    fn watch(&mut self, patience: Duration) {
        match &mut self.kind {
            Kind::Attached { stalled } => {
                let is_full = OUTPUTS
                    .iter()
                    .any(|stream| self.mux.room(*stream) == Some(0));
                if !is_full {
                    *stalled = None;
                } else if stalled.get_or_insert_with(Instant::now).elapsed() >= patience {
                    self.gone = true;
                }
            }
            Kind::Leaving { until, .. } => self.gone |= *until <= Instant::now(),
            Kind::Guest { .. } => {}
        }
    }
}

/// What an attached client types is the application's; the end of it is not, since others may come, unless its input is
/// there for one only.
fn input(mux: &mut Mux, agent: &mut Agent, once: bool) {
    let bytes = match mux.peek(StreamId::STDIN) {
        Incoming::Bytes(bytes) => bytes,
        Incoming::Ended if once => return agent.end_stdin(),
        Incoming::Ended | Incoming::Pending => return,
    };
    if agent.stdin_room() == Some(0) {
        return;
    }
    match agent.write_stdin(bytes) {
        Some(count) => mux.consume(StreamId::STDIN, count),
        None => mux.stop(StreamId::STDIN),
    }
}

/// Whether a message was sent. A guest that takes none at the moment (it is paused, or busy) is no reason to end it.
fn sent(outcome: Result<(), AgentError>) -> Result<bool, AgentError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(AgentError::Send(SendError::ControlFull)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn id(stream: Stream) -> StreamId {
    match stream {
        Stream::Stdout => StreamId::STDOUT,
        Stream::Stderr => StreamId::STDERR,
    }
}

/// What became of a process whose machine ended before it.
fn ended_with_the_machine() -> ExitRecord {
    ExitRecord {
        status: ExitStatus::Signaled {
            signal: Signal::KILL,
            core_dumped: false,
        },
        oom_killed: false,
        finished_unix_ns: u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
