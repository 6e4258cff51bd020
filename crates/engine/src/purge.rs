//! `firebuild purge`: removes the records of all instances that have ended, and what a power cut or a
//! kill -9 left. Never anything else: only what lies under our names, in our directories, and belongs to no
//! living owner.

use std::path::Path;

use firebuild_vm::RunDir;
use firebuild_vm::run_dir::{RunDirErrorKind, reclaim};

use crate::error::Error;
use crate::instance::{Instance, InstanceError, InstanceErrorKind, Instances, io};
use crate::paths::Paths;
use crate::rm::remove;

/// Digits of a short id, the name of a run dir.
const SHORT: usize = 12;

/// What was removed.
#[derive(Debug, Default)]
pub struct Purged {
    /// The instances, by id and name.
    pub instances: Vec<(String, String)>,
    /// What belonged to no instance any more: half-made directories, run dirs.
    pub leftovers: Vec<String>,
    /// What could not be removed.
    pub failed: Vec<InstanceError>,
}

/// Removes everything that has ended. What fails is told and does not stop the rest.
///
/// # Errors
/// When the directory of instances cannot be read.
pub fn purge(paths: &Paths) -> Result<Purged, InstanceError> {
    let instances = Instances::new(paths);
    let (known, broken) = instances.list()?;
    let mut purged = Purged {
        failed: broken,
        ..Purged::default()
    };
    for instance in &known {
        match purge_one(instance) {
            Ok(true) => purged
                .instances
                .push((instance.id().to_string(), instance.record().name.clone())),
            Ok(false) => {}
            Err(error) if error.kind() == InstanceErrorKind::NotFound => {}
            Err(error) => purged.failed.push(error),
        }
    }
    for path in instances.leftovers()? {
        match fs_err::remove_dir_all(&path) {
            Ok(()) => purged.leftovers.push(path.display().to_string()),
            Err(error) => purged.failed.push(io("remove", &path, error)),
        }
    }
    sweep_run_dirs(paths.runtime(), &mut purged);
    Ok(purged)
}

/// Whether it had ended and is gone now.
fn purge_one(instance: &Instance) -> Result<bool, InstanceError> {
    match instance.try_own()? {
        None => Ok(false),
        Some(owned) => remove(owned).map(|()| true),
    }
}

/// Run dirs whose owner is dead. They have names of twelve hexadecimal digits and a lock in them; anything
/// else in the directory is not ours.
fn sweep_run_dirs(runtime: &Path, purged: &mut Purged) {
    let Ok(entries) = fs_err::read_dir(runtime) else {
        return; // no machine has run since the boot
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_short_id = name.len() == SHORT
            && name
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let path = entry.path();
        let is_run_dir = is_short_id
            && RunDir::place(runtime, &name).is_ok_and(|place| place == path)
            && path.join("lock").is_file();
        if !is_run_dir {
            continue;
        }
        match reclaim(&path) {
            Ok(()) => purged.leftovers.push(path.display().to_string()),
            Err(error) if error.kind() == RunDirErrorKind::InUse => {}
            Err(error) => purged.failed.push(Error::caused(
                InstanceErrorKind::Io,
                format!("cannot remove the run dir {}", path.display()),
                error,
            )),
        }
    }
}
