//! The one loop of an owner: the machine, its channel, the front, the control socket, the log.
//!
//! ```text
//!            ┌─ machine.pump, agent.pump ─ events ─ output ─ input ─ signals ─ requests ─ deadlines ─┐
//!            └──────────────────────────────────── poll ◀──────────────────────────────────────────┘
//! ```
//!
//! Nothing in a turn blocks but writes to the log. Output is taken from the guest only as far as the
//! front has room for it, so a reader who stalls stops the application's writes, and only those.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use firebuild_guest_proto::{ExitRecord, ExitStatus, Incoming, MessageLevel, Signal};
use firebuild_vm::{Agent, AgentEvent, Machine, MachineState};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::control::{Answer, Request, Server};
use super::front::{Front, Notice, SignalMeaning};
use super::output::Output;
use super::report::{News, Reporter};
use super::terminal;
use crate::instance::{Ended, FORMAT, Owned, RECORDS, Started};
use crate::log_file::{LogWriter, Stream};

/// How long a guest may take to restart after its exit record was acknowledged.
const RESTART: Duration = Duration::from_secs(5);
/// How long a guest may take to report after its application was killed.
const REPORT: Duration = Duration::from_secs(5);
/// The grace period of a monitor that is itself asked to end.
const OWN_GRACE: Duration = Duration::from_secs(10);
/// Interrupts after which the machine is ended, as with `docker run`.
const INSISTENCE: u32 = 3;
/// Lines of the console that an error shows; all of them are in the console's log.
const CONSOLE_LINES: usize = 8;
/// Bytes of the caller's input read in one go.
const INPUT: usize = 64 << 10;

/// An owner at work.
pub(crate) struct EventLoop<'a, 'f> {
    owned: &'a Owned,
    machine: Machine,
    agent: Agent,
    front: Front<'f>,
    log: Option<LogWriter>,
    server: Option<Server>,
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
    /// The guest broke the rules of the channel.
    Fault(String),
}

/// What is left when the loop is over.
pub(crate) struct Finished {
    pub(crate) ended: Ended,
    pub(crate) server: Option<Server>,
    /// What could not be cleaned up.
    pub(crate) cleanup: Vec<String>,
    /// Somebody who still waits for the start.
    pub(crate) reporter: Option<Reporter>,
}

impl<'a, 'f> EventLoop<'a, 'f> {
    pub(crate) fn new(owned: &'a Owned, machine: Machine, agent: Agent, front: Front<'f>) -> Self {
        let mut complain = |what: &str, error: std::io::Error| {
            (front.notices)(Notice::Note(format!("{what}: {error}")));
        };
        let log = LogWriter::open(&owned.instance().path(RECORDS.output))
            .map_err(|error| complain("the output is not recorded", error))
            .ok();
        let server = machine
            .run_dir()
            .ok_or(std::io::ErrorKind::NotFound.into())
            .and_then(Server::new)
            .map_err(|error| complain("other commands cannot reach this VM", error))
            .ok();
        Self {
            owned,
            machine,
            agent,
            front,
            log,
            server,
            phase: Phase::Booting,
            ended_by: None,
            deadline: None,
            kill_at: None,
            interrupts: 0,
            give_up: false,
            channel_closed: false,
            exit: None,
            last_words: None,
        }
    }

    /// Runs until the machine has ended and its output is written.
    pub(crate) fn run(mut self) -> Finished {
        loop {
            let state = self.machine.pump();
            if state == MachineState::Ended {
                // What it sent before its end is still to be read; then the connection says so.
                self.deadline = None;
            }
            self.channel();
            self.input();
            self.signals();
            self.requests();
            self.deadlines();
            if state == MachineState::Ended && self.channel_closed && self.is_drained() {
                break;
            }
            if let Err(error) = self.wait() {
                self.end(EndedBy::Fault(format!("cannot wait for events: {error}")));
                break;
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

    fn event(&mut self, event: AgentEvent) {
        match event {
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
            AgentEvent::Log { text, .. } => (self.front.notices)(Notice::Guest(text)),
            AgentEvent::Started { uptime_ns, .. } => {
                self.phase = self.phase.max(Phase::Running);
                let started = Started {
                    format: FORMAT,
                    started_at: Timestamp::now(),
                    boot_ms: uptime_ns / 1_000_000,
                };
                if let Err(error) = self.owned.write(RECORDS.started, &started) {
                    (self.front.notices)(Notice::Note(format!(
                        "the start is not recorded: {error}"
                    )));
                }
                if let Some(reporter) = self.front.reporter.take() {
                    reporter.tell(&News::Started);
                }
            }
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
                self.exit = Some(record);
                if let Err(error) = self.agent.acknowledge_exit() {
                    self.fault(&error);
                }
                self.kill_at = None;
                self.deadline = Some(Instant::now() + RESTART);
            }
            // An application's guest takes no tasks; what it says of them is nothing to us.
            AgentEvent::Ready | AgentEvent::Connect { .. } | AgentEvent::Pong => {}
            AgentEvent::Closed => self.channel_closed = true,
        }
    }

    /// Moves output to the log and the front; says whether anything moved.
    fn output(&mut self) -> bool {
        let stdout = take(
            self.agent.stdout(),
            Stream::Stdout,
            self.front.stdout.as_ref(),
            &mut self.log,
            self.give_up,
        );
        let stderr = {
            let front = self.front.stderr.as_ref();
            take(
                self.agent.stderr(),
                Stream::Stderr,
                front,
                &mut self.log,
                self.give_up,
            )
        };
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
    fn input(&mut self) {
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

    fn signals(&mut self) {
        while let Ok(Some(received)) = self.front.signals.read() {
            let Some(signal) = u8::try_from(received.number)
                .ok()
                .and_then(Signal::from_number)
            else {
                continue;
            };
            if received.number == WINCH {
                self.resize();
            } else if self.front.meaning == SignalMeaning::Stop {
                self.stop(OWN_GRACE, None);
            } else {
                self.forward(signal);
            }
        }
    }

    fn resize(&mut self) {
        let size = self.front.terminal.as_ref().and_then(terminal::size);
        if let Some(size) = size
            && let Err(error) = self.agent.resize(size)
        {
            self.fault(&error);
        }
    }

    /// A signal to `run` is the application's, once there is one.
    fn forward(&mut self, signal: Signal) {
        if self.phase == Phase::Booting {
            self.end(EndedBy::Signal(signal.number()));
            return;
        }
        if matches!(signal, Signal::INT | Signal::TERM) {
            self.interrupts += 1;
            if self.interrupts >= INSISTENCE {
                self.give_up = true;
                self.end(EndedBy::Kill);
                return;
            }
        }
        if self.phase == Phase::Running
            && let Err(error) = self.agent.signal(signal)
        {
            self.fault(&error);
        }
    }

    fn requests(&mut self) {
        // The closure needs the rest of `self`.
        let Some(mut server) = self.server.take() else {
            return;
        };
        server.serve(&mut |request| self.request(&request));
        self.server = Some(server);
    }

    fn request(&mut self, request: &Request) -> Option<Answer> {
        let number = match request {
            Request::Stop { signal, .. } | Request::Kill { signal } => *signal,
            Request::Wait => return None,
        };
        let signal = match number.map(Signal::from_number) {
            Some(None) => return Some(Answer::refused("there is no such signal")),
            Some(Some(signal)) => Some(signal),
            None => None,
        };
        match request {
            Request::Stop { grace_ms, .. } => self.stop(Duration::from_millis(*grace_ms), signal),
            Request::Kill { .. } => match signal {
                None => self.end(EndedBy::Kill),
                Some(_) if self.phase == Phase::Booting => {
                    if signal == Some(Signal::KILL) {
                        self.end(EndedBy::Kill);
                    } else {
                        return Some(Answer::refused("its application does not run yet"));
                    }
                }
                Some(signal) => {
                    if signal == Signal::KILL {
                        self.deadline_within(REPORT);
                    }
                    if let Err(error) = self.agent.signal(signal) {
                        self.fault(&error);
                    }
                }
            },
            Request::Wait => {}
        }
        Some(Answer::done())
    }

    /// Asks the application to end, and sees to it that it does.
    fn stop(&mut self, grace: Duration, signal: Option<Signal>) {
        if self.phase == Phase::Booting {
            self.end(EndedBy::Kill);
            return;
        }
        let asked = match signal {
            None => self.agent.shutdown(grace),
            Some(signal) => {
                self.kill_at = Instant::now().checked_add(grace);
                self.agent.signal(signal)
            }
        };
        if let Err(error) = asked {
            self.fault(&error);
        }
        self.deadline_within(grace.saturating_add(REPORT));
    }

    fn deadline_within(&mut self, time: Duration) {
        let wanted = Instant::now().checked_add(time);
        self.deadline = match (self.deadline, wanted) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
    }

    fn deadlines(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            if let Err(error) = self.agent.signal(Signal::KILL) {
                self.fault(&error);
            }
        }
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            if self.exit.is_some() {
                // It has said how it ended; how it leaves does not matter.
                let _ = self.machine.kill();
            } else {
                self.end(EndedBy::Kill);
            }
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
        let deadline = [self.deadline, self.kill_at].into_iter().flatten().min();
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

    fn finish(mut self) -> Finished {
        if let Some(log) = &mut self.log {
            let _ = log.finish();
        }
        drop(self.front.raw.take());
        let end = self.machine.finish();
        let killed = end.killed;
        let (exit_code, error) = match (&self.exit, &self.ended_by) {
            (Some(record), _) => (record.exit_code(), failure(record)),
            (None, Some(EndedBy::Kill)) => (128 + Signal::KILL.number(), String::new()),
            (None, Some(EndedBy::Signal(number))) => (128 + number, String::new()),
            (None, Some(EndedBy::Fault(text))) => (125, text.clone()),
            (None, None) => {
                let code = match end.exit {
                    Some(firebuild_sys::process::Exit::Signal(9)) if !killed => 137,
                    _ => 125,
                };
                (code, last_words(&end, self.last_words.as_deref()))
            }
        };
        Finished {
            ended: Ended {
                format: FORMAT,
                exit_code,
                oom_killed: self.exit.as_ref().is_some_and(|record| record.oom_killed),
                error,
                finished_at: Timestamp::now(),
            },
            server: self.server,
            cleanup: end.cleanup.iter().map(|error| chain(error)).collect(),
            reporter: self.front.reporter.take(),
        }
    }
}

/// `SIGWINCH`, `signal(7)`.
pub(crate) const WINCH: i32 = 28;

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
    log: &mut Option<LogWriter>,
    give_up: bool,
) -> Taken {
    let Incoming::Bytes(bytes) = incoming else {
        return Taken::Nothing;
    };
    let mut bytes = bytes;
    match front {
        Some(front) if front.is_broken() && !give_up => return Taken::Stop,
        Some(front) if !give_up => {
            bytes = &bytes[..bytes.len().min(front.room())];
            front.push(bytes);
        }
        _ => {}
    }
    if bytes.is_empty() {
        return Taken::Nothing;
    }
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

/// What kept the application from running, if it did not run.
fn failure(record: &ExitRecord) -> String {
    match &record.status {
        ExitStatus::Failed { message, .. } => message.clone(),
        _ => String::new(),
    }
}

/// For a machine that ended without an exit record: how, and what it said last.
fn last_words(end: &firebuild_vm::MachineEnd, words: Option<&str>) -> String {
    let mut text = end.words();
    if let Some(words) = words {
        text.push_str(&format!("\n  guest init: {words}"));
    }
    for line in interesting(&end.console) {
        text.push_str(&format!("\n  console: {line}"));
    }
    text
}

/// The lines of a console that tell why a machine ended: those from a panic of the kernel on, else the
/// last ones.
fn interesting(console: &[String]) -> &[String] {
    let panic = console
        .iter()
        .position(|line| line.contains("Kernel panic") || line.contains("Oops"));
    let from = panic.unwrap_or(console.len().saturating_sub(CONSOLE_LINES));
    let lines = &console[from..];
    &lines[..lines.len().min(CONSOLE_LINES)]
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
