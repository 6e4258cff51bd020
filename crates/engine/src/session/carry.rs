//! The loop of a command that carries streams: one connection, one input, two outputs.
//!
//! What is read is bounded by what the other end takes: input waits for credit, output for whoever reads it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use firebuild_guest_proto::{ExitRecord, Incoming, Signal};
use firebuild_sys::signal::SignalFd;
use firebuild_vm::{Agent, AgentError, AgentEvent};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::detach_keys::DetachKeys;
use crate::monitor::{Output, WINCH, terminal_size};

/// Bytes of input read in one go.
const INPUT: usize = 64 << 10;
/// Interrupts after which the command itself ends, as with `run`.
const INSISTENCE: u32 = 3;

/// What is carried.
pub(super) struct Carry {
    pub(super) agent: Agent,
    /// What goes before the input.
    pub(super) prefix: Vec<u8>,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    /// Signals that are the program's; a change of the window's size is told.
    pub(super) signals: Option<SignalFd>,
    /// The terminal whose size the program follows.
    pub(super) terminal: Option<OwnedFd>,
    /// Keys that end the command and not the program.
    pub(super) keys: Option<DetachKeys>,
    /// Whether the other end is told that what it does for this command goes on after the detach keys.
    pub(super) lets_go: bool,
    /// Whether signals other than those of the window are passed on.
    pub(super) proxy: bool,
    /// When it is given up if nothing has come back by then.
    pub(super) deadline: Option<Instant>,
}

/// How carrying ended.
#[derive(Debug)]
pub(super) enum Carried {
    /// With a record, and all output is written.
    Exited(ExitRecord),
    /// By the detach keys.
    Detached,
    /// By this signal, the last of many or one that is not passed on.
    GaveUp(u8),
    /// The deadline came.
    Late,
    /// The other end went away without a record.
    Closed,
}

impl Carry {
    /// Runs until it is over.
    pub(super) fn run(mut self) -> Result<Carried, AgentError> {
        let mut interrupts = 0;
        let mut record: Option<ExitRecord> = None;
        let mut closed = false;
        loop {
            self.agent.pump(None)?;
            loop {
                let moved = self.output();
                match self.agent.next_event()? {
                    Some(AgentEvent::Exited(ended)) => {
                        self.agent.acknowledge_exit()?;
                        // It goes out if it can; the other end does without.
                        let _ = self.agent.pump(None);
                        record = Some(ended);
                    }
                    // What came before it may still have to be written.
                    Some(AgentEvent::Closed) => closed = true,
                    Some(AgentEvent::Started { .. }) => {
                        self.deadline = None;
                        self.resize()?;
                    }
                    Some(_) => {}
                    None if !moved => break,
                    None => {}
                }
            }
            let over = record.is_some() || closed;
            if over && self.is_drained() {
                return Ok(record.map_or(Carried::Closed, Carried::Exited));
            }
            if !over && self.input() {
                // The end of a program that nobody has seen: it may go on. What is attached hears nothing of it.
                if self.lets_go {
                    self.agent.acknowledge_exit()?;
                    let _ = self.agent.pump(None);
                }
                return Ok(Carried::Detached);
            }
            if let Some(number) = self.signals(&mut interrupts)? {
                return Ok(Carried::GaveUp(number));
            }
            if self.deadline.is_some_and(|at| at <= Instant::now()) {
                return Ok(Carried::Late);
            }
            self.wait()?;
        }
    }

    fn is_drained(&self) -> bool {
        self.stdout.is_drained() && self.stderr.is_drained()
    }

    /// Moves output as far as there is room; says whether anything moved.
    fn output(&mut self) -> bool {
        let taken = take(self.agent.stdout(), &self.stdout);
        match taken {
            Some(0) => {}
            Some(count) => self.agent.consume_stdout(count),
            None => self.agent.stop_stdout(),
        }
        let also = take(self.agent.stderr(), &self.stderr);
        match also {
            Some(0) => {}
            Some(count) => self.agent.consume_stderr(count),
            None => self.agent.stop_stderr(),
        }
        taken != Some(0) || also != Some(0)
    }

    /// Moves input; true when the detach keys were pressed.
    fn input(&mut self) -> bool {
        while !self.prefix.is_empty() {
            match self.agent.write_stdin(&self.prefix) {
                Some(count @ 1..) => drop(self.prefix.drain(..count)),
                Some(0) => return false,
                // The other end reads no more.
                None => self.prefix.clear(),
            }
        }
        let room = self.agent.stdin_room();
        let Some(stdin) = &self.stdin else {
            if room.is_some() {
                self.agent.end_stdin();
            }
            return false;
        };
        let Some(room) = room else {
            self.stdin = None; // the program reads no more
            return false;
        };
        // Held-back keys may come on top.
        let room = room.saturating_sub(16);
        if room == 0 || !is_readable(stdin) {
            return false;
        }
        let mut buffer = [0; INPUT];
        match rustix::io::read(stdin, &mut buffer[..room.min(INPUT)]) {
            Ok(count) if count > 0 => {
                let typed = &buffer[..count];
                let Some(keys) = &mut self.keys else {
                    self.agent.write_stdin(typed);
                    return false;
                };
                let (typed, detach) = keys.filter(typed);
                self.agent.write_stdin(&typed);
                if detach {
                    let _ = self.agent.pump(None);
                }
                detach
            }
            Err(Errno::INTR | Errno::AGAIN) => false,
            // The end; a terminal that has gone, a directory: nothing more will come.
            Ok(_) | Err(_) => {
                self.stdin = None;
                false
            }
        }
    }

    /// Passes signals on; gives the one by which the command shall end.
    fn signals(&mut self, interrupts: &mut u32) -> Result<Option<u8>, AgentError> {
        let Some(signals) = &self.signals else {
            return Ok(None);
        };
        let mut resized = false;
        while let Ok(Some(received)) = signals.read() {
            let number = u8::try_from(received.number).ok();
            let Some(signal) = number.and_then(Signal::from_number) else {
                continue;
            };
            if received.number == WINCH {
                resized = true;
                continue;
            }
            *interrupts += u32::from(matches!(signal, Signal::INT | Signal::TERM));
            if *interrupts >= INSISTENCE || !self.proxy {
                return Ok(Some(signal.number()));
            }
            self.agent.signal(signal)?;
        }
        if resized {
            self.resize()?;
        }
        Ok(None)
    }

    fn resize(&mut self) -> Result<(), AgentError> {
        match self.terminal.as_ref().and_then(terminal_size) {
            Some(size) => self.agent.resize(size),
            None => Ok(()),
        }
    }

    fn wait(&self) -> Result<(), AgentError> {
        let mut fds: Vec<PollFd<'_>> = self.agent.poll_fd().into_iter().collect();
        for output in [&self.stdout, &self.stderr] {
            fds.push(PollFd::from_borrowed_fd(output.wake_fd(), PollFlags::IN));
        }
        if let Some(stdin) = &self.stdin
            && self.prefix.is_empty()
            && self.agent.stdin_room().is_some_and(|room| room > 16)
        {
            fds.push(PollFd::new(stdin, PollFlags::IN));
        }
        if let Some(signals) = &self.signals {
            fds.push(PollFd::new(signals, PollFlags::IN));
        }
        let timeout = self
            .deadline
            .map(|at| timespec(at.saturating_duration_since(Instant::now())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(AgentError::Io(error.into())),
        }
        drop(fds);
        for output in [&self.stdout, &self.stderr] {
            output.clear();
        }
        Ok(())
    }
}

/// Hands on what there is room for, and says how much; `None` when nobody wants it any more.
fn take(incoming: Incoming<'_>, output: &Output) -> Option<usize> {
    let Incoming::Bytes(bytes) = incoming else {
        return Some(0);
    };
    if output.is_broken() {
        return None;
    }
    let count = bytes.len().min(output.room());
    output.push(&bytes[..count]);
    Some(count)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Whether a read returns at once.
fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&timespec(Duration::ZERO))), Ok(ready) if ready > 0)
}
