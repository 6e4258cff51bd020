//! The disk that a guest writes to.

use std::io;
use std::path::Path;

use firebuild_rootfs::ext4;

use super::order::Scratch;
use crate::error::{Cause, Error};
use crate::instance::{Instance, RECORDS};
use crate::run::{RunError, RunErrorKind};
use crate::sparse::{copy, create};

/// The label of scratch disks.
const LABEL: &str = "firebuild-rw";

/// Makes the disk in the directory of an instance, unless it is there from an earlier run. A copy ends with an error of `Io` when `stop` says so.
pub(crate) fn make(
    instance: &Instance,
    scratch: &Scratch,
    stop: &mut dyn FnMut() -> bool,
) -> Result<(), RunError> {
    let path = instance.path(match scratch {
        Scratch::Empty { .. } => RECORDS.scratch,
        Scratch::Copy { .. } => RECORDS.copy,
    });
    if path.exists() {
        return Ok(());
    }
    // Whole or not at all: the next start takes what it finds.
    let aside = path.with_extension("part");
    let made = make_aside(instance, scratch, &aside, stop)
        .and_then(|()| Ok(fs_err::rename(&aside, &path)?));
    made.map_err(|cause| {
        let kind = if is_full(&*cause) {
            RunErrorKind::NoSpace
        } else {
            RunErrorKind::Io
        };
        Error::caused(
            kind,
            format!("cannot make the disk {}", path.display()),
            cause,
        )
    })
}

fn make_aside(
    instance: &Instance,
    scratch: &Scratch,
    aside: &Path,
    stop: &mut dyn FnMut() -> bool,
) -> Result<(), Cause> {
    match fs_err::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    match scratch {
        Scratch::Empty { bytes } => {
            let identity = instance.id().as_str().as_bytes();
            ext4::write_empty(&create(aside)?, *bytes, LABEL, identity)?;
        }
        Scratch::Copy { of } => copy(of, aside, stop)?,
    }
    Ok(())
}

/// Removes what a dead owner left of disks: half-made ones, and whole ones of an instance that cannot be started again.
pub(crate) fn remove(instance: &Instance) -> io::Result<()> {
    let can_start = instance.path(RECORDS.order).exists();
    for name in [RECORDS.scratch, RECORDS.copy] {
        let disk = instance.path(name);
        let part = disk.with_extension("part");
        let disk = Some(disk).filter(|_| !can_start);
        for path in disk.into_iter().chain([part]) {
            match fs_err::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether a chain of causes ends in a full disk.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let full = error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        });
        if full {
            return true;
        }
        next = error.source();
    }
    false
}
