//! What goes through the control connection of a VMM: stopping the processors and letting them run again; another metadata
//! document, where the VMM serves it.

use std::os::fd::OwnedFd;

use firebuild_guest_proto::metadata::Document;
use firebuild_vm::backend::ControlError;
use firebuild_vm::{Backend, Control};
use jiff::Timestamp;

use super::{EventLoop, Phase};
use crate::instance::RECORDS;
use crate::monitor::control::Answer;

/// The control of a VMM, connected when it is first needed.
pub(crate) struct Pausing {
    backend: Box<dyn Backend>,
    /// Whether the VMM serves the guest's metadata.
    serves_metadata: bool,
    connection: Option<OwnedFd>,
    control: Option<Box<dyn Control>>,
}

impl Pausing {
    pub(crate) fn new(backend: Box<dyn Backend>, connection: Option<OwnedFd>) -> Self {
        Self {
            backend,
            serves_metadata: false,
            connection,
            control: None,
        }
    }

    /// Says whether the VMM serves the guest's metadata.
    pub(crate) fn serving_metadata(self, serves_metadata: bool) -> Self {
        Self {
            serves_metadata,
            ..self
        }
    }

    /// Gives the VMM another metadata document, where it is the one who serves it; whether it is.
    pub(super) fn put_metadata(&mut self, document: &Document) -> Result<bool, ControlError> {
        if !self.serves_metadata {
            return Ok(false);
        }
        match self.control()? {
            Some(control) => control.put_metadata(&document.clone().into()),
            None => Ok(false),
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
