//! The supervisor: one poll loop from the start of the application to the host's acknowledgement of its end.
//!
//! ```text
//!   Running ──application ends──▶ Clearing ──nobody left──▶ Draining ──outputs ended──▶ Reporting
//!     │  streams, signals,          │ SIGTERM, 1 s,           │ what the pipes still      │ ends of streams on their
//!     │  window sizes               │ SIGKILL                 │ hold; 2 s at most         │ way, then the record
//!     ▼                                                                                   ▼
//!   Shutdown: stop signal, grace, SIGKILL                      done ◀──ExitAck── Acknowledging
//! ```
//!
//! Each phase but the first and the last has a deadline of its own; the last waits for the host as long as the host is
//! there.
//!
//! The loop is here; what the host says is in `host`, the phases after the application's end in `ends`, and what is different
//! beside the image's own init in `beside`.

mod beside;
mod ends;
mod host;

use std::time::{Duration, Instant};

use firebuild_guest_proto::{ExitRecord, ExitStatus, GuestMessage, HealthCheck, Signal, StreamId};
use firebuild_sys::signal::SignalFd;
use rustix::event::{PollFd, poll};
use rustix::process::Pid;

use crate::boot::{End, Ready};
use crate::channel::Link;
use crate::clock;
use crate::health::Health;
use crate::journal::Journal;
use crate::launch::{Application, Surroundings};
use crate::metadata::Metadata;
use crate::mounts::Writable;
use crate::sessions::{Common, Sessions};
use crate::stdio::{Ids, Stdio};
use crate::system::{self, System};
use crate::wait::timespec;

use ends::{Ended, next_child};
pub(crate) use ends::{exit_status, oom_kills};

/// How long what the application left behind has after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// How long it has after SIGKILL: only what hangs in the kernel needs it.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// How long outputs are drained that somebody still holds open.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How long a host that has gone away is waited for at the end.
const HOST_GRACE: Duration = Duration::from_secs(10);
/// The grace of a shutdown that the guest itself asks for (`reboot`, Ctrl+Alt+Delete).
const OWN_SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// How long named pipes are read that have no end of their own.
const PIPE_GRACE: Duration = Duration::from_millis(300);
const SIGCHLD: i32 = 17;
const SIGTERM: i32 = 15;
/// What programs send to an init to end the machine: SIGINT (also Ctrl+Alt+Delete), SIGTERM, SIGUSR1 and SIGUSR2 (busybox)
/// and SIGPWR.
const SHUTDOWN_SIGNALS: [i32; 5] = [2, 15, 10, 12, 30];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Clearing,
    Draining,
    Reporting,
    Acknowledging,
    Done,
}

/// All that the loop works on.
#[derive(Debug)]
pub(crate) struct Supervisor<'a> {
    link: &'a mut Link,
    journal: &'a mut Journal,
    signals: SignalFd,
    writable: Writable,
    phase: Phase,
    /// When the phase, or the grace of a shutdown, is over.
    deadline: Option<Instant>,
    killed: bool,
    application: Option<Running>,
    stdio: Option<Stdio>,
    /// The image's own init, where this is the agent beside it.
    system: Option<System>,
    /// The machine ends by this process although another one is its init.
    forced: bool,
    /// The image's init is about to end what still runs.
    last_word: bool,
    /// The image's init has to be asked more than once.
    insists: bool,
    health: Option<Health>,
    metadata: Option<Metadata>,
    /// What else the host asks for while there is an application.
    sessions: Option<Sessions>,
    stop_signal: Signal,
    record: Option<ExitRecord>,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    terminal: Option<std::os::fd::OwnedFd>,
    oom_kills: u64,
}

/// The signals that the loop reads; blocked before the application starts, so that none is missed.
pub(crate) fn watch_signals() -> std::io::Result<SignalFd> {
    let mut numbers = vec![SIGCHLD];
    numbers.extend(SHUTDOWN_SIGNALS);
    SignalFd::new(&numbers)
}

impl<'a> Supervisor<'a> {
    pub(crate) fn new(
        link: &'a mut Link,
        journal: &'a mut Journal,
        signals: SignalFd,
        writable: Writable,
    ) -> Supervisor<'a> {
        Supervisor {
            link,
            journal,
            signals,
            writable,
            phase: Phase::Running,
            deadline: None,
            killed: false,
            application: None,
            stdio: None,
            system: None,
            forced: false,
            last_word: false,
            insists: false,
            health: None,
            metadata: None,
            sessions: None,
            stop_signal: Signal::TERM,
            record: None,
        }
    }

    /// Looks at the application's health from its start on.
    pub(crate) fn with_health(
        mut self,
        check: Option<HealthCheck>,
        surroundings: Surroundings,
    ) -> Supervisor<'a> {
        self.health = check.map(|check| Health::new(check, surroundings));
        self
    }

    /// Takes what else the host asks for.
    pub(crate) fn with_sessions(mut self, common: Common) -> Supervisor<'a> {
        self.sessions = Some(Sessions::new(common));
        self
    }

    /// Answers who asks for the machine's metadata.
    pub(crate) fn with_metadata(mut self, metadata: Option<Metadata>) -> Supervisor<'a> {
        self.metadata = metadata;
        self
    }

    /// Watches an application until the host has its exit record.
    pub(crate) fn watch(mut self, ready: Ready, stop_signal: Signal) -> End {
        self.tell();
        let application = match ready {
            Ready::Application(application) => Some(application),
            Ready::System(handed) => {
                self.system = Some(handed.system);
                handed.application
            }
        };
        let pid = application.as_ref().map_or(Pid::INIT, |app| app.pid);
        let started = GuestMessage::Started {
            pid: pid.as_raw_nonzero().get().unsigned_abs(),
            unix_ns: clock::unix_ns(),
            uptime_ns: clock::uptime_ns(),
        };
        self.link.send(&started, self.journal);
        self.stop_signal = stop_signal;
        match application {
            Some(application) => self.carry(application),
            None if self
                .system
                .as_mut()
                .is_some_and(|it| it.waiting().is_some()) => {}
            None => self.no_streams(),
        }
        self.run();
        self.insist();
        if self.system.is_none() || self.forced {
            End::Machine
        } else {
            End::Agent
        }
    }

    /// Carries the streams of an application.
    fn carry(&mut self, application: Application) {
        let is_terminal = application.terminal.is_some();
        let stdio = Stdio::new(
            Ids::APPLICATION,
            application.outputs,
            application.input,
            is_terminal,
            &mut self.link.mux,
        );
        self.stdio = Some(stdio);
        self.application = Some(Running {
            pid: application.pid,
            terminal: application.terminal,
            oom_kills: oom_kills(),
        });
    }

    /// There is nothing to carry.
    fn no_streams(&mut self) {
        let mux = &mut self.link.mux;
        for id in [StreamId::STDOUT, StreamId::STDERR] {
            mux.end(id);
        }
        mux.stop(StreamId::STDIN);
    }

    /// Tells the host that there is no application, and waits until it knows.
    pub(crate) fn report(mut self, status: ExitStatus) {
        self.no_streams();
        self.record = Some(ExitRecord {
            status,
            oom_killed: false,
            finished_unix_ns: clock::unix_ns(),
        });
        self.phase = Phase::Reporting;
        self.run();
    }

    fn run(&mut self) {
        loop {
            self.tell();
            self.link.turn(self.journal);
            self.obey();
            self.read_signals();
            self.look_at_system();
            self.look_at_health();
            if let Some(metadata) = &mut self.metadata {
                metadata.turn();
            }
            let moved = match &mut self.stdio {
                Some(stdio) => stdio.turn(&mut self.link.mux),
                None => false,
            };
            let moved = self.sessions() || moved;
            self.advance(moved);
            if self.phase == Phase::Done {
                return;
            }
            if !moved {
                self.wait();
            }
        }
    }

    /// Goes on with what the host asks for beside the application; says whether anything moved.
    fn sessions(&mut self) -> bool {
        // After the record nothing follows.
        let Some(sessions) = self
            .sessions
            .as_mut()
            .filter(|_| self.phase < Phase::Reporting)
        else {
            return false;
        };
        let moved = sessions.turn(&mut self.link.mux);
        for message in sessions.take_messages() {
            self.link.send(&message, self.journal);
        }
        moved
    }

    /// Sends the lines that wait.
    fn tell(&mut self) {
        // After the record nothing follows; the console has the lines.
        if self.phase == Phase::Acknowledging {
            return;
        }
        for line in self.journal.take() {
            self.link.send(&line, self.journal);
        }
    }

    fn read_signals(&mut self) {
        loop {
            match self.signals.read() {
                Ok(Some(received)) if received.number == SIGCHLD => {}
                // Beside another init this is its last word to all that still runs.
                Ok(Some(received)) if self.system.is_some() => match received.number {
                    SIGTERM => self.system_says_goodbye(),
                    system::CUE => self.cue(),
                    _ => {}
                },
                Ok(Some(_)) => self.shut_down(OWN_SHUTDOWN_GRACE),
                Ok(None) => break,
                Err(error) => {
                    self.journal.error(&format!("cannot read signals: {error}"));
                    break;
                }
            }
        }
        // One SIGCHLD may stand for many children, and it costs little to ask.
        while let Some(ended) = next_child() {
            let Ended::Child(pid, status) = ended else {
                if self.phase == Phase::Clearing {
                    self.enter(Phase::Draining, Some(DRAIN_GRACE));
                }
                break;
            };
            if self
                .application
                .as_ref()
                .is_some_and(|application| application.pid == pid)
            {
                self.application_ended(status);
            } else if let Some(sessions) = &mut self.sessions
                && sessions.ended(pid, exit_status(status))
            {
                // It was the process of a session.
            } else if let Some(health) = &mut self.health {
                health.ended(pid, status);
            }
        }
    }

    fn look_at_health(&mut self) {
        if let Some(health) = &mut self.health
            && let Some(report) = health.turn()
        {
            self.link.send(&GuestMessage::Health(report), self.journal);
        }
    }

    fn wait(&mut self) {
        let health = self.health.as_ref();
        let deadline = [
            self.deadline,
            self.link.wake_at(),
            health.and_then(Health::wake_at),
            self.metadata.as_ref().and_then(Metadata::wake_at),
        ]
        .into_iter()
        .flatten()
        .min();
        let timeout = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        let mut fds = vec![PollFd::new(&self.signals, rustix::event::PollFlags::IN)];
        if let Some(stdio) = &self.stdio {
            let interest = stdio.interest(&self.link.mux);
            fds.extend(
                interest
                    .into_iter()
                    .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)),
            );
        }
        if let Some(events) = self.system.as_ref().and_then(System::events) {
            fds.push(PollFd::from_borrowed_fd(
                events,
                rustix::event::PollFlags::IN,
            ));
        }
        if let Some(output) = health.and_then(Health::output) {
            fds.push(PollFd::from_borrowed_fd(
                output,
                rustix::event::PollFlags::IN,
            ));
        }
        if let Some(metadata) = &self.metadata {
            let interest = metadata.interest().into_iter();
            fds.extend(interest.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        }
        if let Some(sessions) = self
            .sessions
            .as_ref()
            .filter(|_| self.phase < Phase::Reporting)
        {
            let interest = sessions.interest(&self.link.mux);
            fds.extend(
                interest
                    .into_iter()
                    .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)),
            );
        }
        if let Some((fd, flags)) = self.link.interest() {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        // An interrupted wait is a wait that is over.
        let _ = poll(&mut fds, timeout.as_ref());
    }
}
