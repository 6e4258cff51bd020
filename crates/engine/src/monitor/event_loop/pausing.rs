//! What goes through the control connection of a VMM: stopping the processors and letting them run again; another metadata
//! document, where the VMM serves it; what the balloon tells. Whoever asked is answered when it has been done; the loop goes on meanwhile.

use firebuild_vm::backend::{ControlError, ControlErrorKind};
use jiff::Timestamp;

use super::{EventLoop, Phase};
use crate::instance::RECORDS;
use crate::monitor::control::{Answer, Verdict};
use crate::monitor::vmm::{Command, Done};

impl EventLoop<'_, '_> {
    /// Pauses the machine or lets it go on. A machine that is what it should be already is refused, as in Docker.
    pub(super) fn pause(&mut self, wanted: bool) -> Verdict {
        let refused = |problem: &str| Verdict::Answer(Answer::refused(problem));
        if self.changing {
            return refused("it is being paused or let go on at this moment");
        }
        if self.paused == wanted {
            return refused(if wanted {
                "it is paused already"
            } else {
                "it is not paused"
            });
        }
        if self.phase != Phase::Running {
            return refused("its application does not run");
        }
        match self.vmm.tell(command(wanted)) {
            Ok(work) => {
                self.changing = true;
                Verdict::Working(work)
            }
            Err(problem) => refused(&problem),
        }
    }

    /// Lets a paused machine go on, because it is to end; one that is about to be paused, too.
    pub(super) fn let_go_on(&mut self) {
        if self.paused || self.changing {
            // A VMM that does not answer is ended when the time is over.
            let _ = self.vmm.tell(Command::Resume);
        }
    }

    /// What the balloon tells of the guest's memory. However many ask at once, the VMM is asked one time.
    pub(super) fn balloon(&mut self) -> Verdict {
        let refused = |problem: &str| Verdict::Answer(Answer::refused(problem));
        if !self.vmm.has_statistics() {
            return refused(
                "it has no balloon with statistics (stats_polling_interval_s of --machine-config)",
            );
        }
        if let Some(work) = self.asking {
            return Verdict::Working(work);
        }
        match self.vmm.tell(Command::Balloon) {
            Ok(work) => {
                self.asking = Some(work);
                Verdict::Working(work)
            }
            Err(problem) => refused(&problem),
        }
    }

    /// Takes what the VMM has done.
    pub(super) fn vmm(&mut self) {
        while let Some(Done {
            work,
            command,
            result,
        }) = self.vmm.done()
        {
            let answer = match command {
                Command::Balloon => {
                    self.asking = None;
                    match result {
                        Ok(balloon) => Answer {
                            balloon,
                            ..Answer::done()
                        },
                        Err(error) => Answer::refused(error.to_string()),
                    }
                }
                Command::Pause => self.stands(true, result.map(drop)),
                Command::Resume => self.stands(false, result.map(drop)),
                Command::Metadata(document) => {
                    self.putting = false;
                    match result {
                        Ok(_) => self.keep_metadata(document),
                        Err(error) => Answer::refused(error.to_string()),
                    }
                }
            };
            if let Some(server) = &mut self.server {
                server.settle(work, &answer);
            }
        }
    }

    /// The processors stand, or run again, unless that failed.
    fn stands(&mut self, paused: bool, result: Result<(), ControlError>) -> Answer {
        self.changing = false;
        if let Err(error) = result {
            // A VMM that comes back to itself still does what it was told: it is told the contrary.
            if paused && *error.kind() == ControlErrorKind::Timeout {
                let _ = self.vmm.tell(Command::Resume);
            }
            return Answer::refused(error.to_string());
        }
        self.paused = paused;
        let recorded = if paused {
            self.owned.write(RECORDS.paused, &Timestamp::now())
        } else {
            // Its clock stood still meanwhile.
            let now = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
            if let Err(error) = self.agent.tell_time(now) {
                self.fault(&error);
            }
            self.owned.forget(RECORDS.paused)
        };
        match recorded {
            Ok(()) => Answer::done(),
            Err(error) => Answer::refused(format!("it is done, but not recorded: {error}")),
        }
    }
}

fn command(paused: bool) -> Command {
    if paused {
        Command::Pause
    } else {
        Command::Resume
    }
}
