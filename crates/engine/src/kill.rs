//! `firebuild kill`.

use std::time::Duration;

use jiff::Timestamp;

use crate::error::Error;
use crate::instance::{
    Ended, FORMAT, Instance, InstanceError, InstanceErrorKind, Instances, RECORDS, boot_id,
};
use crate::monitor::control::Request;
use crate::monitor::remove_disks;
use crate::paths::Paths;
use crate::rm::{end_processes, reclaim_run_dir};
use crate::stop::tell;

/// How long a monitor may take to end its machine and to clean up. It does so in a fraction of a second; one that does not
/// is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// The exit code of what SIGKILL has ended.
const KILLED: u8 = 137;

/// Ends an instance at once and comes back when it has ended; or, with a signal, sends that to its
/// application and comes back. A monitor that does not do as it is told is killed, too.
///
/// # Errors
/// `NotFound`, `Ambiguous`; `NotRunning` when it has ended already; `Control`, `Io`.
pub fn kill(paths: &Paths, wanted: &str, signal: Option<u8>) -> Result<(), InstanceError> {
    let instance = Instances::new(paths).find(wanted)?;
    let was_there = match signal {
        None => end(&instance)?,
        Some(_) => tell(&instance, &Request::Kill { signal })?,
    };
    if was_there {
        return Ok(());
    }
    Err(Error::new(
        InstanceErrorKind::NotRunning,
        format!("the VM {wanted} does not run"),
    ))
}

/// Ends an instance, by its monitor or without it. Says whether there was one to end.
pub(crate) fn end(instance: &Instance) -> Result<bool, InstanceError> {
    match tell(instance, &Request::Kill { signal: None }) {
        Ok(false) => return Ok(false),
        Ok(true) if instance.wait_for_owner_within(PATIENCE)? => return Ok(true),
        Ok(true) => {}
        // It takes connections, or its socket would be refused, and says nothing.
        Err(error) if error.kind() == InstanceErrorKind::Control => {}
        Err(error) => return Err(error),
    }
    end_by_force(instance).map(|()| true)
}

/// Kills the machine and its monitor, cleans up in its place, and writes the end down.
fn end_by_force(instance: &Instance) -> Result<(), InstanceError> {
    end_processes(instance)?;
    if let Some(machine) = instance.machine()?
        && machine.boot_id == boot_id()
    {
        machine.monitor.kill();
    }
    let Some(owned) = instance.try_own()? else {
        return Err(Error::new(
            InstanceErrorKind::Control,
            format!(
                "the monitor of the VM {} neither answers nor can be killed",
                instance.id().short()
            ),
        ));
    };
    let mut left: Vec<String> = Vec::new();
    left.extend(
        reclaim_run_dir(instance)
            .err()
            .map(|error| error.to_string()),
    );
    left.extend(remove_disks(instance).err().map(|error| error.to_string()));
    let mut error = "its monitor did not answer and was killed".to_owned();
    for line in left {
        error.push('\n');
        error.push_str(&line);
    }
    let ended = Ended {
        format: FORMAT,
        exit_code: KILLED,
        oom_killed: false,
        error,
        finished_at: Timestamp::now(),
    };
    owned.write(RECORDS.exit, &ended)?;
    if instance.record().remove {
        owned.remove()?;
    } else {
        drop(owned);
    }
    // Links, rules and addresses; what cannot be removed is told by `purge`.
    drop(firebuild_vm::net::bridge::sweep());
    Ok(())
}
