//! Artifacts: exported images, made from content that the store holds, and so made again when they are missing.

use std::path::{Path, PathBuf};

use crate::error::{At, StoreError, make_dir};
use crate::store::Store;

impl Store {
    /// Where the artifact of a key is or would be.
    #[must_use]
    pub fn artifact_path(&self, kind: &str, key: &[u8; 32]) -> PathBuf {
        self.root
            .join("artifacts")
            .join(kind)
            .join(firebuild_oci::Digest::from_bytes(*key).to_hex())
    }

    /// The artifact of a key, if it is there; then it stays as long as this store is open.
    #[must_use]
    pub fn artifact(&self, kind: &str, key: &[u8; 32]) -> Option<PathBuf> {
        let path = self.artifact_path(kind, key);
        (self.hold(&path) && path.is_file()).then_some(path)
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
        if self.hold(&path) {
            fs_err::remove_file(file).at("cannot remove", file)?;
        } else {
            self.session.publish(&path, || {
                self.hold_new(&path, || {
                    fs_err::rename(file, &path).at("cannot rename to", &path)
                })
            })?;
        }
        Ok(path)
    }
}
