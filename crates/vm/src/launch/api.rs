//! Telling a VMM over its API what its machine is, before the guest runs.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{LaunchError, LaunchErrorKind};
use crate::backend::ControlErrorKind;
use crate::backend::firecracker::ApiClient;
use crate::backend::qemu::qmp::Qmp;
use crate::machine::Machine;
use crate::plan::{LaunchPlan, PlannedApi, PlannedCommand, PlannedMonitor, PlannedRequest, Role};

/// How long a VMM may take until its API is there. The jailer copies the program first, and a busy host took more than
/// ten seconds for that.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a VMM may take to end once it has closed its API.
const END: Duration = Duration::from_secs(1);
/// How often to look for it. It is there after some ten milliseconds.
const LOOK: Duration = Duration::from_millis(1);

/// Sends the requests of the plan; the connection, for control.
pub(super) fn configure(
    api: &PlannedApi,
    plan: &LaunchPlan,
    machine: &mut Machine,
) -> Result<OwnedFd, LaunchError> {
    let connection = connect(api, plan, machine)?;
    let mut client = ApiClient::new(connection);
    for request in &api.requests {
        if let Err(error) = client.request(&request.method, &request.path, Some(&request.body)) {
            if *error.kind() == ControlErrorKind::Closed
                && let Some(ended) = ended_soon(plan, machine)
            {
                return Err(ended);
            }
            return Err(LaunchError {
                kind: LaunchErrorKind::Api {
                    request: name(request),
                    words: machine.vmm_words(),
                },
                source: Some(Box::new(error)),
            });
        }
    }
    Ok(client.into_connection())
}

/// Gives QEMU the commands of the plan.
pub(super) fn command(
    monitor: &PlannedMonitor,
    plan: &LaunchPlan,
    machine: &mut Machine,
    connection: OwnedFd,
) -> Result<(), LaunchError> {
    let mut done = "its greeting".to_owned();
    let told = Qmp::connect(connection).and_then(|mut qmp| {
        for PlannedCommand { execute, arguments } in &monitor.commands {
            done.clone_from(execute);
            qmp.execute(execute, Some(arguments.clone()))?;
        }
        Ok(())
    });
    told.map_err(|error| {
        let closed = *error.kind() == ControlErrorKind::Closed;
        if let Some(ended) = closed.then(|| ended_soon(plan, machine)).flatten() {
            return ended;
        }
        LaunchError {
            kind: LaunchErrorKind::Api {
                request: done,
                words: machine.vmm_words(),
            },
            source: Some(Box::new(error)),
        }
    })
}

/// How the VMM ended, which is about to: its end of the connection is closed.
fn ended_soon(plan: &LaunchPlan, machine: &mut Machine) -> Option<LaunchError> {
    let deadline = Instant::now() + END;
    while Instant::now() < deadline {
        if let Some(error) = ended(plan, machine) {
            return Some(error);
        }
        std::thread::sleep(LOOK);
    }
    None
}

fn ended(plan: &LaunchPlan, machine: &mut Machine) -> Option<LaunchError> {
    let vmm = plan
        .processes
        .iter()
        .position(|process| process.role == Role::Vmm)?;
    let words = machine.process_ended(vmm)?;
    Some(LaunchError::new(LaunchErrorKind::Ended {
        role: Role::Vmm,
        program: plan.processes[vmm].program.clone(),
        words,
    }))
}

fn name(request: &PlannedRequest) -> String {
    format!("{} {}", request.method, request.path)
}

fn connect(
    api: &PlannedApi,
    plan: &LaunchPlan,
    machine: &mut Machine,
) -> Result<OwnedFd, LaunchError> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        // Asked first: what an ended VMM said last is worth more than a socket that refuses.
        if let Some(error) = ended(plan, machine) {
            return Err(error);
        }
        match UnixStream::connect(&api.socket) {
            Ok(stream) => return Ok(stream.into()),
            Err(error) => {
                let not_yet = matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                );
                if !not_yet || Instant::now() >= deadline {
                    let late = || {
                        let text = format!("it was not there within {} s", TIMEOUT.as_secs());
                        io::Error::new(io::ErrorKind::TimedOut, text)
                    };
                    return Err(LaunchError::io(
                        LaunchErrorKind::Api {
                            request: format!("listen on {}", api.socket.display()),
                            words: machine.vmm_words(),
                        },
                        if not_yet { late() } else { error },
                    ));
                }
            }
        }
        std::thread::sleep(LOOK);
    }
}
