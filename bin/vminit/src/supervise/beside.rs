//! The loop of an agent: the image's own init is process 1, and has the first and the last word.

use std::time::{Duration, Instant};

use firebuild_guest_proto::{ExitRecord, ExitStatus, Signal};
use rustix::event::{PollFd, PollFlags, poll};

use super::{PIPE_GRACE, Phase, SIGTERM, Supervisor};
use crate::clock;
use crate::system::System;
use crate::wait::timespec;

/// How long the image's init may take when nobody is waiting for it with a limit of its own: a little more than systemd
/// gives a service.
const SYSTEM_GRACE: Duration = Duration::from_secs(100);
/// How long it may take when the application had to be killed; the host waits little longer.
const RUSHED_GRACE: Duration = Duration::from_secs(2);
/// How long an application has that the image's init has told to end: busybox kills what is left after a second.
const LAST_WORD_GRACE: Duration = Duration::from_millis(500);
/// Between two requests to an init that is in the middle of its boot, and for how long it is asked.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const INSISTENCE: Duration = Duration::from_secs(60);
/// How something ended that was not waited for.
const KILLED: ExitStatus = ExitStatus::Signaled {
    signal: Signal::KILL,
    core_dumped: false,
};

impl Supervisor<'_> {
    /// Whether the application runs as a child of this process.
    pub(super) fn has_child(&self) -> bool {
        let application = self.application.as_ref();
        application.is_some_and(|application| !application.pid.is_init())
    }

    /// The image's init has the system up: the application that waited for it starts.
    pub(super) fn cue(&mut self) {
        // Not into a system that goes down.
        if self.deadline.is_some() {
            return;
        }
        let Some(waiting) = self.system.as_mut().and_then(System::take_waiting) else {
            return;
        };
        match waiting.start() {
            Ok(application) => self.carry(application),
            Err(error) => {
                let message = firebuild_guest_proto::message::one_line(&error.chain());
                self.journal.error(&message);
                self.no_streams();
                let reason = error.reason();
                self.end_system(ExitStatus::Failed { reason, message }, false);
            }
        }
    }

    /// The system is to end in the middle of its boot, before the application was started: there is nothing to wait for, and
    /// not every init says a last word then. The host hears the end now; the rest is left to [`Supervisor::insist`].
    pub(super) fn boot_is_cut(&mut self) {
        if let Some(system) = &mut self.system {
            system.shut_down(self.journal);
        }
        self.insists = true;
        self.system_ends(None);
    }

    /// Asks the init until it ends this process, or until the host has lost its patience.
    pub(super) fn insist(&mut self) {
        let begin = Instant::now();
        while self.insists && begin.elapsed() < INSISTENCE {
            let mut fds = [PollFd::new(&self.signals, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&timespec(ASK_AGAIN)));
            while let Ok(Some(received)) = self.signals.read() {
                if received.number == SIGTERM {
                    return;
                }
            }
            if let Some(system) = &self.system {
                system.ask_again();
            }
        }
    }

    /// The application has ended, and the system ends with it.
    pub(super) fn end_system(&mut self, status: ExitStatus, oom_killed: bool) {
        let Some(system) = &mut self.system else {
            return;
        };
        system.status = Some(status);
        system.oom_killed = oom_killed;
        if self.last_word {
            return self.system_ends(None);
        }
        system.shut_down(self.journal);
        // A system that hangs in its shutdown is not waited for for ever.
        if self.deadline.is_none() {
            self.deadline = Instant::now().checked_add(SYSTEM_GRACE);
        }
    }

    /// The image's init ends everything that still runs, this process too. An application of ours has got the same signal,
    /// and how it ends is to be told.
    pub(super) fn system_says_goodbye(&mut self) {
        if self.has_child() {
            self.last_word = true;
            self.deadline = Instant::now().checked_add(LAST_WORD_GRACE);
        } else {
            self.system_ends(None);
        }
    }

    /// What the unit of the application tells.
    pub(super) fn look_at_system(&mut self) {
        let Some(system) = &mut self.system else {
            return;
        };
        if system.turn() && self.phase == Phase::Running {
            self.application = None;
            self.health = None;
            system.shut_down(self.journal);
            if self.deadline.is_none() {
                self.deadline = Instant::now().checked_add(SYSTEM_GRACE);
            }
        }
    }

    /// The image's init has ended everything else: the record is what is left to do. `status` is for an application that
    /// has not ended by itself.
    pub(super) fn system_ends(&mut self, status: Option<ExitStatus>) {
        if self.phase != Phase::Running {
            return;
        }
        let never_started = self.system.as_mut().and_then(System::take_waiting);
        if never_started.is_some() {
            self.journal
                .warning("the system ended before the application could start");
            self.no_streams();
        }
        if let Some(system) = &mut self.system {
            system.turn();
            let status = system
                .status
                .clone()
                .or(status)
                .unwrap_or(ExitStatus::Exited { code: 0 });
            self.record = Some(ExitRecord {
                status,
                oom_killed: system.oom_killed,
                finished_unix_ns: clock::unix_ns(),
            });
        }
        self.health = None;
        self.enter(Phase::Draining, Some(PIPE_GRACE));
    }

    /// The time of a phase of the system is over.
    pub(super) fn system_is_late(&mut self) {
        if self.last_word {
            return self.system_ends(Some(KILLED));
        }
        if self.has_child() && !self.killed {
            self.killed = true;
            self.signal(Signal::KILL);
            self.deadline = Instant::now().checked_add(RUSHED_GRACE);
            return;
        }
        self.journal
            .warning("the image's init does not end in time; the machine ends without it");
        self.forced = true;
        self.system_ends(Some(KILLED));
    }
}
