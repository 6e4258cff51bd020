//! The one loop of an owner: the machine, its channel, the front, the control socket, the log.
//!
//! ```text
//!            ┌─ machine.pump, agent.pump ─ events ─ output ─ input ─ signals ─ requests ─ deadlines ─┐
//!            └──────────────────────────────────── poll ◀──────────────────────────────────────────┘
//! ```
//!
//! Nothing in a turn blocks but writes to the log. Output is taken from the guest only as far as the
//! front has room for it, so a reader who stalls stops the application's writes, and only those.

mod asked;
mod begun;
mod ending;
mod health;
mod metadata;
mod pausing;
mod streams;
mod time;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use firebuild_guest_proto::metadata::Document;
use firebuild_guest_proto::{ExitRecord, MessageLevel};
use firebuild_vm::{Agent, AgentEvent, Machine, MachineState};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::control::Server;
use super::front::{Front, Notice};
use super::output::Output;
use super::report::News;
use super::sessions::Sessions;
use super::vmm::Vmm;
use crate::instance::{Ended, Owned, RECORDS};
use crate::log_file::LogWriter;
use ending::failure;

/// How long a guest may take to restart after its exit record was acknowledged.
const RESTART: Duration = Duration::from_secs(5);

/// How long the image's own init may take for the rest of its shutdown then.
const UNMOUNT: Duration = Duration::from_secs(30);

/// An owner at work.
pub(crate) struct EventLoop<'a, 'f> {
    owned: &'a Owned,
    machine: Machine,
    agent: Agent,
    front: Front<'f>,
    log: Option<LogWriter>,
    server: Option<Server>,
    sessions: Sessions,
    vmm: Vmm,
    /// The processors stand.
    paused: bool,
    /// They are about to stand, or to run again.
    changing: bool,
    /// The VMM is about to have another metadata document.
    putting: bool,
    /// The VMM is about to tell what its balloon does; the number of the work.
    asking: Option<u64>,
    phase: Phase,
    /// Why the machine was ended by this side.
    ended_by: Option<EndedBy>,
    /// When the machine is ended, whatever it does.
    deadline: Option<Instant>,
    /// When the application gets SIGKILL, for a stop with a signal of its own.
    kill_at: Option<Instant>,
    interrupts: u32,
    /// The front has lost its patience: output that nobody takes is dropped.
    give_up: bool,
    channel_closed: bool,
    exit: Option<ExitRecord>,
    /// The last grave words of the guest init that have not been told.
    last_words: Option<String>,
    told: health::Told,
    /// What the guest finds as its metadata.
    metadata: Option<Document>,
    /// When the guest was told the time.
    time_told: Option<Instant>,
    /// When the application began.
    began: Option<Instant>,
    /// How often the policy has started it again.
    restarts: u32,
    /// It is ended by command.
    stopped: bool,
    /// It is ended to be started again.
    again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Booting,
    Running,
    Exited,
}

/// Why an owner ended its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
enum EndedBy {
    /// `kill`, or a stop that ran out of time.
    Kill,
    /// A signal to the owner before the application ran.
    Signal(u8),
    /// The `run` that waited for the start has gone.
    Abandoned,
    /// The guest broke the rules of the channel.
    Fault(String),
}

/// What is left when the loop is over.
pub(crate) struct Finished<'f> {
    pub(crate) ended: Ended,
    pub(crate) server: Option<Server>,
    /// What could not be cleaned up.
    pub(crate) cleanup: Vec<String>,
    /// Whoever asked for it has gone before it was up: nobody knows of it.
    pub(crate) abandoned: bool,
    /// The front, for another run; in it perhaps somebody who still waits for the start.
    pub(crate) front: Front<'f>,
    /// How long the application ran, if it did.
    pub(crate) ran: Option<Duration>,
    /// It was ended by command.
    pub(crate) stopped: bool,
    /// It was ended to be started again.
    pub(crate) again: bool,
}

impl<'a, 'f> EventLoop<'a, 'f> {
    /// `waiting` are those who waited for the end of an earlier run, and go on waiting.
    pub(crate) fn new(
        owned: &'a Owned,
        machine: Machine,
        agent: Agent,
        vmm: Vmm,
        front: Front<'f>,
        waiting: Option<Server>,
    ) -> Self {
        let mut complain = |what: &str, error: std::io::Error| {
            (front.notices)(Notice::Note(format!("{what}: {error}")));
        };
        let log = LogWriter::open(&owned.instance().path(RECORDS.output))
            .map_err(|error| complain("the output is not recorded", error))
            .ok();
        // Of an earlier run that nobody ended in order.
        let _ = owned.forget(RECORDS.paused);
        let server = machine
            .run_dir()
            .ok_or(std::io::ErrorKind::NotFound.into())
            .and_then(Server::new)
            .map_err(|error| complain("other commands cannot reach this VM", error))
            .ok();
        let server = match (server, waiting) {
            (Some(mut server), Some(waiting)) => {
                server.adopt(waiting);
                Some(server)
            }
            (server, waiting) => server.or(waiting),
        };
        Self {
            owned,
            machine,
            agent,
            front,
            log,
            server,
            sessions: Sessions::default().with_stdin_once(owned.instance().record().stdin_once),
            vmm,
            paused: false,
            changing: false,
            putting: false,
            asking: None,
            phase: Phase::Booting,
            ended_by: None,
            deadline: None,
            kill_at: None,
            interrupts: 0,
            give_up: false,
            channel_closed: false,
            exit: None,
            last_words: None,
            told: health::Told::default(),
            metadata: None,
            time_told: None,
            began: None,
            restarts: 0,
            stopped: false,
            again: false,
        }
    }

    /// So many restarts have led here.
    pub(crate) fn restarted(mut self, restarts: u32) -> Self {
        self.restarts = restarts;
        self
    }

    /// Runs until the machine has ended and its output is written.
    pub(crate) fn run(mut self) -> Finished<'f> {
        if self.front.resized {
            self.resize();
        }
        loop {
            let state = self.machine.pump();
            if state == MachineState::Ended {
                // What it sent before its end is still to be read; then the connection says so.
                self.deadline = None;
                self.agent.vmm_ended();
            }
            self.channel();
            self.input();
            self.signals();
            self.requests();
            self.vmm();
            self.sessions();
            self.deadlines();
            self.write_health();
            self.tell_time();
            if state == MachineState::Ended && self.channel_closed && self.is_drained() {
                self.sessions.machine_ended();
                if self.sessions.is_empty() || self.give_up {
                    break;
                }
            }
            match self.wait() {
                Ok(()) => {}
                Err(Errno::PIPE) => {
                    self.end(EndedBy::Abandoned);
                    break;
                }
                Err(error) => {
                    self.end(EndedBy::Fault(format!("cannot wait for events: {error}")));
                    break;
                }
            }
        }
        self.finish()
    }

    /// Whether all output is where it belongs.
    fn is_drained(&self) -> bool {
        let drained = |output: &Option<Output>| output.as_ref().is_none_or(Output::is_drained);
        self.give_up || (drained(&self.front.stdout) && drained(&self.front.stderr))
    }

    /// The channel: messages, and as much output as there is room for.
    fn channel(&mut self) {
        let now = u64::try_from(Timestamp::now().as_nanosecond()).ok();
        if let Err(error) = self.agent.pump(now) {
            self.fault(&error);
            return;
        }
        loop {
            let moved = self.output();
            match self.agent.next_event() {
                Ok(Some(event)) => self.event(event),
                Ok(None) if !moved => return,
                Ok(None) => {}
                Err(error) => {
                    self.fault(&error);
                    return;
                }
            }
        }
    }

    /// What other commands do with the guest.
    fn sessions(&mut self) {
        if let Err(error) = self.sessions.turn(&mut self.agent) {
            self.fault(&error);
        }
    }

    fn event(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::SessionStarted { session, pid } => self.sessions.started(session, pid),
            AgentEvent::SessionEnded { session, record } => self.sessions.ended(session, record),
            AgentEvent::Greeted { .. } => {}
            AgentEvent::Configured => {
                if let Err(error) = self.machine.wipe_initrd() {
                    let text = format!("the initrd could not be wiped: {error}");
                    (self.front.notices)(Notice::Note(text));
                }
            }
            // What makes it fail comes again in its exit record, or is part of how the machine ended.
            AgentEvent::Log {
                level: MessageLevel::Error,
                text,
            } => {
                if let Some(earlier) = self.last_words.replace(text) {
                    (self.front.notices)(Notice::Guest(earlier));
                }
            }
            AgentEvent::Log { level, text } => {
                // Whoever waits for a detached start hears what is not as it was asked for.
                if level == MessageLevel::Warning
                    && let Some(reporter) = &self.front.reporter
                {
                    reporter.tell(&News::Notice {
                        text: format!("guest: {text}"),
                    });
                }
                (self.front.notices)(Notice::Guest(text));
            }
            AgentEvent::Started { uptime_ns, .. } => self.begun(uptime_ns),
            AgentEvent::Health(report) => self.take_health(report),
            AgentEvent::Exited(record) => {
                self.phase = Phase::Exited;
                if let Some(log) = &mut self.log {
                    // A full disk was told when it happened.
                    let _ = log.finish();
                }
                let told = failure(&record);
                if let Some(words) = self.last_words.take().filter(|words| *words != told) {
                    (self.front.notices)(Notice::Guest(words));
                }
                self.sessions.application_ended(&record);
                self.exit = Some(record);
                if let Err(error) = self.agent.acknowledge_exit() {
                    self.fault(&error);
                }
                self.kill_at = None;
                let system = self.owned.instance().record().system;
                let most = if system { UNMOUNT } else { RESTART };
                self.deadline = Some(Instant::now() + most);
            }
            // An application's guest takes no tasks; what it says of them is nothing to us.
            AgentEvent::Ready | AgentEvent::Connect { .. } | AgentEvent::Pong => {}
            AgentEvent::Closed => self.channel_closed = true,
        }
    }

    fn fault(&mut self, error: &dyn std::error::Error) {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text.push_str(&format!(": {cause}"));
            next = cause.source();
        }
        self.channel_closed = true;
        self.end(EndedBy::Fault(text));
    }

    /// Ends the machine; the first reason counts.
    fn end(&mut self, by: EndedBy) {
        self.ended_by.get_or_insert(by);
        if let Err(error) = self.machine.kill() {
            (self.front.notices)(Notice::Note(format!(
                "the machine cannot be ended: {error}"
            )));
        }
    }

    fn wait(&self) -> Result<(), Errno> {
        let mut fds = Vec::new();
        self.machine.poll_fds(&mut fds);
        fds.extend(self.agent.poll_fd().filter(|_| !self.channel_closed));
        if let Some(server) = &self.server {
            server.poll_fds(&mut fds);
        }
        self.sessions.poll_fds(&mut fds);
        if let Some(fd) = self.vmm.poll_fd() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        fds.push(PollFd::new(&self.front.signals, PollFlags::IN));
        for output in [&self.front.stdout, &self.front.stderr]
            .into_iter()
            .flatten()
        {
            fds.push(PollFd::from_borrowed_fd(output.wake_fd(), PollFlags::IN));
        }
        if let Some(stdin) = &self.front.stdin
            && self.agent.stdin_room().is_some_and(|room| room > 0)
        {
            fds.push(PollFd::new(stdin, PollFlags::IN));
        }
        let deadlines = [
            self.deadline,
            self.kill_at,
            self.health_due(),
            self.time_due(),
            self.sessions.wake_at(),
        ];
        let deadline = deadlines.into_iter().flatten().min();
        let timeout = deadline.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        // The reader of the reports has gone when the pipe has an error, which poll tells unasked.
        let reporter = self.front.reporter.as_ref();
        let reported = fds.len();
        if let Some(reporter) = reporter {
            fds.push(PollFd::from_borrowed_fd(
                reporter.as_fd(),
                PollFlags::empty(),
            ));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let abandoned = fds
            .get(reported)
            .is_some_and(|fd| fd.revents().contains(PollFlags::ERR));
        drop(fds);
        for output in [&self.front.stdout, &self.front.stderr]
            .into_iter()
            .flatten()
        {
            output.clear();
        }
        if abandoned {
            return Err(Errno::PIPE);
        }
        Ok(())
    }
}

/// `SIGWINCH`, `signal(7)`.
pub(crate) const WINCH: i32 = 28;
