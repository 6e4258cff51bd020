//! `firebuild wait`.

use crate::error::Error;
use crate::instance::{Ended, Instance, InstanceError, InstanceErrorKind, Instances, State};
use crate::monitor::control::{Answer, Request, ask};
use crate::paths::Paths;

/// The exit code for an instance whose end nobody saw.
const UNSEEN: u8 = 255;

/// Waits until an instance has ended, and gives its exit code.
///
/// # Errors
/// `NotFound`, `Ambiguous`, `Corrupt`, `Io`.
pub fn wait(paths: &Paths, wanted: &str) -> Result<u8, InstanceError> {
    let instance = Instances::new(paths).find(wanted)?;
    let ended = wait_for(&instance)?;
    Ok(ended.map_or(UNSEEN, |ended| ended.exit_code))
}

/// Waits for the end of an instance; `None` when it died without a word.
pub(crate) fn wait_for(instance: &Instance) -> Result<Option<Ended>, InstanceError> {
    loop {
        match instance.state() {
            Ok(State::Exited(ended)) => return Ok(Some(ended)),
            Ok(State::Dead) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == InstanceErrorKind::NotFound => {
                return Err(Error::new(
                    InstanceErrorKind::NotFound,
                    format!(
                        "the VM {} has ended and was removed before it could be asked for its exit code",
                        instance.id().short()
                    ),
                ));
            }
            Err(error) => return Err(error),
        }
        // The owner tells it even when the record goes with the instance.
        if let Some(Answer {
            ended: Some(ended), ..
        }) = ask(instance, &Request::Wait)?
        {
            instance.wait_for_owner()?;
            return Ok(Some(ended));
        }
        // It is not listening yet, or no longer: the lock tells when it has gone. Between the two there is
        // nothing to wait for but the moment.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
