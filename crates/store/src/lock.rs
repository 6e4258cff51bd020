//! Locks: one process computes, the others wait and then find the result.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::error::{At, StoreError, StoreErrorKind};
use crate::session::is_at;
use crate::store::Store;

/// How often a waiting process looks whether it was told to stop.
const LOOK: Duration = Duration::from_millis(20);

/// A held lock. It ends with this value, or with the process.
#[derive(Debug)]
pub struct KeyLock {
    file: File,
    path: PathBuf,
}

impl Store {
    /// Takes the lock of a name (letters, digits and `-`), and waits for whoever holds it until `stop` says otherwise.
    ///
    /// `None` means that `stop` ended the wait.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn lock(&self, name: &str, stop: &dyn Fn() -> bool) -> Result<Option<KeyLock>, StoreError> {
        loop {
            if let Some(lock) = self.try_lock(name)? {
                return Ok(Some(lock));
            }
            if stop() {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Takes the lock of a name if nobody holds it.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn try_lock(&self, name: &str) -> Result<Option<KeyLock>, StoreError> {
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(StoreError::new(
                StoreErrorKind::Corrupt,
                format!("{name:?} is no name for a lock"),
            ));
        }
        let path = self.root.join("locks").join(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .at("cannot open lock", &path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).at("cannot lock", &path),
        }
        // The holder before us removes the file at its end: a lock on a removed file excludes nobody.
        let same = is_at(&file, &path);
        // Lazily: a lock that is made and dropped would remove the file of whoever has the name now.
        Ok(same.then(|| KeyLock { file, path }))
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // While it is still locked: nobody can hold the name between these two.
        let _ = fs_err::remove_file(&self.path);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}
