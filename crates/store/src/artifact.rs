//! Artifacts: exported images, made from content that the store holds, and so made again when they are missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{At, StoreError, make_dir};
use crate::store::Store;

impl Store {
    fn artifact_path(&self, kind: &str, key: &[u8; 32]) -> PathBuf {
        self.root
            .join("artifacts")
            .join(kind)
            .join(firebuild_oci::Digest::from_bytes(*key).to_hex())
    }

    /// The artifact of a key, if it is there.
    #[must_use]
    pub fn artifact(&self, kind: &str, key: &[u8; 32]) -> Option<PathBuf> {
        let path = self.artifact_path(kind, key);
        let found = path.is_file();
        if found {
            used(&path);
        }
        found.then_some(path)
    }

    /// Takes over a file under `tmp/` as the artifact of a key. If there is one already, that one stays.
    ///
    /// # Errors
    /// When the rename fails.
    pub fn adopt_artifact(
        &self,
        kind: &str,
        key: &[u8; 32],
        file: &Path,
    ) -> Result<PathBuf, StoreError> {
        let path = self.artifact_path(kind, key);
        if let Some(parent) = path.parent() {
            make_dir(parent.to_owned())?;
        }
        if path.exists() {
            fs_err::remove_file(file).at("cannot remove", file)?;
        } else {
            self.session.publish(&path, || {
                fs_err::rename(file, &path).at("cannot rename to", &path)
            })?;
        }
        Ok(path)
    }
}

/// A use is noted at most this often: a note is a write.
const NOTE_EVERY: Duration = Duration::from_secs(3600);

/// Notes that something was used, for the garbage collector. Best effort.
pub(crate) fn used(path: &Path) {
    let Ok(file) = fs_err::File::open(path) else {
        return;
    };
    let old = file
        .metadata()
        .and_then(|meta| meta.modified())
        .is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed > NOTE_EVERY));
    if old {
        let _ = file.file().set_modified(std::time::SystemTime::now());
    }
}
