//! What people ask of a machine: signals, the requests of other commands, and the deadlines that follow from them.

use std::time::{Duration, Instant};

use firebuild_guest_proto::Signal;

use super::{EndedBy, EventLoop, Phase, WINCH};
use crate::monitor::control::{Answer, NewSession, Request, SessionKind, Verdict};
use crate::monitor::front::SignalMeaning;
use crate::monitor::terminal;
use crate::stop::grace_of;

/// How long a guest may take to report after its application was killed.
const REPORT: Duration = Duration::from_secs(5);
/// Interrupts after which the machine is ended, as with `docker run`.
const INSISTENCE: u32 = 3;

impl EventLoop<'_, '_> {
    pub(super) fn signals(&mut self) {
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
                self.again = false;
                self.stop(grace_of(self.owned.instance(), None), None);
            } else {
                self.forward(signal);
            }
        }
    }

    pub(super) fn resize(&mut self) {
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
            self.stopped = true;
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

    pub(super) fn requests(&mut self) {
        // The closure needs the rest of `self`.
        let Some(mut server) = self.server.take() else {
            return;
        };
        server.serve(&mut |request| self.request(&request));
        let new = server.take_sessions();
        self.server = Some(server);
        self.new_sessions(new);
    }

    fn request(&mut self, request: &Request) -> Verdict {
        let number = match request {
            Request::Wait => return Verdict::Later,
            Request::Session | Request::Attach => return self.may_stay(request),
            Request::Pause => return self.pause(true),
            Request::Unpause => return self.pause(false),
            Request::MmdsGet | Request::MmdsPut { .. } | Request::MmdsPatch { .. } => {
                return self.mmds(request);
            }
            Request::Balloon => return self.balloon(),
            Request::Stop { signal, .. }
            | Request::Restart { signal, .. }
            | Request::Kill { signal } => *signal,
        };
        let signal = match number.map(Signal::from_number) {
            Some(None) => return Verdict::Answer(Answer::refused("there is no such signal")),
            Some(Some(signal)) => Some(signal),
            None => None,
        };
        Verdict::Answer(match request {
            Request::Stop { grace_ms, .. } => {
                self.again = false;
                self.stop(Duration::from_millis(*grace_ms), signal);
                Answer::done()
            }
            Request::Restart { grace_ms, .. } => {
                self.again = true;
                self.stop(Duration::from_millis(*grace_ms), signal);
                Answer::done()
            }
            _ => self.kill(signal),
        })
    }

    fn kill(&mut self, signal: Option<Signal>) -> Answer {
        match signal {
            None => {
                self.again = false;
                self.stopped = true;
                self.end(EndedBy::Kill);
            }
            Some(Signal::KILL) if self.phase == Phase::Booting => self.end(EndedBy::Kill),
            Some(_) if self.phase == Phase::Booting => {
                return Answer::refused("its application does not run yet");
            }
            Some(signal) => {
                // As in Docker: what these end stays ended.
                let stop_signal = &self.owned.instance().record().stop_signal;
                if signal == Signal::KILL || signal.to_string() == *stop_signal {
                    self.stopped = true;
                }
                if signal == Signal::KILL {
                    // One whose processors stand would never hear of it.
                    self.let_go_on();
                    self.deadline_within(REPORT);
                }
                if let Err(error) = self.agent.signal(signal) {
                    self.fault(&error);
                }
            }
        }
        Answer::done()
    }

    /// Whether a connection may become a client's.
    fn may_stay(&self, request: &Request) -> Verdict {
        let refused = |problem: &str| Verdict::Answer(Answer::refused(problem));
        if !self.sessions.has_room() {
            return refused("too many commands work with it already; end some of them");
        }
        match request {
            _ if self.paused => {
                refused("it is paused; let it go on with 'firebuild unpause' first")
            }
            Request::Attach if self.phase < Phase::Exited => Verdict::Session(SessionKind::Attach),
            Request::Session if self.agent.takes_sessions() => Verdict::Session(SessionKind::Guest),
            _ if self.phase == Phase::Booting => refused("its application does not run yet"),
            _ => refused("its application does not run any more"),
        }
    }

    fn new_sessions(&mut self, new: Vec<NewSession>) {
        for NewSession {
            kind,
            socket,
            early,
        } in new
        {
            match kind {
                SessionKind::Attach => self.sessions.attach(socket, &early),
                SessionKind::Guest => {
                    // A guest that takes no messages gets no session: the connection is closed.
                    let _ = self.sessions.open(socket, &early, &mut self.agent);
                }
            }
        }
    }

    /// Asks the application to end, and sees to it that it does.
    fn stop(&mut self, grace: Duration, signal: Option<Signal>) {
        self.stopped = true;
        if self.phase == Phase::Booting {
            self.end(EndedBy::Kill);
            return;
        }
        self.let_go_on();
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

    pub(super) fn deadlines(&mut self) {
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
}
