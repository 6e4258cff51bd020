//! What killed owners left, of every kind: for `purge`, and for each start.
//!
//! | what | found by | dead when |
//! |---|---|---|
//! | half-made and half-removed directories of instances | their names | their lock is free |
//! | processes; scratch disks of those that cannot be started again | the records of instances | the instance is dead |
//! | run dirs, and what they list (jails, control groups) | their names | their lock is free |
//! | taps, rules, addresses, the bridge | the files of [`firebuild_vm::net::bridge`] | their lock is free |
//! | ids of machines | the files of [`firebuild_vm::uid`] | their lock is free |
//!
//! Records of instances stay: they tell what happened, until `rm` or `purge`. What belongs to a living owner, and what no
//! record of ours names, is not touched. Locks are only tried, so nobody is kept waiting.

use std::path::Path;

use firebuild_vm::net::bridge;
use firebuild_vm::run_dir::{RunDirErrorKind, quiesce, reclaim};
use firebuild_vm::{RunDir, uid};

use crate::error::Error;
use crate::instance::{InstanceError, InstanceErrorKind, Instances, State, io};
use crate::microvm_executor::BUILD_RUN_DIRS;
use crate::monitor::remove_disks;
use crate::rm::{end_processes, reclaim_run_dir};

/// Digits of a short id, the name of a run dir.
const SHORT: usize = 12;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// What is gone.
    pub(crate) removed: Vec<String>,
    /// What could not be removed.
    pub(crate) failed: Vec<InstanceError>,
}

/// Removes everything that dead owners left but the records of their instances. What fails does not stop the rest.
pub(crate) fn sweep(instances: &Instances) -> Swept {
    let mut swept = Swept::default();
    half_made(instances, &mut swept);
    dead_instances(instances, &mut swept);
    run_dirs(instances.runtime(), &mut swept);
    run_dirs(&instances.runtime().join(BUILD_RUN_DIRS), &mut swept);
    networks(&mut swept);
    match uid::sweep() {
        Ok(0) => {}
        Ok(count) => swept.removed.push(format!("{count} ids of machines")),
        // An ordinary user has no ids to give back, and may not look.
        Err(_) if !rustix::process::geteuid().is_root() => {}
        Err(error) => swept.fail("cannot give back the ids of dead machines", error),
    }
    swept
}

impl Swept {
    fn fail(
        &mut self,
        what: impl Into<String>,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) {
        self.failed
            .push(Error::caused(InstanceErrorKind::Io, what, cause));
    }
}

fn half_made(instances: &Instances, swept: &mut Swept) {
    match instances.leftovers() {
        Ok(leftovers) => {
            for path in leftovers {
                match fs_err::remove_dir_all(&path) {
                    Ok(()) => swept.removed.push(path.display().to_string()),
                    Err(error) => swept.failed.push(io("remove", &path, error)),
                }
            }
        }
        Err(error) => swept.failed.push(error),
    }
}

fn dead_instances(instances: &Instances, swept: &mut Swept) {
    // Those that cannot be read are told by `purge`.
    let Ok((known, _)) = instances.list() else {
        return;
    };
    for instance in known {
        if !matches!(instance.state(), Ok(State::Dead)) {
            continue;
        }
        // Somebody may clean up after it at this moment.
        let Ok(Some(owned)) = instance.try_own() else {
            continue;
        };
        let instance = owned.instance();
        let outcomes = [
            end_processes(instance),
            reclaim_run_dir(instance),
            half_written(instance.dir()),
        ];
        swept
            .failed
            .extend(outcomes.into_iter().filter_map(Result::err));
        if let Err(error) = remove_disks(instance) {
            swept
                .failed
                .push(io("remove the disks in", instance.dir(), error));
        }
    }
}

/// Removes the documents that were being written.
fn half_written(dir: &Path) -> Result<(), InstanceError> {
    for entry in fs_err::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(".new") {
            fs_err::remove_file(entry.path())
                .map_err(|error| io("remove", &entry.path(), error))?;
        }
    }
    Ok(())
}

/// Run dirs whose owner is dead. They have names of twelve hexadecimal digits and a lock in them; anything else in the
/// directory is not ours.
fn run_dirs(runtime: &Path, swept: &mut Swept) {
    let Ok(_nobody_makes_one) = quiesce(runtime) else {
        return; // no machine has run since the boot
    };
    for entry in fs_err::read_dir(runtime).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_short_id = name.len() == SHORT
            && name
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let path = entry.path();
        if !is_short_id || !RunDir::place(runtime, &name).is_ok_and(|place| place == path) {
            continue;
        }
        match reclaim(&path) {
            Ok(()) => swept.removed.push(path.display().to_string()),
            Err(error) if error.kind() == RunDirErrorKind::InUse => {}
            Err(error) => swept.fail(
                format!("cannot remove the run dir {}", path.display()),
                error,
            ),
        }
    }
}

fn networks(swept: &mut Swept) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bridge::Swept { removed, failed } = bridge::sweep();
    swept.removed.extend(removed);
    for (what, error) in failed {
        swept.fail(format!("cannot clean up {what}"), error);
    }
}
