//! What dead processes left, and what a power cut tore.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use firebuild_oci::{Digest, Hasher};
use rustix::fs::{FlockOperation, flock};

use crate::error::{At, StoreError};
use crate::session::{ENDED, boot_id, is_at, sync_all};
use crate::store::Store;

/// Content that is older than a torn session by less than this is looked at too: file times are coarse.
const TIME_SLACK: Duration = Duration::from_secs(5);

/// An ended session whose content is this old has mostly been written by the kernel, which lets nothing wait for more than
/// some 30 s: a sync then costs little.
const WRITTEN: Duration = Duration::from_secs(120);

/// Clears what dead sessions left, and settles what ended ones left to be settled. Called when the store is opened; says
/// whether content may have gone that a power cut has torn.
pub(crate) fn recover(root: &Path) -> Result<bool, StoreError> {
    let directory = root.join("sessions");
    let mut torn = false;
    let mut unsettled = Vec::new();
    for entry in fs_err::read_dir(&directory).at("cannot read", &directory)? {
        let path = entry.at("cannot read", &directory)?.path();
        let Ok(mut file) = File::open(&path) else {
            continue;
        };
        // Held by a living process, or one that dies may have removed it between our open and our lock.
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() || !is_at(&file, &path) {
            continue;
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let ended = name.ends_with(ENDED);
        if !ended {
            remove_leftovers(&root.join("tmp"), &format!("{name}."));
            remove_leftovers(&root.join("snapshots"), &format!("active-{name}."));
        }
        let mut boot = String::new();
        let _ = file.read_to_string(&mut boot);
        if ended && boot == boot_id() {
            if is_older(&path, WRITTEN) {
                unsettled.push((path, file));
            }
            continue;
        } else if boot == boot_id() {
            // Killed before it settled. All is there, but from here on nobody would announce it any more.
            sync_all(root)?;
        } else if !boot.is_empty() {
            let began = file
                .metadata()
                .and_then(|meta| meta.modified())
                .at("cannot read", &path)?;
            verify_since(root, began)?;
            torn = true;
        }
        remove_session(&path)?;
    }
    if !unsettled.is_empty() {
        // Their locks are held meanwhile, so that no two processes do it.
        sync_all(root)?;
        unsettled
            .iter()
            .try_for_each(|(path, _)| remove_session(path))?;
    }
    Ok(torn)
}

/// Puts on the disk what other sessions of this boot named, be they ended or not: what this process found may be theirs. The
/// files of the ended ones go; the living settle themselves.
pub(crate) fn settle_others(root: &Path, own: &str) -> Result<(), StoreError> {
    let directory = root.join("sessions");
    let mut ended = Vec::new();
    let mut dirty = false;
    for entry in fs_err::read_dir(&directory).at("cannot read", &directory)? {
        let path = entry.at("cannot read", &directory)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name == Some(own) {
            continue;
        }
        let Ok(mut file) = File::open(&path) else {
            continue;
        };
        let mut boot = String::new();
        let _ = file.read_to_string(&mut boot);
        dirty |= !boot.is_empty();
        // Its lock is held to the end, so that nobody else does it meanwhile.
        if name.is_some_and(|name| name.ends_with(ENDED))
            && boot == boot_id()
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && is_at(&file, &path)
        {
            ended.push((path, file));
        }
    }
    if dirty {
        sync_all(root)?;
    }
    ended.iter().try_for_each(|(path, _)| remove_session(path))
}

fn remove_session(path: &Path) -> Result<(), StoreError> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("cannot remove", path, error))
        }
        _ => Ok(()),
    }
}

/// By its last change, which the end of its session was.
fn is_older(path: &Path, than: Duration) -> bool {
    fs_err::symlink_metadata(path).is_ok_and(|meta| {
        SystemTime::now()
            .duration_since(changed(&meta))
            .is_ok_and(|age| age >= than)
    })
}

/// Removes entries whose name begins with `prefix`. What cannot be removed (files of sub-ids) stays:
/// [`Store::stale_snapshots`] finds it.
fn remove_leftovers(directory: &Path, prefix: &str) {
    let Ok(entries) = fs_err::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            remove_any(&entry.path());
        }
    }
}

/// Best effort: what it leaves is harmless and found again.
fn remove_any(path: &Path) {
    let is_dir = fs_err::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let _ = if is_dir {
        fs_err::remove_dir_all(path)
    } else {
        fs_err::remove_file(path)
    };
}

/// Looks at everything that got its name after a session began which a power cut ended.
fn verify_since(root: &Path, began: SystemTime) -> Result<(), StoreError> {
    let since = began.checked_sub(TIME_SLACK).unwrap_or(began);
    // The change time: a rename sets it, and nobody can set it back, as the times of unpacked files are.
    let young =
        |path: &Path| fs_err::symlink_metadata(path).is_ok_and(|meta| changed(&meta) >= since);
    let blobs = root.join("blobs/sha256");
    for entry in fs_err::read_dir(&blobs).at("cannot read", &blobs)? {
        let path = entry.at("cannot read", &blobs)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if young(&path) && Some(hash(&path)?) != Digest::from_hex(name).ok() {
            fs_err::remove_file(&path).at("cannot remove", &path)?;
        }
    }
    // These can be made again, and have no digest to be verified by. Cache records verify themselves: a torn one is no
    // JSON, and one that names a removed blob is a miss.
    for path in children(&root.join("artifacts"))
        .iter()
        .flat_map(|kind| children(kind))
    {
        if young(&path) {
            remove_any(&path);
        }
    }
    for path in children(&root.join("snapshots")) {
        if young(&path) {
            discard_snapshot(&path);
        }
    }
    Ok(())
}

/// Takes a snapshot's name away at once; its files are removed here if we may, else by whoever may.
fn discard_snapshot(path: &Path) {
    let mut stale = path.as_os_str().to_owned();
    if let (Some(parent), Some(name)) = (
        path.parent(),
        path.file_name().and_then(|name| name.to_str()),
    ) && !name.starts_with("active-")
    {
        stale = parent
            .join(format!("active-torn-{name}.0"))
            .into_os_string();
        if fs_err::rename(path, &stale).is_err() {
            stale = path.as_os_str().to_owned();
        }
    }
    remove_any(Path::new(&stale));
}

fn children(directory: &Path) -> Vec<PathBuf> {
    fs_err::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn changed(meta: &std::fs::Metadata) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or(0));
    SystemTime::UNIX_EPOCH
        .checked_add(seconds)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

pub(crate) fn hash(path: &Path) -> Result<Digest, StoreError> {
    let mut file = File::open(path).at("cannot open", path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer).at("cannot read", path)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}

impl Store {
    /// Snapshots that dead processes began and that could not be removed, because their files belong to sub-ids.
    ///
    /// Whoever can act with these ids (a process in a user namespace that has them) removes them.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn stale_snapshots(&self) -> Result<Vec<PathBuf>, StoreError> {
        let directory = self.root.join("snapshots");
        let mut stale = Vec::new();
        for entry in fs_err::read_dir(&directory).at("cannot read", &directory)? {
            let path = entry.at("cannot read", &directory)?.path();
            let session = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix("active-")?.rsplit_once('.'))
                .map(|(session, _)| session);
            let Some(session) = session else { continue };
            if session != self.session.id() && !held(&self.root.join("sessions").join(session)) {
                stale.push(path);
            }
        }
        Ok(stale)
    }
}

/// Whether some process holds the lock of a file.
pub(crate) fn held(path: &Path) -> bool {
    File::open(path)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}
