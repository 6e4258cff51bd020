//! `firebuild exec`: a program beside the application.

use std::os::fd::AsFd;

use firebuild_guest_proto::session::ExecWork;
use firebuild_guest_proto::{EnvVar, SessionWork, WindowSize};
use firebuild_sys::signal::SignalFd;

use super::SessionEnd;
use super::carry::{Carried, Carry};
use super::connect::{connect, end_of, not_running, order, running};
use super::detach_keys::DetachKeys;
use crate::error::Error;
use crate::instance::{Instance, InstanceError, InstanceErrorKind};
use crate::monitor::control::Request;
use crate::monitor::{Output, RawMode, Stdio, WINCH, terminal_size};
use crate::paths::Paths;
use crate::run::env::Assignment;

/// Signals that are the program's when they reach the command (`signal(7)`: HUP, INT, QUIT, USR1, USR2, TERM), and the
/// change of the window's size.
const FORWARDED: [i32; 7] = [1, 2, 3, 10, 12, 15, WINCH];
/// The size of a terminal that nobody looks at.
const UNSEEN: WindowSize = WindowSize {
    rows: 24,
    columns: 80,
};

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables beside the application's, in the order in which they count.
    pub env: Vec<Assignment>,
    /// User instead of the application's.
    pub user: Option<String>,
    /// Directory instead of the application's.
    pub workdir: Option<String>,
    /// Give it a terminal.
    pub terminal: bool,
    /// Carry standard input.
    pub stdin: bool,
    /// Come back when it has begun.
    pub detach: bool,
    /// Keys that end the command, and not the program; where there is a terminal.
    pub keys: Option<DetachKeys>,
}

/// Runs a program in a VM and carries its streams. Call it from the main thread, before other threads exist.
///
/// # Errors
/// `NotFound`, `Ambiguous`; `NotRunning`; `Control` when the VM refuses; `Io`.
pub fn exec(
    paths: &Paths,
    wanted: &str,
    request: &ExecRequest,
    stdio: Stdio,
) -> Result<SessionEnd, InstanceError> {
    let instance = running(paths, wanted)?;
    let size = terminal_size(&stdio.stdout).unwrap_or(UNSEEN);
    let (env, unset) = variables(&request.env);
    let prefix = order(&SessionWork::Exec(ExecWork {
        argv: request.argv.clone(),
        env,
        unset,
        user: request.user.clone(),
        cwd: request.workdir.clone(),
        terminal: request.terminal.then_some(size),
        stdin: request.stdin,
        detach: request.detach,
    }))?;
    let agent = connect(&instance, &Request::Session)?;
    let broken = |error: std::io::Error| broken(&instance, error);
    // Nothing is to be passed on before there is somebody: until here an interrupt ends this command.
    let signals = SignalFd::new(&FORWARDED).map_err(broken)?;
    let terminal = request
        .terminal
        .then(|| stdio.stdout.as_fd().try_clone_to_owned())
        .transpose()
        .map_err(broken)?;
    let stdin = stdio.stdin.filter(|_| request.stdin && !request.detach);
    let raw = stdin
        .as_ref()
        .filter(|_| request.terminal)
        .and_then(RawMode::enter);
    let carry = Carry {
        agent,
        prefix,
        stdin,
        stdout: Output::new(stdio.stdout).map_err(broken)?,
        stderr: Output::new(stdio.stderr).map_err(broken)?,
        signals: Some(signals),
        terminal,
        keys: request.keys.clone().filter(|_| raw.is_some()),
        lets_go: true,
        proxy: true,
        deadline: None,
    };
    let carried = carry.run();
    drop(raw);
    match carried {
        Ok(Carried::Exited(record)) => Ok(end_of(&record)),
        Ok(Carried::Detached) => Ok(SessionEnd::Detached),
        Ok(Carried::GaveUp(signal)) => Ok(SessionEnd::GaveUp(signal)),
        Ok(Carried::Closed | Carried::Late) => Err(ended(&instance)),
        Err(error) => Err(Error::caused(
            InstanceErrorKind::Io,
            format!("the connection to the VM {} broke", instance.record().name),
            error,
        )),
    }
}

/// What is set and what is taken away, each name once: the last assignment counts.
fn variables(assignments: &[Assignment]) -> (Vec<EnvVar>, Vec<String>) {
    let (mut env, mut unset): (Vec<EnvVar>, Vec<String>) = (Vec::new(), Vec::new());
    for assignment in assignments {
        let (Assignment::Set(EnvVar { name, .. }) | Assignment::Unset(name)) = assignment;
        env.retain(|known| known.name != *name);
        unset.retain(|known| known != name);
        match assignment {
            Assignment::Set(variable) => env.push(variable.clone()),
            Assignment::Unset(name) => unset.push(name.clone()),
        }
    }
    (env, unset)
}

/// For streams that cannot be carried.
pub(super) fn broken(instance: &Instance, error: std::io::Error) -> InstanceError {
    Error::caused(
        InstanceErrorKind::Io,
        format!(
            "cannot carry the streams of the VM {}",
            instance.record().name
        ),
        error,
    )
}

/// For a VM that went away while something was asked of it.
pub(super) fn ended(instance: &Instance) -> InstanceError {
    match instance.state() {
        Ok(state) if state.is_alive() => Error::new(
            InstanceErrorKind::Control,
            format!(
                "the monitor of the VM {} has cut the connection: its guest refuses, or was too slow to be read",
                instance.record().name
            ),
        ),
        _ => not_running(instance),
    }
}
