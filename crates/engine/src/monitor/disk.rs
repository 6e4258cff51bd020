//! The disk that a guest writes to.

use std::io;

use firebuild_rootfs::ext4;

use super::order::Scratch;
use crate::error::{Cause, Error};
use crate::instance::{Instance, RECORDS};
use crate::run::{RunError, RunErrorKind};
use crate::sparse::{copy, create};

/// The label of scratch disks.
const LABEL: &str = "firebuild-rw";

/// Makes the disk in the directory of an instance. A copy ends with an error of `Io` when `stop` says so.
pub(crate) fn make(
    instance: &Instance,
    scratch: &Scratch,
    stop: &mut dyn FnMut() -> bool,
) -> Result<(), RunError> {
    let (name, made): (_, Result<(), Cause>) = match scratch {
        Scratch::Empty { bytes } => {
            let path = instance.path(RECORDS.scratch);
            let made = create(&path).map_err(Cause::from).and_then(|file| {
                let identity = instance.id().as_str().as_bytes();
                ext4::write_empty(&file, *bytes, LABEL, identity)?;
                Ok(())
            });
            (path, made)
        }
        Scratch::Copy { of } => {
            let path = instance.path(RECORDS.copy);
            (path.clone(), copy(of, &path, stop).map_err(Cause::from))
        }
    };
    made.map_err(|cause| {
        let kind = if is_full(&*cause) {
            RunErrorKind::NoSpace
        } else {
            RunErrorKind::Io
        };
        Error::caused(
            kind,
            format!("cannot make the disk {}", name.display()),
            cause,
        )
    })
}

/// Removes the disks; an instance that has ended needs none.
pub(crate) fn remove(instance: &Instance) -> io::Result<()> {
    for name in [RECORDS.scratch, RECORDS.copy] {
        match fs_err::remove_file(instance.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
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
