//! Opening a store.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{At, StoreError, StoreErrorKind, make_dir};
use crate::recover;
use crate::session::{Session, sync_dir};

/// The version of the layout that this code reads and writes.
const VERSION: u32 = 1;
/// How long an opener waits for a garbage collection of another process.
const LOCK_WAIT: Duration = Duration::from_secs(120);
/// How often it looks.
const LOCK_LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Deserialize, Serialize)]
struct Meta {
    version: u32,
    /// Features that a reader must know. None exist yet.
    features: Vec<String>,
}

/// An open store. Cheap to share by reference between threads; processes open their own.
///
/// While it is open, no other process collects garbage: whoever runs for long (a monitor) does not keep it open.
#[derive(Debug)]
pub struct Store {
    pub(crate) root: PathBuf,
    pub(crate) session: Session,
    pub(crate) open: crate::blob::OpenBlobs,
    /// Held shared; [`Store::collect_garbage`] takes it exclusively.
    pub(crate) lock: File,
}

impl Store {
    /// Opens the store in a directory and makes it if it is not there; removes what killed processes left.
    ///
    /// # Errors
    /// When the directory cannot be made or was written by a newer version; [`StoreErrorKind::Busy`] when another
    /// process collects garbage for minutes.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        let root = make_dir(root.as_ref().to_owned())?;
        let root = fs_err::canonicalize(&root).at("cannot resolve", &root)?;
        let lock = shared_lock(&root)?;
        let session = Session::new(&root);
        let meta = root.join("meta.json");
        match fs_err::read(&meta) {
            Ok(bytes) => check_meta(&meta, &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create(&root, &meta, &session)?
            }
            Err(error) => return Err(StoreError::io("cannot read", &meta, error)),
        }
        recover::recover(&root)?;
        Ok(Self {
            root,
            session,
            open: crate::blob::OpenBlobs::default(),
            lock,
        })
    }

    /// The directory of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Puts everything on the disk that this process gave a name. To be called before success is reported.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.session.settle()
    }

    /// A path under `tmp/` that nobody else uses and that the next process removes if this one dies.
    ///
    /// # Errors
    /// When the session cannot be begun.
    pub fn temporary(&self) -> Result<PathBuf, StoreError> {
        Ok(self.root.join("tmp").join(self.session.unique()?))
    }

    /// Writes a small file at once or not at all, and makes it durable if `durable`.
    pub(crate) fn replace(
        &self,
        path: &Path,
        bytes: &[u8],
        durable: bool,
    ) -> Result<(), StoreError> {
        put(&self.temporary()?, path, bytes, durable)
    }
}

impl Drop for Store {
    /// Best effort for callers that end early: without it the next boot would verify more than it must.
    fn drop(&mut self) {
        self.session.end();
    }
}

fn shared_lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join("lock");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .at("cannot open", &path)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_LOOK)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::new(
                    StoreErrorKind::Busy,
                    format!(
                        "another process cleans the store at {}; try again when it is done",
                        root.display()
                    ),
                ));
            }
            Err(error) => return Err(error).at("cannot lock", &path),
        }
    }
}

fn check_meta(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let meta: Meta = serde_json::from_slice(bytes).map_err(|error| {
        StoreError::new(
            StoreErrorKind::Corrupt,
            format!("cannot read {}: {error}", path.display()),
        )
    })?;
    if meta.version > VERSION || !meta.features.is_empty() {
        return Err(StoreError::new(
            StoreErrorKind::TooNew,
            format!(
                "the store at {} has format {} {:?}, this firebuild knows format {VERSION}: use the newer firebuild, or another directory",
                path.display(),
                meta.version,
                meta.features
            ),
        ));
    }
    Ok(())
}

/// Lays a new store out. Several processes may do this at once: every step is idempotent and `meta.json` comes last.
fn create(root: &Path, meta: &Path, session: &Session) -> Result<(), StoreError> {
    for directory in [
        "blobs/sha256",
        "snapshots",
        "artifacts",
        "cache",
        "locks",
        "sessions",
        "tmp",
    ] {
        make_dir(root.join(directory))?;
    }
    let temporary = root.join("tmp").join(session.unique()?);
    put(
        &temporary,
        &root.join("oci-layout"),
        firebuild_oci::layout::LAYOUT_MARKER.as_bytes(),
        true,
    )?;
    let text = format!(r#"{{"version":{VERSION},"features":[]}}"#);
    put(&temporary, meta, text.as_bytes(), true)
}

fn put(temporary: &Path, path: &Path, bytes: &[u8], durable: bool) -> Result<(), StoreError> {
    let written = fs_err::write(temporary, bytes)
        .at("cannot write", temporary)
        .and_then(|()| {
            if durable {
                File::open(temporary)
                    .and_then(|file| file.sync_all())
                    .at("cannot sync", temporary)?;
            }
            fs_err::rename(temporary, path).at("cannot rename to", path)
        });
    if let Err(error) = written {
        let _ = fs_err::remove_file(temporary);
        return Err(error);
    }
    match path.parent() {
        Some(parent) if durable => sync_dir(parent),
        _ => Ok(()),
    }
}
