//! `run` in the foreground: this process owns the machine, and the caller's streams are the
//! application's.

use std::os::fd::AsFd;

use firebuild_sys::signal::SignalFd;
use firebuild_vm::net::host::HostNetwork;

use super::error::{RunError, RunErrorKind};
use super::prepare::{Prepared, hold, prepare};
use super::request::{DiskFor, Outcome, Request};
use crate::error::Error;
use crate::instance::Instances;
use crate::kernel;
use crate::monitor::{
    Front, Notice, Notices, Output, RawMode, SignalMeaning, Stdio, WINCH, own, terminal_size,
    warm_up,
};
use crate::paths::Paths;

/// Signals that are the application's when they reach `run`: HUP, INT, QUIT, USR1, USR2, TERM, and the
/// change of the window's size (`signal(7)`). The others keep their meaning for this process.
const FORWARDED: [i32; 7] = [1, 2, 3, 10, 12, 15, WINCH];

/// Runs an image and carries its streams until it has ended. Call it from the main thread, before other
/// threads exist.
///
/// # Errors
/// Whatever kept the application from being started; how it ended is the outcome.
pub fn foreground(
    paths: &Paths,
    request: &Request,
    vminit: &'static [u8],
    stdio: Stdio,
    disk_for: DiskFor<'_>,
    notices: Notices<'_>,
) -> Result<Outcome, RunError> {
    let failed = |cause: std::io::Error| {
        Error::caused(
            RunErrorKind::Io,
            "cannot carry the streams of the VM",
            cause,
        )
    };
    // Until the machine is planned, Ctrl+C ends this process as it ends any program: nothing was made.
    let held = hold(paths)?;
    let kernel = kernel::select(
        paths,
        request.kernel_root.as_deref(),
        request.kernel.as_deref(),
    )
    .map_err(|error| Error::caused(RunErrorKind::Kernel, "no kernel for the VM", error))?;
    let size = terminal_size(&stdio.stdout).filter(|_| request.terminal);
    let Prepared {
        record,
        order,
        notices: told,
        held: _held,
    } = prepare(
        paths,
        request,
        &kernel,
        &HostNetwork::discover(),
        size,
        disk_for,
    )?;
    for text in told {
        notices(Notice::Note(text));
    }
    warm_up(&order)?;
    let signals = SignalFd::new(&FORWARDED).map_err(failed)?;
    let owned = Instances::prepare(paths)
        .and_then(|instances| instances.create(request.name.as_deref(), record))
        .map_err(|error| Error::caused(RunErrorKind::Instance, "cannot record the VM", error))?;
    let id = order.id.clone();

    let terminal = request
        .terminal
        .then(|| stdio.stdout.as_fd().try_clone_to_owned())
        .transpose()
        .map_err(failed)?;
    let raw = stdio
        .stdin
        .as_ref()
        .filter(|_| request.terminal)
        .and_then(RawMode::enter);
    let front = Front {
        stdin: stdio.stdin,
        stdout: Some(Output::new(stdio.stdout).map_err(failed)?),
        stderr: Some(Output::new(stdio.stderr).map_err(failed)?),
        raw,
        terminal,
        signals,
        resized: false,
        meaning: SignalMeaning::Forwarded,
        reporter: None,
        notices,
    };
    let ended = own(owned, &order, vminit, Some(held), front)?.ended;
    Ok(Outcome {
        id,
        exit_code: ended.exit_code,
        error: (!ended.error.is_empty()).then_some(ended.error),
    })
}
