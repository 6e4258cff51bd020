//! `firebuild purge`: removes the records of all instances that have ended, and what a power cut or a
//! kill -9 left. Never anything else: only what lies under our names, in our directories, and belongs to no
//! living owner.

use crate::instance::{Instance, InstanceError, InstanceErrorKind, Instances};
use crate::paths::Paths;
use crate::rm::remove;
use crate::sweep::sweep;

/// What was removed.
#[derive(Debug, Default)]
pub struct Purged {
    /// The instances, by id and name.
    pub instances: Vec<(String, String)>,
    /// What belonged to no instance any more: half-made directories, run dirs, links, rules, addresses.
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
    let swept = sweep(&instances);
    purged.leftovers = swept.removed;
    purged.failed.extend(swept.failed);
    Ok(purged)
}

/// Whether it had ended and is gone now.
fn purge_one(instance: &Instance) -> Result<bool, InstanceError> {
    match instance.try_own()? {
        None => Ok(false),
        Some(owned) => remove(owned).map(|()| true),
    }
}
