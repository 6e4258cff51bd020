//! Sessions: which process may have left what behind.
//!
//! A session is a file in `sessions/`, held locked by its process. Its name is the prefix of everything the process makes
//! under `tmp/` and `snapshots/active-…`. A session whose lock is free belongs to nobody any more: its leftovers are
//! removed. If it is of an earlier boot as well, the machine went down while it wrote, and content that is younger than it
//! may be torn.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use firebuild_oci::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::error::{At, StoreError, make_dir};

/// Content younger than a torn session by less than this is looked at too: file times are coarse.
const TIME_SLACK: std::time::Duration = std::time::Duration::from_secs(5);

/// The session of this process. The file is made at the first write.
#[derive(Debug)]
pub(crate) struct Session {
    root: PathBuf,
    id: String,
    state: Mutex<State>,
    counter: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Held locked while anything that was written is not fsynced.
    file: Option<(PathBuf, File)>,
    /// What to fsync before the session may end.
    written: Vec<PathBuf>,
}

impl Session {
    pub(crate) fn new(root: &Path) -> Self {
        let mut random = [0u8; 8];
        // Uniqueness, not secrecy; the pid alone would do but for pid namespaces.
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        Self {
            root: root.to_owned(),
            id: format!("{}-{:016x}", std::process::id(), u64::from_ne_bytes(random)),
            state: Mutex::default(),
            counter: AtomicU64::new(0),
        }
    }

    /// A name that nobody else uses, with the session in front.
    pub(crate) fn unique(&self) -> Result<String, StoreError> {
        self.begin()?;
        Ok(format!("{}.{}", self.id, self.counter.fetch_add(1, Ordering::Relaxed)))
    }

    fn begin(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.file.is_some() {
            return Ok(());
        }
        let directory = self.root.join("sessions");
        let path = directory.join(&self.id);
        let mut file = File::create_new(&path).at("cannot make", &path)?;
        flock(&file, FlockOperation::LockExclusive).at("cannot lock", &path)?;
        file.write_all(boot_id().as_bytes()).at("cannot write", &path)?;
        file.sync_all().at("cannot sync", &path)?;
        sync_dir(&directory)?;
        state.file = Some((path, file));
        Ok(())
    }

    /// Notes a path that must be on the disk before the session ends.
    pub(crate) fn wrote(&self, path: PathBuf) {
        self.state().written.push(path);
    }

    /// Puts everything on the disk that was written, and ends the session. A further write begins it anew.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        let mut directories = std::collections::BTreeSet::new();
        for path in std::mem::take(&mut state.written) {
            match File::open(&path) {
                Ok(file) => file.sync_data().at("cannot sync", &path)?,
                // Removed since by someone who was allowed to.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(StoreError::io("cannot sync", &path, error)),
            }
            directories.extend(path.parent().map(Path::to_owned));
        }
        for directory in &directories {
            sync_dir(directory)?;
        }
        if let Some((path, file)) = state.file.take() {
            fs_err::remove_file(&path).at("cannot remove", &path)?;
            drop(file);
        }
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).at("cannot sync", path)
}

fn boot_id() -> String {
    fs_err::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Clears what dead sessions left. Called when the store is opened.
pub(crate) fn recover(root: &Path) -> Result<(), StoreError> {
    let directory = make_dir(root.join("sessions"))?;
    for entry in fs_err::read_dir(&directory).at("cannot read", &directory)? {
        let path = entry.at("cannot read", &directory)?.path();
        let Ok(mut file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let mut boot = String::new();
        let _ = file.read_to_string(&mut boot);
        let began = file.metadata().and_then(|meta| meta.modified()).at("cannot read", &path)?;
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // The file may have been removed by another process between our open and our lock.
        if !path.exists() {
            continue;
        }
        remove_leftovers(&root.join("tmp"), name);
        remove_leftovers(&root.join("snapshots"), &format!("active-{name}"));
        if boot != boot_id() {
            verify_since(root, began)?;
        }
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("cannot remove", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes entries whose name begins with `prefix`. What cannot be removed (files of sub-ids) stays for a later try.
fn remove_leftovers(directory: &Path, prefix: &str) {
    let Ok(entries) = fs_err::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let path = entry.path();
            let _ = if path.is_dir() { fs_err::remove_dir_all(&path) } else { fs_err::remove_file(&path) };
        }
    }
}

/// Looks at everything younger than a session that a power cut ended.
fn verify_since(root: &Path, began: SystemTime) -> Result<(), StoreError> {
    let since = began.checked_sub(TIME_SLACK).unwrap_or(began);
    let young = |path: &Path| {
        std::fs::symlink_metadata(path).and_then(|meta| meta.modified()).is_ok_and(|time| time >= since)
    };
    let blobs = root.join("blobs/sha256");
    for entry in fs_err::read_dir(&blobs).at("cannot read", &blobs)? {
        let path = entry.at("cannot read", &blobs)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if young(&path) && hash(&path)? != Digest::from_hex(name).ok() {
            fs_err::remove_file(&path).at("cannot remove", &path)?;
        }
    }
    for top in ["snapshots", "artifacts", "cache"] {
        drop_young(&root.join(top), &young, usize::from(top != "snapshots"));
    }
    Ok(())
}

fn drop_young(directory: &Path, young: &dyn Fn(&Path) -> bool, depth: usize) {
    let Ok(entries) = fs_err::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if depth > 0 {
            drop_young(&path, young, depth - 1);
        } else if young(&path) {
            let _ = if path.is_dir() { fs_err::remove_dir_all(&path) } else { fs_err::remove_file(&path) };
        }
    }
}

fn hash(path: &Path) -> Result<Option<Digest>, StoreError> {
    let mut file = File::open(path).at("cannot open", path)?;
    let mut hasher = firebuild_oci::Hasher::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer).at("cannot read", path)?;
        if count == 0 {
            return Ok(Some(hasher.finish()));
        }
        hasher.update(&buffer[..count]);
    }
}
