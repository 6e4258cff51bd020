//! Looking whether the store is whole.

use std::io;
use std::path::PathBuf;

use firebuild_oci::{Digest, Document, document::MAX_MANIFEST_BYTES};

use crate::error::{StoreError, StoreErrorKind};
use crate::inventory::{entries, parse};
use crate::recover::hash;
use crate::store::Store;

/// Something that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub path: PathBuf,
    /// What is wrong, and what to do about it.
    pub what: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blobs that were read.
    pub blobs: usize,
    /// References that were followed.
    pub references: usize,
    /// Records that were read.
    pub records: usize,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl Store {
    /// Reads every blob and follows every reference. Others may work meanwhile. Nothing is changed.
    ///
    /// A record that names missing content is no fault: it is a miss.
    ///
    /// # Errors
    /// When the references cannot be read.
    pub fn check(&self, stop: &dyn Fn() -> bool) -> Result<Checked, StoreError> {
        let mut found = Checked::default();
        entries(&self.root.join("blobs"), 1, &mut |path| {
            if stop() {
                return;
            }
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let real = match hash(path) {
                Ok(digest) => digest.to_hex(),
                // Pruned since it was listed.
                Err(error) if error.kind() == StoreErrorKind::NotFound => return,
                Err(error) => io::Error::other(error).to_string(),
            };
            found.blobs += 1;
            if real != name {
                found.faults.push(Fault {
                    path: path.to_owned(),
                    what: format!(
                        "its content has digest {real}: remove it, and build or pull again"
                    ),
                });
            }
        });
        for record in self.list_refs()? {
            found.references += 1;
            let lost = |digest: &Digest| Fault {
                path: self.blob_path(digest),
                what: format!("image {} needs it: build or pull that again", record.name),
            };
            let Ok(bytes) = self.peek_blob(&record.manifest, MAX_MANIFEST_BYTES) else {
                found.faults.push(lost(&record.manifest));
                continue;
            };
            if let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, "") {
                let parts = manifest.layers.iter().chain([&manifest.config]);
                let missing = parts.filter(|part| !self.blob_path(&part.digest).exists());
                found.faults.extend(missing.map(|part| lost(&part.digest)));
            } else {
                found.faults.push(lost(&record.manifest));
            }
        }
        entries(&self.root.join("cache"), 1, &mut |path| {
            found.records += 1;
            if parse(path).0.is_empty() && !is_json(path) {
                found.faults.push(Fault {
                    path: path.to_owned(),
                    what: "it is no record: remove it".to_owned(),
                });
            }
        });
        Ok(found)
    }
}

fn is_json(path: &std::path::Path) -> bool {
    match fs_err::read(path) {
        Ok(bytes) => serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(),
        // Replaced or removed since.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
