//! `firebuild start`, `firebuild restart`: an instance that has ended runs again, with the disk that it wrote.

use std::time::{Duration, Instant};

use firebuild_vm::Agent;

use crate::error::Error;
use crate::instance::{
    Instance, InstanceError, InstanceErrorKind, Instances, Owned, RECORDS, Started, State,
};
use crate::monitor::control::Request;
use crate::monitor::order::Order;
use crate::monitor::{Notices, Stdio, spawn};
use crate::paths::Paths;
use crate::rm::{end_processes, reclaim_run_dir};
use crate::run::{Outcome, RunError, RunErrorKind, begun, begun_after, hold};
use crate::session::{AttachRequest, SessionEnd, attach, carry, connect};
use crate::stop::{grace_of, tell};

/// How long a monitor whose machine is launched may take to listen.
const LISTENING: Duration = Duration::from_secs(10);
/// Between two looks at an instance that is being restarted.
const LOOK: Duration = Duration::from_millis(50);

/// Starts an instance that has ended under a monitor of its own, and comes back when its application runs, or could not
/// be executed: then with the outcome. One that runs is left alone.
///
/// # Errors
/// `Instance` when there is none, or it was made with `--rm`; whatever keeps a machine from being started.
pub fn start(
    paths: &Paths,
    wanted: &str,
    notices: Notices<'_>,
) -> Result<Option<Outcome>, RunError> {
    let failed = |error: InstanceError| {
        Error::caused(
            RunErrorKind::Instance,
            format!("cannot start {wanted}"),
            error,
        )
    };
    let instance = Instances::new(paths).find(wanted).map_err(failed)?;
    let Some(owned) = take(&instance).map_err(failed)? else {
        return Ok(None);
    };
    let order = ready(&owned, false).map_err(failed)?;
    let held = hold(paths)?;
    let news = spawn(owned, &order)?;
    begun(news, order.id, held, notices).map(Result::err)
}

/// Starts an instance that has ended, and carries the streams of its application from their first byte until it ends or
/// the detach keys are pressed; with standard input where the request says so. One that runs is attached to. Call it from
/// the main thread, before other threads exist.
///
/// # Errors
/// Those of [`start`]; `Instance` when it cannot be attached to.
pub fn start_attached(
    paths: &Paths,
    wanted: &str,
    request: &AttachRequest,
    stdio: Stdio,
    notices: Notices<'_>,
) -> Result<SessionEnd, RunError> {
    let failed = |what: &'static str| {
        move |error: InstanceError| {
            let text = format!("cannot {what} {wanted}");
            Error::caused(RunErrorKind::Instance, text, error)
        }
    };
    let instances = Instances::new(paths);
    let instance = instances.find(wanted).map_err(failed("start"))?;
    let Some(owned) = take(&instance).map_err(failed("start"))? else {
        return attach(paths, wanted, request, stdio).map_err(failed("attach to"));
    };
    let order = ready(&owned, request.stdin).map_err(failed("start"))?;
    // As it is recorded now.
    let instance = instances.find(order.id.as_str()).map_err(failed("start"))?;
    let held = hold(paths)?;
    let news = spawn(owned, &order)?;
    // Before the guest has booted, so that nothing that the application prints is missed.
    let mut agent = None;
    let mut attached = || agent = Some(when_it_listens(&instance));
    let begun = begun_after(news, order.id, held, &mut attached, notices)?;
    if let Err(outcome) = begun {
        let error = outcome.error.unwrap_or_default();
        return Ok(SessionEnd::Failed(outcome.exit_code, error));
    }
    let agent = agent.unwrap_or_else(|| connect(&instance, &Request::Attach));
    agent
        .and_then(|agent| carry(&instance, agent, request, stdio))
        .map_err(failed("attach to"))
}

/// A connection for the application's streams, as soon as its monitor takes one.
fn when_it_listens(instance: &Instance) -> Result<Agent, InstanceError> {
    let begin = Instant::now();
    loop {
        match connect(instance, &Request::Attach) {
            Err(error)
                if error.kind() == InstanceErrorKind::NotRunning && begin.elapsed() < LISTENING =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            connected => return connected,
        }
    }
}

/// Stops an instance, if it runs, and starts it again. The machine's owner stays the same, and with it the place where its
/// output goes.
///
/// # Errors
/// Those of [`start`]; `Instance` when it does not come back.
pub fn restart(
    paths: &Paths,
    wanted: &str,
    grace: Option<Duration>,
    signal: Option<u8>,
    notices: Notices<'_>,
) -> Result<Option<Outcome>, RunError> {
    let failed = |error: InstanceError| {
        Error::caused(
            RunErrorKind::Instance,
            format!("cannot restart {wanted}"),
            error,
        )
    };
    let instance = Instances::new(paths).find(wanted).map_err(failed)?;
    let before = instance.started().map_err(failed)?;
    let grace = grace_of(&instance, grace);
    let request = Request::Restart {
        grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        signal,
    };
    if !tell(&instance, &request).map_err(failed)? {
        return start(paths, wanted, notices);
    }
    come_back(&instance, before.as_ref()).map_err(failed)?;
    Ok(None)
}

/// Waits until it has been started anew.
fn come_back(instance: &Instance, before: Option<&Started>) -> Result<(), InstanceError> {
    loop {
        match instance.state()? {
            State::Running { started, .. } if Some(&started) != before => return Ok(()),
            State::Exited(ended) => {
                let why = if ended.error.is_empty() {
                    format!("it ended with code {}", ended.exit_code)
                } else {
                    ended.error
                };
                return Err(Error::new(
                    InstanceErrorKind::NotRunning,
                    format!("the VM {} has not come back: {why}", instance.id().short()),
                ));
            }
            State::Dead => {
                return Err(Error::new(
                    InstanceErrorKind::NotRunning,
                    format!("the monitor of the VM {} has died", instance.id().short()),
                ));
            }
            _ => std::thread::sleep(LOOK),
        }
    }
}

/// The ownership of an instance that has ended; `None` while it runs, an error while it is paused. Somebody who just lets go
/// is waited for.
fn take(instance: &Instance) -> Result<Option<Owned>, InstanceError> {
    loop {
        if let Some(owned) = instance.try_own()? {
            return Ok(Some(owned));
        }
        match instance.state()? {
            State::Exited(_) | State::Dead => instance.wait_for_owner()?,
            State::Running { paused: true, .. } => {
                return Err(Error::new(
                    InstanceErrorKind::Control,
                    format!(
                        "the VM {} is paused; let it go on with 'firebuild unpause'",
                        instance.id().short()
                    ),
                ));
            }
            _ => return Ok(None),
        }
    }
}

/// Makes an ended instance as if it had never run, but for its disk, its output and its order.
/// `stdin` says whether somebody is there to type.
fn ready(owned: &Owned, stdin: bool) -> Result<Order, InstanceError> {
    let instance = owned.instance();
    let mut order: Order = instance.order()?.ok_or_else(|| {
        Error::new(
            InstanceErrorKind::NotRunning,
            format!(
                "the VM {} was not kept for another start: run its image again",
                instance.id().short()
            ),
        )
    })?;
    order.guest.stdin = stdin;
    end_processes(instance)?;
    reclaim_run_dir(instance)?;
    for name in [
        RECORDS.started,
        RECORDS.machine,
        RECORDS.health,
        RECORDS.restarts,
        // Last: from here on it is being started.
        RECORDS.exit,
    ] {
        owned.forget(name)?;
    }
    let mut record = instance.record().clone();
    record.detached = true;
    record.stdin = stdin;
    record.stdin_once = stdin;
    owned.write(RECORDS.record, &record)?;
    Ok(order)
}
