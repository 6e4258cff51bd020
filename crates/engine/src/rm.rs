//! `firebuild rm`.

use firebuild_vm::RunDir;
use firebuild_vm::run_dir::reclaim;

use crate::error::Error;
use crate::instance::{Instance, InstanceError, InstanceErrorKind, Instances, Owned, boot_id};
use crate::kill::end;
use crate::paths::Paths;

/// Removes the record of an instance that has ended, with its logs; `force` ends it first.
///
/// # Errors
/// `NotFound`, `Ambiguous`; `Running` without `force`; `Control`, `Io`.
pub fn rm(paths: &Paths, wanted: &str, force: bool) -> Result<(), InstanceError> {
    let instance = Instances::new(paths).find(wanted)?;
    if force {
        end(&instance)?;
    }
    match instance.try_own() {
        Ok(Some(owned)) => remove(owned),
        Ok(None) => Err(Error::new(
            InstanceErrorKind::Running,
            format!("the VM {wanted} runs: stop it first, or remove it with 'firebuild rm -f'"),
        )),
        // Its owner may remove it at any moment, too.
        Err(_) if !instance.dir().exists() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes an instance that this process owns, with everything that its last owner left: processes, run
/// dir, disks, record.
pub(crate) fn remove(owned: Owned) -> Result<(), InstanceError> {
    end_processes(owned.instance())?;
    reclaim_run_dir(owned.instance())?;
    // With --rm the owner may have removed it between finding and owning.
    if !owned.instance().dir().exists() {
        return Ok(());
    }
    owned.remove()
}

/// Kills what a killed owner may have left. Processes die with their owner; this is for the case that
/// something kept one of them.
pub(crate) fn end_processes(instance: &Instance) -> Result<(), InstanceError> {
    // A record that cannot be read names no process.
    let Ok(Some(machine)) = instance.machine() else {
        return Ok(());
    };
    if machine.boot_id != boot_id() {
        return Ok(());
    }
    for process in machine.vmm.iter().chain(&machine.helpers) {
        process.kill();
    }
    Ok(())
}

pub(crate) fn reclaim_run_dir(instance: &Instance) -> Result<(), InstanceError> {
    let failed = |error: firebuild_vm::run_dir::RunDirError| {
        Error::caused(
            InstanceErrorKind::Io,
            format!(
                "cannot remove the run dir of the VM {}",
                instance.id().short()
            ),
            error,
        )
    };
    let place = RunDir::place(instance.runtime(), instance.id().as_str()).map_err(failed)?;
    if place.exists() {
        reclaim(&place).map_err(failed)?;
    }
    // The run dir lists them, too, but it is gone after a power cut, and a jail on a disk is not.
    for remainder in instance.remainders() {
        remainder.remove().map_err(|error| {
            Error::caused(
                InstanceErrorKind::Io,
                format!("cannot remove {}", remainder.path().display()),
                error,
            )
        })?;
    }
    Ok(())
}
