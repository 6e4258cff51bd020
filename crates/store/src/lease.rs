//! Leases: what one process uses, no other removes.
//!
//! A process that finds or makes something in the store writes its path, one a line, into `leases/<id>`, which it holds
//! locked while it lives. That happens with the store's `lock` held shared, for the moment between looking and writing.
//! Who removes holds `lock` exclusively for as short a moment, reads the leases of the living, and takes names away
//! ([`crate::gc`]). So neither waits for the other's work: a build runs for hours beside a prune, and a prune ends in the
//! middle of a build.
//!
//! Where the lease cannot be written (a full disk), the shared lock is kept until the end: removal then waits for that
//! process, as it would for a firebuild that knows no leases. Not for itself, though: who makes room on a full disk knows
//! what it uses, written or not.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use crate::error::{At, StoreError, make_dir};
use crate::recover::held;
use crate::session::is_at;
use crate::store::Store;

/// A use is noted at most this often: a note is a write.
const NOTE_EVERY: Duration = Duration::from_secs(300);

/// What this process uses.
#[derive(Debug)]
pub(crate) struct Leases {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The store's `lock`.
    gate: File,
    /// Ours in `leases/`, from the first use on.
    file: Option<File>,
    /// Relative paths that stand in it, or would.
    names: HashSet<PathBuf>,
    /// A lease could not be written: `gate` stays locked.
    shut: bool,
}

impl Leases {
    pub(crate) fn new(root: &Path, id: &str, gate: File) -> Self {
        Self {
            path: root.join("leases").join(id),
            state: Mutex::new(State {
                gate,
                file: None,
                names: HashSet::new(),
                shut: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leases `name` if `take` says that it is there; nothing is removed while `take` works.
    fn take<T>(
        &self,
        name: &Path,
        take: impl FnOnce() -> Result<(bool, T), StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.state();
        if state.names.contains(name) {
            return take().map(|(_, value)| value);
        }
        if state.shut {
            let result = take();
            if let Ok((true, _)) = &result {
                state.names.insert(name.to_owned());
            }
            return result.map(|(_, value)| value);
        }
        lock(&state.gate, FlockOperation::LockShared).at("cannot lock the store for", name)?;
        let result = take();
        if let Ok((true, _)) = &result {
            let written = self.write(&mut state, name);
            state.names.insert(name.to_owned());
            if written.is_err() {
                state.shut = true;
                return result.map(|(_, value)| value);
            }
        }
        let _ = flock(&state.gate, FlockOperation::Unlock);
        result.map(|(_, value)| value)
    }

    fn write(&self, state: &mut State, name: &Path) -> Result<(), StoreError> {
        use std::os::unix::ffi::OsStrExt as _;
        while state.file.is_none() {
            if let Some(parent) = self.path.parent() {
                make_dir(parent.to_owned())?;
            }
            let file = File::options()
                .append(true)
                .create(true)
                .open(&self.path)
                .at("cannot make", &self.path)?;
            flock(&file, FlockOperation::LockExclusive).at("cannot lock", &self.path)?;
            // Another process may have taken the file for a dead one's before it was locked, and removed it.
            if is_at(&file, &self.path) {
                state.file = Some(file);
            }
        }
        let mut line = name.as_os_str().as_bytes().to_vec();
        line.push(b'\n');
        match &mut state.file {
            Some(file) => file.write_all(&line).at("cannot write", &self.path),
            None => Ok(()),
        }
    }

    /// Gives everything free.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        if let Some(file) = state.file.take() {
            let _ = fs_err::remove_file(&self.path);
            drop(file);
        }
        state.names.clear();
        if std::mem::take(&mut state.shut) {
            let _ = flock(&state.gate, FlockOperation::Unlock);
        }
    }

    /// Takes the store's lock exclusively, while `hold` lives. Waits for uses that are written down right now, and for
    /// processes that keep the lock, until `stop` says so: then nothing.
    pub(crate) fn shut_out(&self, stop: &dyn Fn() -> bool) -> Result<Option<Gate<'_>>, StoreError> {
        // A description of its own: our own threads go on leasing through the other, and are shut out as well.
        let gate = File::options()
            .read(true)
            .open(self.gate_path())
            .at("cannot open", &self.gate_path())?;
        {
            let state = self.state();
            if state.shut {
                let _ = flock(&state.gate, FlockOperation::Unlock);
            }
        }
        let gate = Gate {
            file: Some(gate),
            leases: self,
        };
        let Some(file) = &gate.file else {
            return Ok(None);
        };
        loop {
            match flock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(gate)),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if !stop() => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Ok(None),
                Err(error) => return Err(error).at("cannot lock", &self.gate_path()),
            }
        }
    }

    fn gate_path(&self) -> PathBuf {
        self.path
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("."))
            .join("lock")
    }
}

/// The store's lock, held exclusively.
#[derive(Debug)]
pub(crate) struct Gate<'a> {
    file: Option<File>,
    leases: &'a Leases,
}

impl Gate<'_> {
    /// What the holder itself uses.
    pub(crate) fn own_uses(&self) -> HashSet<PathBuf> {
        self.leases.state().names.clone()
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.file = None;
        let state = self.leases.state();
        if state.shut {
            // As before: nothing that we use and could not write down is removed by others.
            let _ = lock(&state.gate, FlockOperation::LockShared);
        }
    }
}

fn lock(file: &File, how: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match flock(file, how) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

impl Store {
    /// Whether something of the store is there; if it is, nobody removes it as long as this store is open. The use is
    /// noted in its modification time, for whoever prunes by age.
    ///
    /// `path` is below [`Store::root`]. Blobs, snapshots and artifacts are held by the functions that find them; this is
    /// for what others keep in directories of their own (`mounts`, caches of sources).
    #[must_use]
    pub fn hold(&self, path: &Path) -> bool {
        let exists = || fs_err::symlink_metadata(path).is_ok();
        let Ok(name) = path.strip_prefix(&self.root) else {
            return exists();
        };
        if self.leases.state().names.contains(name) {
            return exists();
        }
        let there = self.leases.take(name, || {
            let there = exists();
            Ok((there, there))
        });
        let there = there.unwrap_or_else(|_| exists());
        if there {
            used(path);
        }
        there
    }

    /// Gives something its name by `make`, and holds it.
    pub(crate) fn hold_new<T>(
        &self,
        path: &Path,
        make: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let name = path.strip_prefix(&self.root).unwrap_or(path);
        self.leases.take(name, || make().map(|value| (true, value)))
    }
}

/// Notes that something was used, for whoever prunes by age. Best effort.
pub(crate) fn used(path: &Path) {
    let old = fs_err::symlink_metadata(path)
        .and_then(|meta| meta.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed > NOTE_EVERY));
    if old && let Ok(file) = File::open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// What living processes use: relative paths, each with the process that was first.
pub(crate) fn of_the_living(root: &Path) -> BTreeMap<PathBuf, u32> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut all = BTreeMap::new();
    let Ok(list) = fs_err::read_dir(root.join("leases")) else {
        return all;
    };
    for path in list.flatten().map(|entry| entry.path()) {
        if !held(&path) {
            continue;
        }
        let process = path
            .file_name()
            .and_then(|name| name.to_str()?.split('-').next()?.parse().ok())
            .unwrap_or(0);
        let mut bytes = Vec::new();
        let _ = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
        for line in bytes.split(|byte| *byte == b'\n') {
            if !line.is_empty() {
                let name = PathBuf::from(std::ffi::OsStr::from_bytes(line));
                all.entry(name).or_insert(process);
            }
        }
    }
    all
}

/// Removes the leases of dead processes.
pub(crate) fn forget_the_dead(root: &Path) {
    let Ok(list) = fs_err::read_dir(root.join("leases")) else {
        return;
    };
    for path in list.flatten().map(|entry| entry.path()) {
        let Ok(file) = File::open(&path) else {
            continue;
        };
        // While it is locked, so that nobody begins to use it between the look and the removal.
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_at(&file, &path) {
            let _ = fs_err::remove_file(&path);
        }
    }
}
