//! The lock of an instance, by which it has one owner: who holds it exclusively. It goes with the process that holds it,
//! however that ends.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::{InstanceError, io};

/// The lock in the directory of an instance.
pub(super) const LOCK: &str = "lock";
/// Somebody who only asks for the state holds a lock for a moment.
pub(super) const ASKING: Duration = Duration::from_millis(500);

pub(super) fn lock_file(path: &Path, operation: FlockOperation) -> Result<File, InstanceError> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| io("open", path, error))?;
    lock(&file, path, operation)?;
    Ok(file)
}

pub(super) fn open_lock(path: &Path) -> Result<Option<File>, InstanceError> {
    match fs_err::File::open(path) {
        Ok(file) => Ok(Some(file.into_file())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("open", path, error)),
    }
}

pub(super) fn lock(
    file: &File,
    path: &Path,
    operation: FlockOperation,
) -> Result<(), InstanceError> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(io("lock", path, error)),
        }
    }
}

/// The lock of a directory that nobody owns. Whoever asks for a state holds the lock for a moment and
/// is waited for.
pub(super) fn try_own(dir: &Path, patience: Duration) -> Result<Option<File>, InstanceError> {
    const STEP: Duration = Duration::from_millis(10);
    let path = dir.join(LOCK);
    let file = match open_lock(&path)? {
        Some(file) => file,
        None => lock_file(&path, FlockOperation::NonBlockingLockExclusive)?,
    };
    let mut waited = Duration::ZERO;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if waited < patience => {
                std::thread::sleep(STEP);
                waited += STEP;
            }
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(io("lock", &path, error)),
        }
    }
}
