//! The disk that a guest writes to.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use firebuild_rootfs::ext4;
use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
use rustix::io::Errno;

use super::order::Scratch;
use crate::error::{Cause, Error};
use crate::instance::{Instance, RECORDS};
use crate::run::{RunError, RunErrorKind};

/// The label of scratch disks.
const LABEL: &str = "firebuild-rw";
/// Bytes copied in one go.
const STEP: usize = 1 << 20;

/// Makes the disk in the directory of an instance.
pub(crate) fn make(instance: &Instance, scratch: &Scratch) -> Result<(), RunError> {
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
            (path.clone(), copy(of, &path).map_err(Cause::from))
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

fn create(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Copies a disk image: by sharing its blocks, else the data without the holes.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let from = fs_err::File::open(from)?.into_file();
    let to = create(to)?;
    if ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut buffer = vec![0; STEP];
    let mut at = 0;
    while at < size {
        let data = match seek(&from, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = seek(&from, SeekFrom::Hole(data))?.min(size);
        at = data;
        while at < hole {
            let rest = usize::try_from(hole - at).unwrap_or(STEP);
            let part = &mut buffer[..rest.min(STEP)];
            from.read_exact_at(part, at)?;
            to.write_all_at(part, at)?;
            at += part.len() as u64;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::{copy, create};

    #[test]
    fn a_copy_has_the_data_and_the_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(&vec![7; 3 << 20], 10 << 20).unwrap();
        file.write_all_at(b"end", (64 << 20) - 3).unwrap();
        copy(&from, &to).unwrap();
        assert!(fs_err::read(&from).unwrap() == fs_err::read(&to).unwrap());
        let blocks = fs_err::metadata(&to).unwrap().blocks();
        assert!(blocks * 512 < 8 << 20, "{blocks} blocks");
        copy(&from, &to).unwrap_err(); // never over an existing file
    }
}
