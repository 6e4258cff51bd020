//! References: names of images.
//!
//! They are the `index.json` of the image layout, so that other tools can read the store
//! (`skopeo inspect oci:STORE:docker.io/library/debian:bookworm`). Changes read, alter and replace the file under a lock.

use std::collections::BTreeMap;
use std::path::PathBuf;

use firebuild_oci::document::MAX_MANIFEST_BYTES;
use firebuild_oci::{Descriptor, Digest, Document, Index, Reference, media_type};

use crate::error::{StoreError, StoreErrorKind};
use crate::store::Store;

/// The annotation that holds the name (OCI image specification, `annotations.md`).
const NAME: &str = "org.opencontainers.image.ref.name";
/// More references than this are no catalogue but a mistake.
const MAX_BYTES: u64 = 64 << 20;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct RefRecord {
    /// The canonical name: `docker.io/library/debian:bookworm`.
    pub name: String,
    /// Digest of the manifest in this store.
    pub manifest: Digest,
    /// Size of that manifest in bytes.
    pub size: u64,
    /// Further facts: where it came from, which artifact belongs to it.
    pub annotations: BTreeMap<String, String>,
}

impl Store {
    fn index_path(&self) -> PathBuf {
        self.root.join("index.json")
    }

    fn read_index(&self) -> Result<Index, StoreError> {
        let path = self.index_path();
        let bytes = match fs_err::metadata(&path) {
            Ok(meta) if meta.len() > MAX_BYTES => {
                return Err(StoreError::new(
                    StoreErrorKind::Corrupt,
                    format!("{} is too large", path.display()),
                ));
            }
            Ok(_) => {
                fs_err::read(&path).map_err(|error| StoreError::io("cannot read", &path, error))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Index::new(Vec::new()));
            }
            Err(error) => return Err(StoreError::io("cannot read", &path, error)),
        };
        serde_json::from_slice(&bytes).map_err(|error| {
            StoreError::new(
                StoreErrorKind::Corrupt,
                format!("cannot read {}: {error}", path.display()),
            )
        })
    }

    fn change_index(&self, change: impl FnOnce(&mut Index)) -> Result<(), StoreError> {
        let lock = self.lock("index", &|| false)?;
        let mut index = self.read_index()?;
        change(&mut index);
        self.replace(&self.index_path(), &index.to_bytes(), true)?;
        drop(lock);
        Ok(())
    }

    /// What a reference stands for.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn get_ref(&self, reference: &Reference) -> Result<Option<RefRecord>, StoreError> {
        let name = reference.canonical();
        Ok(self
            .list_refs()?
            .into_iter()
            .find(|record| record.name == name))
    }

    /// All references, by name.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn list_refs(&self) -> Result<Vec<RefRecord>, StoreError> {
        let mut records: Vec<RefRecord> = self
            .read_index()?
            .manifests
            .into_iter()
            .filter_map(|mut descriptor| {
                let name = descriptor.annotations.remove(NAME)?;
                Some(RefRecord {
                    name,
                    manifest: descriptor.digest,
                    size: descriptor.size,
                    annotations: descriptor.annotations,
                })
            })
            .collect();
        records.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(records)
    }

    /// Makes a name stand for a manifest, which must be in the store. The name is durable when this returns; its content
    /// is when the store is settled, and a power cut before that takes the name back, too.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn set_ref(&self, record: &RefRecord) -> Result<(), StoreError> {
        // A build that changed nothing writes nothing.
        if self.list_refs()?.contains(record) {
            return Ok(());
        }
        let mut descriptor =
            Descriptor::new(media_type::OCI_MANIFEST, record.manifest, record.size);
        descriptor.annotations.clone_from(&record.annotations);
        descriptor
            .annotations
            .insert(NAME.to_owned(), record.name.clone());
        self.change_index(|index| {
            index
                .manifests
                .retain(|other| other.annotations.get(NAME) != Some(&record.name));
            index.manifests.push(descriptor);
        })
    }

    /// Takes away the names whose content a power cut has torn.
    pub(crate) fn drop_torn_refs(&self) -> Result<(), StoreError> {
        let mut torn = Vec::new();
        for record in self.list_refs()? {
            if !self.is_whole(&record.manifest) {
                torn.push(record.name);
            }
        }
        if torn.is_empty() {
            return Ok(());
        }
        self.change_index(|index| {
            index.manifests.retain(|other| {
                other
                    .annotations
                    .get(NAME)
                    .is_none_or(|name| !torn.contains(name))
            });
        })
    }

    /// Whether a manifest and what it names are there.
    fn is_whole(&self, manifest: &Digest) -> bool {
        let Ok(bytes) = self.peek_blob(manifest, MAX_MANIFEST_BYTES) else {
            return false;
        };
        match Document::parse(&bytes, "") {
            Ok(Document::Manifest(manifest)) => manifest
                .layers
                .iter()
                .chain([&manifest.config])
                .all(|part| self.blob_path(&part.digest).exists()),
            _ => true,
        }
    }

    /// Takes a name away. Says whether it was there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_ref(&self, reference: &Reference) -> Result<bool, StoreError> {
        let name = reference.canonical();
        let mut found = false;
        self.change_index(|index| {
            let before = index.manifests.len();
            index
                .manifests
                .retain(|other| other.annotations.get(NAME) != Some(&name));
            found = index.manifests.len() < before;
        })?;
        Ok(found)
    }
}
