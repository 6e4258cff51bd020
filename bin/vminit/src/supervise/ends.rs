//! The end of the application, and the phases that follow it until the host knows.

use std::time::{Duration, Instant};

use firebuild_guest_proto::{ExitRecord, ExitStatus, GuestMessage, Signal, StreamId};
use firebuild_sys::signal;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};

use super::{DRAIN_GRACE, HOST_GRACE, KILL_GRACE, Phase, Supervisor, TERM_GRACE};
use crate::sessions::Sessions;
use crate::stdio::Stdio;
use crate::{clock, mounts};

impl Supervisor<'_> {
    pub(super) fn application_ended(&mut self, status: WaitStatus) {
        let Some(application) = self.application.take() else {
            return;
        };
        // Nobody is left whose health there is to tell.
        self.health = None;
        let status = exit_status(status);
        let was_killed = matches!(
            status,
            ExitStatus::Signaled {
                signal: Signal::KILL,
                ..
            }
        );
        let oom_killed = was_killed && oom_kills() > application.oom_kills;
        if self.system.is_some() {
            return self.end_system(status, oom_killed);
        }
        self.record = Some(ExitRecord {
            status,
            oom_killed,
            finished_unix_ns: clock::unix_ns(),
        });
        // Whatever it left behind ends with it, as in a container.
        let _ = signal::send_all(Signal::TERM.number().into());
        self.enter(Phase::Clearing, Some(TERM_GRACE));
    }

    pub(super) fn enter(&mut self, phase: Phase, most: Option<Duration>) {
        self.phase = phase;
        self.deadline = most.and_then(|most| Instant::now().checked_add(most));
    }

    /// Goes on to the next phase where this one is over; not while bytes still come.
    pub(super) fn advance(&mut self, moved: bool) {
        let late = self
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        match self.phase {
            Phase::Running if late && self.system.is_some() => self.system_is_late(),
            Phase::Running if late => {
                self.deadline = None;
                self.signal(Signal::KILL);
            }
            Phase::Clearing if late && !self.killed => {
                self.killed = true;
                let _ = signal::send_all(Signal::KILL.number().into());
                self.enter(Phase::Clearing, Some(KILL_GRACE));
            }
            Phase::Clearing if late => {
                self.journal
                    .warning("a process does not end; the machine ends without it");
                self.enter(Phase::Draining, Some(DRAIN_GRACE));
            }
            _ => {}
        }
        if self.phase == Phase::Draining
            && (late && !moved
                || self.stdio.as_ref().is_none_or(Stdio::outputs_ended)
                    && self.sessions.as_ref().is_none_or(Sessions::is_empty))
        {
            self.drained();
        }
        if self.phase == Phase::Reporting {
            self.report_when_sent();
        }
        let waits_for_host = matches!(
            self.phase,
            Phase::Draining | Phase::Reporting | Phase::Acknowledging
        );
        if waits_for_host && self.link.gone_for() > HOST_GRACE {
            self.journal
                .error("the host has gone; the machine ends without its acknowledgement");
            mounts::settle(&self.writable, self.journal);
            self.phase = Phase::Done;
        }
    }

    fn drained(&mut self) {
        // A full window is no sign of an end: while the host takes output, there may be more of it.
        let is_blocked = [StreamId::STDOUT, StreamId::STDERR]
            .iter()
            .any(|id| self.link.mux.room(*id) == Some(0));
        let is_open = self
            .stdio
            .as_ref()
            .is_some_and(|stdio| !stdio.outputs_ended());
        if is_open && is_blocked {
            self.enter(Phase::Draining, Some(DRAIN_GRACE));
            return;
        }
        if let Some(mut stdio) = self.stdio.take() {
            stdio.abandon(&mut self.link.mux);
        }
        self.enter(Phase::Reporting, None);
    }

    fn report_when_sent(&mut self) {
        // Puts what there is into frames, so that the record comes after the last of it.
        self.link.mux.output();
        if ![StreamId::STDOUT, StreamId::STDERR]
            .iter()
            .all(|id| self.link.mux.is_sent(*id))
        {
            return;
        }
        if let Some(record) = self.record.take() {
            self.tell();
            self.link.send(&GuestMessage::Exit(record), self.journal);
        }
        self.enter(Phase::Acknowledging, None);
        self.link.flush(self.journal);
        // While the host reads the record.
        mounts::settle(&self.writable, self.journal);
    }
}

/// What a wait for children gave.
pub(super) enum Ended {
    Child(Pid, WaitStatus),
    /// There is no child at all: no process but ours is left.
    Nobody,
}

/// The next child that has ended, if there is one.
pub(super) fn next_child() -> Option<Ended> {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => Some(Ended::Child(pid, status)),
        Err(Errno::CHILD) => Some(Ended::Nobody),
        Ok(None) | Err(_) => None,
    }
}

pub(crate) fn exit_status(status: WaitStatus) -> ExitStatus {
    let signal = status
        .terminating_signal()
        .and_then(|number| u8::try_from(number).ok());
    match signal.and_then(Signal::from_number) {
        Some(signal) => {
            // The bit 0x80 of a wait status, wait(2).
            let core_dumped = status.as_raw() & 0x80 != 0;
            ExitStatus::Signaled {
                signal,
                core_dumped,
            }
        }
        None => {
            let code = status.exit_status().unwrap_or(0) & 0xff;
            ExitStatus::Exited {
                code: u8::try_from(code).unwrap_or(u8::MAX),
            }
        }
    }
}

/// How many processes the kernel has killed for want of memory.
pub(crate) fn oom_kills() -> u64 {
    let text = fs_err::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}
