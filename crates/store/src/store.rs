//! Opening a store.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{At, StoreError, StoreErrorKind, make_dir};
use crate::lease::{self, Leases};
use crate::recover;
use crate::session::{Session, sync_dir};

/// The version of the layout that this code reads and writes.
const VERSION: u32 = 1;

#[derive(Debug, Deserialize, Serialize)]
struct Meta {
    version: u32,
    /// Features that a reader must know. None exist yet.
    features: Vec<String>,
}

/// An open store. Cheap to share by reference between threads; processes open their own.
///
/// What it finds or makes stays as long as it is open, whoever prunes meanwhile ([`Store::hold`]).
#[derive(Debug)]
pub struct Store {
    pub(crate) root: PathBuf,
    pub(crate) session: Session,
    pub(crate) open: crate::blob::OpenBlobs,
    pub(crate) leases: Leases,
}

impl Store {
    /// Opens the store in a directory and makes it if it is not there; removes what killed processes left.
    ///
    /// # Errors
    /// When the directory cannot be made or was written by a newer version.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        let root = make_dir(root.as_ref().to_owned())?;
        let root = fs_err::canonicalize(&root).at("cannot resolve", &root)?;
        let gate = gate(&root)?;
        let session = Session::new(&root);
        let leases = Leases::new(&root, session.id(), gate);
        let meta = root.join("meta.json");
        match fs_err::read(&meta) {
            Ok(bytes) => check_meta(&meta, &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create(&root, &meta, &session)?
            }
            Err(error) => return Err(StoreError::io("cannot read", &meta, error)),
        }
        let torn = recover::recover(&root)?;
        lease::forget_the_dead(&root);
        let store = Self {
            root,
            session,
            open: crate::blob::OpenBlobs::default(),
            leases,
        };
        if torn {
            store.drop_torn_refs()?;
        }
        Ok(store)
    }

    /// The directory of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Puts everything on the disk that this process or another one gave a name, for callers that have to know it is
    /// there. Without it a power cut shortly afterwards may take back what was done, but leaves no torn content.
    ///
    /// It takes as long as the disk does for what has been written in the last half minute: where another process named
    /// something, or directories were made, of the whole file system.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.session.settle()?;
        recover::settle_others(&self.root, self.session.id())
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
    fn drop(&mut self) {
        self.session.end();
        self.leases.end();
    }
}

/// The file that is locked for the moments in which leases are written and names are taken away.
fn gate(root: &Path) -> Result<File, StoreError> {
    let path = root.join("lock");
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .at("cannot open", &path)
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
        "leases",
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
