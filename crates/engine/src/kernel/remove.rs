//! `firebuild kernel rm ID…`.

use super::catalogue::{ASIDE, Catalogue, check_id};
use super::error::{KernelError, io};
use crate::paths::Paths;

/// Removes kernels. Machines that run one keep running: a VMM has read its kernel when it started.
///
/// # Errors
/// `NotFound` or `BadId` before anything is removed; `Io`.
pub fn remove(paths: &Paths, ids: &[String]) -> Result<(), KernelError> {
    let catalogue = Catalogue::new(paths);
    for id in ids {
        check_id(id)?;
        if !catalogue.dir().join(id).is_dir() {
            return Err(catalogue.not_found(id));
        }
    }
    let _hold = catalogue.hold_exclusive()?;
    for id in ids {
        let dir = catalogue.dir().join(id);
        // Gone in one step; a crash in the middle leaves only what the next change sweeps away.
        let aside = catalogue.dir().join(format!("{ASIDE}rm-{id}"));
        match fs_err::rename(&dir, &aside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            renamed => renamed.map_err(|error| io("remove", &dir, error))?,
        }
        fs_err::remove_dir_all(&aside).map_err(|error| io("remove", &aside, error))?;
    }
    Ok(())
}
