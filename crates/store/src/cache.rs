//! Cache records: results of build steps by key.
//!
//! A record is a small JSON document that the builder defines; the store only keeps it. It is never a proof: the builder
//! checks that what it names is still there.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{StoreError, StoreErrorKind, make_dir};
use crate::store::Store;

impl Store {
    fn cache_path(&self, key: &[u8; 32]) -> PathBuf {
        let hex = firebuild_oci::Digest::from_bytes(*key).to_hex();
        self.root
            .join("cache")
            .join(&hex[..2])
            .join(format!("{hex}.json"))
    }

    /// The record of a key. A damaged record is none.
    #[must_use]
    pub fn cache_get<T: DeserializeOwned>(&self, key: &[u8; 32]) -> Option<T> {
        let path = self.cache_path(key);
        let bytes = fs_err::read(&path).ok()?;
        let record = serde_json::from_slice(&bytes).ok()?;
        crate::lease::used(&path);
        Some(record)
    }

    /// Keeps a record, in place of an earlier one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn cache_put<T: Serialize>(&self, key: &[u8; 32], record: &T) -> Result<(), StoreError> {
        let path = self.cache_path(key);
        if let Some(parent) = path.parent() {
            make_dir(parent.to_owned())?;
        }
        let bytes = serde_json::to_vec(record).map_err(|error| {
            StoreError::new(
                StoreErrorKind::Corrupt,
                format!("cannot write a cache record: {error}"),
            )
        })?;
        self.replace(&path, &bytes, false)
    }
}
