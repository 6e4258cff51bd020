//! Snapshots: layers as directories.
//!
//! The store only knows their names. They are filled, read and removed by whoever has the right ids to do so (for an
//! ordinary user: a process inside the user namespace that owns their files).

use std::path::{Path, PathBuf};

use firebuild_oci::Digest;

use crate::error::{At, StoreError, make_dir};
use crate::store::Store;

/// A snapshot that is being made. Dropped without [`Store::commit_snapshot`] it stays for the next process to remove.
#[derive(Debug)]
pub struct ActiveSnapshot {
    path: PathBuf,
}

impl ActiveSnapshot {
    /// The directory; its caller makes what is in it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// Where the snapshot of a layer is or would be.
    #[must_use]
    pub fn snapshot_path(&self, layer: &Digest) -> PathBuf {
        self.root.join("snapshots").join(layer.to_hex())
    }

    /// The snapshot of a layer, if there is one; then it stays as long as this store is open.
    #[must_use]
    pub fn snapshot(&self, layer: &Digest) -> Option<PathBuf> {
        let path = self.snapshot_path(layer);
        (self.hold(&path) && path.is_dir()).then_some(path)
    }

    /// Begins a snapshot: an empty directory on the same file system.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn prepare_snapshot(&self) -> Result<ActiveSnapshot, StoreError> {
        let name = format!("active-{}", self.session.unique()?);
        Ok(ActiveSnapshot {
            path: make_dir(self.root.join("snapshots").join(name))?,
        })
    }

    /// Gives a directory inside `active` (or `active` itself) its final name. If another process was faster, that one's
    /// snapshot stays, and the path of this one is handed back for removal.
    ///
    /// # Errors
    /// When the rename fails.
    pub fn commit_snapshot(
        &self,
        directory: &Path,
        layer: &Digest,
    ) -> Result<Option<PathBuf>, StoreError> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let path = self.snapshot_path(layer);
        self.session.publish_tree(|| {
            self.hold_new(&path, || {
                match renameat_with(CWD, directory, CWD, &path, RenameFlags::NOREPLACE) {
                    Ok(()) => Ok(None),
                    Err(rustix::io::Errno::EXIST) => Ok(Some(directory.to_owned())),
                    Err(error) => Err(error).at("cannot rename to", &path),
                }
            })
        })
    }
}
