//! `firebuild stop`.

use std::time::Duration;

use crate::error::Error;
use crate::instance::{Instance, InstanceError, InstanceErrorKind, Instances, State};
use crate::monitor::control::{Request, ask};
use crate::paths::Paths;

pub use firebuild_dockerfile::signal_number;

/// Stops an instance: the application gets its stop signal or `signal`, after `grace` (by
/// default the one it was made with) SIGKILL, and a
/// machine that does not end then is ended. Comes back when it has ended. One that has ended already is no
/// error.
///
/// # Errors
/// `NotFound`, `Ambiguous`; `Control` when its monitor does not answer; `Io`.
pub fn stop(
    paths: &Paths,
    wanted: &str,
    grace: Option<Duration>,
    signal: Option<u8>,
) -> Result<(), InstanceError> {
    let instance = Instances::new(paths).find(wanted)?;
    let grace = grace_of(&instance, grace);
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    tell(&instance, &Request::Stop { grace_ms, signal })?;
    instance.wait_for_owner()
}

/// How long an application has from its stop signal to SIGKILL: as asked, or as it was made, or Docker's ten seconds;
/// a whole system has as long as systemd gives a service by itself.
pub(crate) fn grace_of(instance: &Instance, asked: Option<Duration>) -> Duration {
    asked.unwrap_or_else(|| match instance.record().stop_timeout {
        Some(seconds) => u64::try_from(seconds).map_or(Duration::MAX, Duration::from_secs),
        None if instance.record().system => Duration::from_secs(90),
        None => Duration::from_secs(10),
    })
}

/// Tells the owner to do something. Says whether there is one: an instance that is only being started is
/// waited for.
pub(crate) fn tell(instance: &Instance, request: &Request) -> Result<bool, InstanceError> {
    loop {
        match instance.state() {
            Ok(State::Exited(_) | State::Dead) => return Ok(false),
            Ok(_) => {}
            // It was removed at its end.
            Err(error) if error.kind() == InstanceErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        match ask(instance, request)? {
            Some(answer) if answer.done => return Ok(true),
            Some(answer) => {
                return Err(Error::new(
                    InstanceErrorKind::Control,
                    format!(
                        "the VM {} refuses: {}",
                        instance.id().short(),
                        answer.problem.unwrap_or_default()
                    ),
                ));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
