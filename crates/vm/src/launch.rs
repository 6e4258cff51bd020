//! From a plan to a running machine: one function for all backends.
//!
//! What fails, fails whole: processes that run already are killed and reaped, files that were written are removed.
//! Children get the descriptors of the plan and no others, the user of the plan, no capabilities, no core dumps, and
//! `SIGKILL` when the thread that launched them ends. So **launch from the thread that will live as long as the machine**.

mod api;
mod descriptors;
mod error;
mod paths;

use fs_err::os::unix::fs::OpenOptionsExt;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_sys::confine::{Confinement, Credentials, confine};
use firebuild_sys::{pidfd, spawn};
use firebuild_usernet::meter::{Limit, Rate};
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use crate::agent::ChannelEnd;
use crate::console::Console;
use crate::hardware::{InterfaceLimits, RateLimiter, TokenBucket};
use crate::machine::{Machine, Process};
use crate::net::guard;
use crate::net::ports::check_free;
use crate::plan::{
    CHANNEL_HOST, CHANNEL_LISTENER, CONSOLE_HOST, CONTROL_HOST, FIRST_FD, INITRD, LaunchPlan,
    METRICS_HOST, PlannedFile, PlannedProcess,
};
use crate::remainder;
use crate::run_dir::RunDir;

use descriptors::Descriptors;
pub use error::{LaunchError, LaunchErrorKind};

/// How long a helper process may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Does what the plan says. The run dir goes with the machine: [`Machine::finish`] removes it.
///
/// # Errors
/// The first step that fails; everything done before it is undone.
pub fn launch(plan: &LaunchPlan, dir: RunDir) -> Result<Machine, LaunchError> {
    check_free(&plan.ports)?;
    let mut machine = Machine::new(plan.id.clone(), plan.backend.clone(), dir);
    let started = start(plan, &mut machine);
    match started {
        Ok(()) => Ok(machine),
        Err(error) => {
            // The reason for the end is known; what the clean-up may find besides does not replace it.
            let _ = machine.finish();
            Err(error)
        }
    }
}

fn start(plan: &LaunchPlan, machine: &mut Machine) -> Result<(), LaunchError> {
    if let Some(dir) = machine.run_dir() {
        let path = dir.path().to_owned();
        remainder::record(&path, &plan.remainders)
            .map_err(|source| LaunchError::io(LaunchErrorKind::Write(path), source))?;
    }
    machine.set_remainders(plan.remainders.clone());
    for file in &plan.files {
        write_file(file)?;
        machine.remove_at_end(file.path.clone());
    }
    for place in &plan.places {
        place.make()?;
    }
    let user = plan
        .processes
        .iter()
        .find_map(|process| process.run_as.clone());
    let mut descriptors = Descriptors::open(&plan.descriptors, user.as_ref())?;
    for guard in &plan.guards {
        let guest = descriptors.take(&guard.guest)?;
        let network = descriptors.take(&guard.network)?;
        let limits = limits(&guard.limits);
        let thread = match guard.tap {
            true => guard::shape(guest, network, limits),
            false => guard::spawn(guest, network, limits),
        };
        let thread = thread.map_err(|source| {
            LaunchError::io(LaunchErrorKind::Descriptor(guard.guest.clone()), source)
        })?;
        machine.add_guard(thread);
    }
    if let Some(fd) = descriptors.take_if_there(CONSOLE_HOST) {
        let log = &plan.console;
        let console = Console::open(fd, log, plan.console_limit).map_err(|source| {
            LaunchError::io(
                LaunchErrorKind::Write(log.path.clone().unwrap_or_default()),
                source,
            )
        })?;
        machine.set_console(console);
    }
    if let (Some(fd), Some(path)) = (descriptors.take_if_there(METRICS_HOST), &plan.metrics) {
        let metrics = Console::of_metrics(fd, path)
            .map_err(|source| LaunchError::io(LaunchErrorKind::Write(path.clone()), source))?;
        machine.set_metrics(metrics);
    }
    machine.set_channel(match descriptors.take_if_there(CHANNEL_LISTENER) {
        Some(listener) => Some(ChannelEnd::Listening(listener)),
        None => descriptors
            .take_if_there(CHANNEL_HOST)
            .map(ChannelEnd::Connected),
    });
    machine.set_control(descriptors.take_if_there(CONTROL_HOST));
    if let Some(memory) = descriptors.get(INITRD) {
        let kept = memory.try_clone();
        machine.set_initrd(
            kept.map_err(|e| LaunchError::io(LaunchErrorKind::Descriptor(INITRD.to_owned()), e))?,
        );
    }
    let mut awaited = Vec::new();
    for planned in &plan.processes {
        let process = start_process(planned, &mut descriptors)?;
        let index = machine.add_process(process);
        if let Some(name) = planned.ready.as_deref() {
            awaited.push((planned, index, descriptors.take(name)?));
        }
    }
    // While one gets ready, the next one starts: none of them waits for another.
    for (planned, index, ready) in awaited {
        wait_ready(planned, machine, index, &ready)?;
    }
    if let Some(monitor) = &plan.monitor {
        let connection = descriptors.take(&monitor.connection)?;
        api::command(monitor, plan, machine, connection)?;
    }
    if let Some(api) = &plan.api {
        let connection = api::configure(api, plan, machine)?;
        machine.set_control(Some(connection));
    }
    Ok(())
}

/// What the guard of a connection lets pass.
fn limits(wanted: &InterfaceLimits) -> guard::Limits {
    let rate = |bucket: TokenBucket| Rate {
        size: bucket.size,
        refill: Duration::from_millis(bucket.refill_time),
        burst: bucket.one_time_burst.unwrap_or(0),
    };
    let limit = |limiter: &Option<RateLimiter>| {
        let limiter = limiter.clone().unwrap_or_default();
        Limit {
            bytes: limiter.bandwidth.map(rate),
            frames: limiter.ops.map(rate),
        }
    };
    guard::Limits {
        from_guest: limit(&wanted.tx),
        to_guest: limit(&wanted.rx),
    }
}

fn write_file(file: &PlannedFile) -> Result<(), LaunchError> {
    let failed = |source| LaunchError::io(LaunchErrorKind::Write(file.path.clone()), source);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(file.mode);
    let mut written = options.open(&file.path).map_err(failed)?;
    written.write_all(file.contents.as_bytes()).map_err(failed)
}

fn start_process(
    planned: &PlannedProcess,
    descriptors: &mut Descriptors,
) -> Result<Process, LaunchError> {
    let spawn_failed =
        |source| LaunchError::io(LaunchErrorKind::Spawn(planned.program.clone()), source);
    let (log, log_end) = match &planned.log {
        Some(log) => (descriptors.take(&log.read)?, descriptors.take(&log.write)?),
        None => pipe_with(PipeFlags::CLOEXEC).map_err(|e| spawn_failed(e.into()))?,
    };
    let stdout = match &planned.stdout {
        Some(name) => descriptors.take(name)?,
        None => log_end.try_clone().map_err(spawn_failed)?,
    };
    let mut fds = Vec::with_capacity(planned.fds.len());
    for inherited in &planned.fds {
        fds.push((descriptors.take(&inherited.name)?, inherited.number));
    }
    let last = planned
        .fds
        .iter()
        .map(|fd| fd.number)
        .max()
        .unwrap_or(FIRST_FD - 1);

    let mut command = Command::new(&planned.program);
    command
        .args(&planned.args)
        .env_clear()
        .envs(&planned.env)
        .current_dir(&planned.cwd);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(log_end));
    let tether = planned
        .tethered
        .then(|| spawn::tether(&mut command))
        .transpose()
        .map_err(spawn_failed)?;
    spawn::pass_fds(&mut command, fds).map_err(spawn_failed)?;
    // No Ctrl+C of a terminal: the machine's owner decides what it means.
    spawn::new_session(&mut command);
    let credentials = planned.run_as.as_ref().map(|user| Credentials {
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
    });
    let close_from = u32::try_from(last + 1).expect("descriptor numbers are not negative");
    confine(
        &mut command,
        Confinement {
            credentials,
            bind_low_ports: planned.bind_low_ports,
            close_from,
        },
    );
    let child = command.spawn().map_err(spawn_failed)?;
    let pid = Pid::from_child(&child);
    // Nobody but this process reaps the child, so the number cannot have become another process.
    let pidfd = pidfd::open(pid).map_err(spawn_failed)?;
    Process::new(planned.role, pid, pidfd, log, tether).map_err(spawn_failed)
}

/// Waits until the process writes to its ready pipe, ends, or takes too long.
fn wait_ready(
    planned: &PlannedProcess,
    machine: &mut Machine,
    index: usize,
    ready: &OwnedFd,
) -> Result<(), LaunchError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LaunchError::new(LaunchErrorKind::NotReady {
                program: planned.program.clone(),
            }));
        }
        let mut fds = [PollFd::new(ready, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: left.min(Duration::from_millis(250)).subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(source) => {
                return Err(LaunchError::io(
                    LaunchErrorKind::Spawn(planned.program.clone()),
                    source.into(),
                ));
            }
        }
        // Its own byte, or the end of the pipe because it ended.
        if fds[0].revents().contains(PollFlags::IN) {
            return Ok(());
        }
        if let Some(words) = machine.process_ended(index) {
            let (role, program) = (planned.role, planned.program.clone());
            return Err(LaunchError::new(LaunchErrorKind::Ended {
                role,
                program,
                words,
            }));
        }
        if fds[0].revents().contains(PollFlags::HUP) {
            // It let go of the pipe and is about to end; its end is not a moment away.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests;
