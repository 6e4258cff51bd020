//! Stopping the processors of a machine, and letting them run again.

use std::os::fd::OwnedFd;

use firebuild_vm::backend::ControlError;
use firebuild_vm::{Backend, Control};
use jiff::Timestamp;

use super::{EventLoop, Phase};
use crate::instance::RECORDS;
use crate::monitor::control::Answer;

/// The control of a VMM, connected when it is first needed.
pub(crate) struct Pausing {
    backend: Box<dyn Backend>,
    connection: Option<OwnedFd>,
    control: Option<Box<dyn Control>>,
}

impl Pausing {
    pub(crate) fn new(backend: Box<dyn Backend>, connection: Option<OwnedFd>) -> Self {
        Self {
            backend,
            connection,
            control: None,
        }
    }

    fn control(&mut self) -> Result<Option<&mut Box<dyn Control>>, ControlError> {
        if let Some(connection) = self.connection.take() {
            self.control = Some(self.backend.control(connection)?);
        }
        Ok(self.control.as_mut())
    }
}

impl std::fmt::Debug for Pausing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pausing")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

impl EventLoop<'_, '_> {
    /// Pauses the machine or lets it go on. A machine that is what it should be already is refused, as in Docker.
    pub(super) fn pause(&mut self, wanted: bool) -> Answer {
        if self.paused == wanted {
            return Answer::refused(if wanted {
                "it is paused already"
            } else {
                "it is not paused"
            });
        }
        if self.phase != Phase::Running {
            return Answer::refused("its application does not run");
        }
        let done = match self.pausing.control() {
            Ok(Some(control)) if wanted => control.pause(),
            Ok(Some(control)) => control.resume(),
            Ok(None) => return Answer::refused("its VMM has no control connection"),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            return Answer::refused(error.to_string());
        }
        self.paused = wanted;
        let recorded = if wanted {
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
