//! Opening a store.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{At, StoreError, StoreErrorKind, make_dir};
use crate::session::{self, Session};

/// The version of the layout that this code reads and writes.
const VERSION: u32 = 1;

#[derive(Debug, Deserialize, Serialize)]
struct Meta {
    version: u32,
    /// Features that a reader must know. None exist yet.
    features: Vec<String>,
}

/// An open store. Cheap to share by reference between threads; processes open their own.
#[derive(Debug)]
pub struct Store {
    pub(crate) root: PathBuf,
    pub(crate) session: Session,
    pub(crate) open: crate::blob::OpenBlobs,
}

impl Store {
    /// Opens the store in a directory and makes it if it is not there; removes what killed processes left.
    ///
    /// # Errors
    /// When the directory cannot be made or was written by a newer version.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        let root = make_dir(root.as_ref().to_owned())?;
        let root = fs_err::canonicalize(&root).at("cannot resolve", &root)?;
        let meta = root.join("meta.json");
        match fs_err::read(&meta) {
            Ok(bytes) => check_meta(&meta, &bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(&root, &meta)?,
            Err(error) => return Err(StoreError::io("cannot read", &meta, error)),
        }
        session::recover(&root)?;
        let session = Session::new(&root);
        Ok(Self { root, session, open: crate::blob::OpenBlobs::default() })
    }

    /// The directory of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Puts everything on the disk that this process wrote. To be called before success is reported.
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
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8], durable: bool) -> Result<(), StoreError> {
        let temporary = self.temporary()?;
        fs_err::write(&temporary, bytes).at("cannot write", &temporary)?;
        if durable {
            File::open(&temporary).and_then(|file| file.sync_all()).at("cannot sync", &temporary)?;
        }
        fs_err::rename(&temporary, path).at("cannot rename to", path)?;
        if durable && let Some(parent) = path.parent() {
            session::sync_dir(parent)?;
        }
        Ok(())
    }
}

impl Drop for Store {
    /// Best effort for callers that end early: without it the next boot would verify more than it must.
    fn drop(&mut self) {
        let _ = self.session.settle();
    }
}

fn check_meta(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let meta: Meta = serde_json::from_slice(bytes)
        .map_err(|error| StoreError::new(StoreErrorKind::Corrupt, format!("cannot read {}: {error}", path.display())))?;
    if meta.version > VERSION || !meta.features.is_empty() {
        return Err(StoreError::new(
            StoreErrorKind::TooNew,
            format!(
                "the store at {} has format {} {:?}, this firebuild knows format {VERSION}",
                path.display(),
                meta.version,
                meta.features
            ),
        ));
    }
    Ok(())
}

/// Lays a new store out. Several processes may do this at once: every step is idempotent and `meta.json` comes last.
fn create(root: &Path, meta: &Path) -> Result<(), StoreError> {
    for directory in ["blobs/sha256", "snapshots", "artifacts", "cache", "locks", "sessions", "tmp"] {
        make_dir(root.join(directory))?;
    }
    let mine = format!("new-{}", std::process::id());
    let put = |path: &Path, text: &str| {
        let temporary = root.join("tmp").join(&mine);
        fs_err::write(&temporary, text).at("cannot write", &temporary)?;
        fs_err::rename(&temporary, path).at("cannot rename to", path)
    };
    put(&root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    put(meta, &format!(r#"{{"version":{VERSION},"features":[]}}"#))
}
