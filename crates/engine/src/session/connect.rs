//! From the name of a VM to a connection that speaks the guest protocol.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use firebuild_guest_proto::session::head;
use firebuild_guest_proto::{ExitRecord, ExitStatus, FailureReason, SessionWork};
use firebuild_vm::Agent;

use super::SessionEnd;
use crate::error::Error;
use crate::instance::{Instance, InstanceError, InstanceErrorKind, Instances, State};
use crate::monitor::control::{Request, open};
use crate::paths::Paths;

/// A VM that runs.
pub(super) fn running(paths: &Paths, wanted: &str) -> Result<Instance, InstanceError> {
    let instance = Instances::new(paths).find(wanted)?;
    match instance.state()? {
        State::Created | State::Running { .. } | State::Restarting(_) => Ok(instance),
        State::Exited(_) | State::Dead => Err(not_running(&instance)),
    }
}

pub(super) fn not_running(instance: &Instance) -> InstanceError {
    let name = &instance.record().name;
    Error::new(
        InstanceErrorKind::NotRunning,
        format!("the VM {name} does not run"),
    )
}

/// Opens a connection for a request that stays.
pub(crate) fn connect(instance: &Instance, request: &Request) -> Result<Agent, InstanceError> {
    let name = &instance.record().name;
    let Some((answer, stream)) = open(instance, request)? else {
        return Err(not_running(instance));
    };
    if !answer.done {
        return Err(Error::new(
            InstanceErrorKind::Control,
            format!(
                "the VM {name} refuses: {}",
                answer.problem.unwrap_or_default()
            ),
        ));
    }
    agent(stream).map_err(|error| {
        Error::caused(
            InstanceErrorKind::Io,
            format!("cannot talk to the VM {name}"),
            error,
        )
    })
}

fn agent(stream: UnixStream) -> std::io::Result<Agent> {
    stream.set_read_timeout(None)?;
    Agent::new(OwnedFd::from(stream))
}

/// The bytes that a session with the guest begins with.
pub(super) fn order(work: &SessionWork) -> Result<Vec<u8>, InstanceError> {
    head(work).map_err(|error| {
        Error::caused(
            InstanceErrorKind::Control,
            "this cannot be asked of a VM",
            error,
        )
    })
}

/// What a record means to the command that asked for it.
pub(super) fn end_of(record: &ExitRecord) -> SessionEnd {
    match &record.status {
        ExitStatus::Failed { reason, message } => {
            // What could not even be started is 126 in `docker exec`, and what was not there 127.
            let code = match reason {
                FailureReason::NotFound => 127,
                _ => 126,
            };
            SessionEnd::Failed(code, message.clone())
        }
        ExitStatus::Exited { .. } | ExitStatus::Signaled { .. } => {
            SessionEnd::Exited(record.exit_code())
        }
    }
}
