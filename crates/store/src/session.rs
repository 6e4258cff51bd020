//! Sessions: which process may have left what behind, and what may not be on the disk yet.
//!
//! A session is a file in `sessions/`, held locked by its process as long as its [`crate::Store`] lives. Its name is the
//! prefix of everything the process makes under `tmp/` and `snapshots/active-…`. A session whose lock is free belongs to
//! nobody any more: its leftovers are removed.
//!
//! ```text
//!   empty ──publish: boot id, fsynced──▶ dirty ──settle: all content fsynced──▶ empty
//!                                          └────end: renamed to *.ended──▶ settled by whoever opens the store later
//! ```
//!
//! The end of a session waits for no disk: an image of a gigabyte would be written twice as long as it was made. What
//! it has named stays announced, and is settled when it has mostly been written anyway.
//!
//! Content gets its final name only while the file is dirty *on the disk*. So whatever a power cut tears is announced by a
//! dirty session of an earlier boot, and content younger than that file is looked at again ([`crate::recover`]).

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};

use crate::error::{At, StoreError};

/// The end of the name of a session that has ended and is not settled.
pub(crate) const ENDED: &str = ".ended";

/// The session of this process.
#[derive(Debug)]
pub(crate) struct Session {
    root: PathBuf,
    id: String,
    state: Mutex<State>,
    counter: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Made at the first write, locked until the end.
    file: Option<(PathBuf, File)>,
    /// The file says so, and the disk has it.
    dirty: bool,
    /// Files that have their final name and are not fsynced.
    written: Vec<PathBuf>,
    /// Directories of files were published, which only a sync of the whole file system covers.
    trees: bool,
}

impl Session {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            id: unique_id(),
            state: Mutex::default(),
            counter: AtomicU64::new(0),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// A name that nobody else uses, with the session in front.
    pub(crate) fn unique(&self) -> Result<String, StoreError> {
        self.begin(&mut self.state())?;
        Ok(format!(
            "{}.{}",
            self.id,
            self.counter.fetch_add(1, Ordering::Relaxed)
        ))
    }

    /// Makes sure that the session's file is there and locked.
    fn begin(&self, state: &mut State) -> Result<(), StoreError> {
        let path = self.root.join("sessions").join(&self.id);
        while state.file.is_none() {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .at("cannot make", &path)?;
            flock(&file, FlockOperation::LockExclusive).at("cannot lock", &path)?;
            // Another process may have taken the file for a dead one's before it was locked, and removed it.
            if is_at(&file, &path) {
                state.file = Some((path.clone(), file));
            }
        }
        Ok(())
    }

    /// Gives content its final name by `rename`, and notes that it is not on the disk yet.
    pub(crate) fn publish(
        &self,
        path: &Path,
        rename: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        self.mark(&mut state)?;
        rename()?;
        state.written.push(path.to_owned());
        Ok(())
    }

    /// The same for a directory with files in it.
    pub(crate) fn publish_tree<T>(
        &self,
        rename: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.state();
        self.mark(&mut state)?;
        state.trees = true;
        rename()
    }

    fn mark(&self, state: &mut State) -> Result<(), StoreError> {
        self.begin(state)?;
        if let (false, Some((path, file))) = (state.dirty, &state.file) {
            file.write_all_at(boot_id().as_bytes(), 0)
                .at("cannot write", path)?;
            file.sync_all().at("cannot sync", path)?;
            sync_dir(&self.root.join("sessions"))?;
            state.dirty = true;
        }
        Ok(())
    }

    /// Puts everything on the disk that has its final name.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        let (written, trees) = {
            let mut state = self.state();
            if !state.dirty {
                return Ok(());
            }
            (
                std::mem::take(&mut state.written),
                std::mem::take(&mut state.trees),
            )
        };
        // Without the lock: other threads go on writing.
        let synced = if trees {
            sync_all(&self.root)
        } else {
            sync_files(&written)
        };
        let mut state = self.state();
        if let Err(error) = synced {
            // The disk lost something, and a second fsync might not say so again: the session stays dirty for good.
            state.written.splice(0..0, written);
            state.trees = true;
            return Err(error);
        }
        if state.written.is_empty() && !state.trees {
            if let Some((path, file)) = &state.file {
                // Not fsynced: should it come back dirty after a power cut, then more is looked at than must be.
                file.set_len(0).at("cannot write", path)?;
            }
            state.dirty = false;
        }
        Ok(())
    }

    /// Ends the session. What is not on the disk yet stays announced.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        if let Some((path, file)) = state.file.take() {
            // Where it cannot be renamed it is taken for a killed one's, which costs a sync.
            let _ = if state.dirty {
                let mut ended = path.clone().into_os_string();
                ended.push(ENDED);
                fs_err::rename(path, ended)
            } else {
                fs_err::remove_file(path)
            };
            drop(file);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Process and chance; the process id alone would do but for pid namespaces.
pub(crate) fn unique_id() -> String {
    let mut random = [0u8; 8];
    // Uniqueness, not secrecy: without chance the process id still tells processes of one namespace apart.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    format!("{}-{:016x}", std::process::id(), u64::from_ne_bytes(random))
}

/// Whether `path` names the file that is open.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs_err::metadata(path)) {
        (Ok(mine), Ok(there)) => (mine.dev(), mine.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn sync_files(written: &[PathBuf]) -> Result<(), StoreError> {
    let mut directories = BTreeSet::new();
    for path in written {
        match File::open(path) {
            Ok(file) => file.sync_data().at("cannot sync", path)?,
            // Removed since by someone who was allowed to.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("cannot sync", path, error)),
        }
        directories.extend(path.parent());
    }
    directories.into_iter().try_for_each(sync_dir)
}

/// Puts the whole file system of the store on the disk.
pub(crate) fn sync_all(root: &Path) -> Result<(), StoreError> {
    let directory = File::open(root).at("cannot open", root)?;
    rustix::fs::syncfs(&directory).at("cannot sync", root)
}

pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .at("cannot sync", path)
}

/// Names this boot of the machine; empty if the kernel does not say, which then makes every session look old.
pub(crate) fn boot_id() -> String {
    fs_err::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}
