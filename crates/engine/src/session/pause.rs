//! `firebuild pause` and `unpause`: the processors of a VM stand still, and run again.

use super::connect::{not_running, running};
use crate::instance::InstanceError;
use crate::monitor::control::Request;
use crate::paths::Paths;
use crate::stop::tell;

/// Stops the processors of a VM.
///
/// # Errors
/// `NotFound`, `Ambiguous`; `NotRunning`; `Control` when it is paused already or its VMM refuses.
pub fn pause(paths: &Paths, wanted: &str) -> Result<(), InstanceError> {
    ask(paths, wanted, &Request::Pause)
}

/// Lets them run again; the guest is told what time it is.
///
/// # Errors
/// As [`pause`].
pub fn unpause(paths: &Paths, wanted: &str) -> Result<(), InstanceError> {
    ask(paths, wanted, &Request::Unpause)
}

fn ask(paths: &Paths, wanted: &str, request: &Request) -> Result<(), InstanceError> {
    let instance = running(paths, wanted)?;
    if tell(&instance, request)? {
        Ok(())
    } else {
        Err(not_running(&instance))
    }
}
