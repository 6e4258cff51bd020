//! `firebuild attach`: the streams of the application itself.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use firebuild_sys::signal::SignalFd;
use firebuild_vm::Agent;

use super::SessionEnd;
use super::carry::{Carried, Carry};
use super::connect::{connect, running};
use super::detach_keys::DetachKeys;
use super::exec::broken;
use crate::error::Error;
use crate::instance::{Instance, InstanceError, InstanceErrorKind};
use crate::monitor::control::Request;
use crate::monitor::{Output, RawMode, Stdio, WINCH};
use crate::paths::Paths;
use crate::wait::wait_for;

/// As for `exec`; without `sig-proxy` they end the command, and only the size of the window is told.
const WATCHED: [i32; 7] = [1, 2, 3, 10, 12, 15, WINCH];
/// The exit code of a VM whose end nobody saw.
const UNSEEN: u8 = 255;
/// How long a monitor may take from its last word to its end.
const ENDING: Duration = Duration::from_secs(3);

/// How to attach.
#[derive(Debug, Clone)]
pub struct AttachRequest {
    /// Carry standard input, if the application has one.
    pub stdin: bool,
    /// Keys that end the command, and not the application.
    pub keys: DetachKeys,
    /// Pass signals on to the application.
    pub sig_proxy: bool,
}

/// Carries the application's streams until it ends or the detach keys are pressed; what it printed before is in its log.
/// Call it from the main thread, before other threads exist.
///
/// # Errors
/// `NotFound`, `Ambiguous`; `NotRunning`; `Control` when the VM refuses; `Io`.
pub fn attach(
    paths: &Paths,
    wanted: &str,
    request: &AttachRequest,
    stdio: Stdio,
) -> Result<SessionEnd, InstanceError> {
    let instance = running(paths, wanted)?;
    let agent = connect(&instance, &Request::Attach)?;
    carry(&instance, agent, request, stdio)
}

/// Carries the streams of an attached connection.
pub(crate) fn carry(
    instance: &Instance,
    agent: Agent,
    request: &AttachRequest,
    stdio: Stdio,
) -> Result<SessionEnd, InstanceError> {
    let has_terminal = instance.record().terminal;
    let broken = |error: std::io::Error| broken(instance, error);
    let signals = SignalFd::new(&WATCHED).map_err(broken)?;
    let stdin = stdio
        .stdin
        .filter(|_| request.stdin && instance.record().stdin);
    let terminal = has_terminal
        .then(|| stdio.stdout.as_fd().try_clone_to_owned())
        .transpose()
        .map_err(broken)?;
    let raw = stdin
        .as_ref()
        .filter(|_| has_terminal)
        .and_then(RawMode::enter);
    let streams = Carry {
        agent,
        prefix: Vec::new(),
        // Only a terminal has keys; what comes from a file is data.
        keys: raw.is_some().then(|| request.keys.clone()),
        stdin,
        stdout: Output::new(stdio.stdout).map_err(broken)?,
        stderr: Output::new(stdio.stderr).map_err(broken)?,
        signals: Some(signals),
        terminal,
        lets_go: false,
        proxy: request.sig_proxy,
        deadline: None,
    };
    let carried = streams.run();
    drop(raw);
    match carried {
        Ok(Carried::Exited(record)) => Ok(SessionEnd::Exited(record.exit_code())),
        Ok(Carried::Detached) => Ok(SessionEnd::Detached),
        Ok(Carried::GaveUp(signal)) => Ok(SessionEnd::GaveUp(signal)),
        Ok(Carried::Closed | Carried::Late) if ends_soon(instance) => {
            let ended = wait_for(instance)?;
            let code = ended.map_or(UNSEEN, |ended| ended.exit_code);
            Ok(SessionEnd::Exited(code))
        }
        Ok(Carried::Closed | Carried::Late) => Err(Error::new(
            InstanceErrorKind::Control,
            "this command was too slow to read the output, so it was detached; 'firebuild logs' has all of it",
        )),
        Err(error) => Err(Error::caused(
            InstanceErrorKind::Io,
            format!("the connection to the VM {} broke", instance.record().name),
            error,
        )),
    }
}

/// Whether a VM whose monitor has cut the connection is ending: it closes them all a moment before it is gone.
fn ends_soon(instance: &Instance) -> bool {
    let begin = Instant::now();
    loop {
        if !instance.state().is_ok_and(|state| state.is_alive()) {
            return true;
        }
        if begin.elapsed() > ENDING {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
