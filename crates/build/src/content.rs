//! The store as the place where the bytes of trees are.

use std::io;
use std::path::Path;
use std::sync::Arc;

use firebuild_oci::Digest;
use firebuild_rootfs::layer::{ApplyError, Layer};
use firebuild_rootfs::tar::{self, TarError};
use firebuild_rootfs::tree::{Content, Contents, Opened, Source};
use firebuild_store::{Store, StoreError};

/// Opens the content of trees: blobs from the store, paths from the directory that was walked, if there is one.
#[derive(Debug)]
pub struct StoreContents<'a, P: ?Sized = NoPaths> {
    store: &'a Store,
    paths: &'a P,
}

/// For trees that are made of layers only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPaths;

impl Contents for NoPaths {
    fn open(&self, _: &Content) -> io::Result<Opened> {
        Err(io::Error::other(
            "this tree was made of layers, but it names a file by its path",
        ))
    }
}

impl<'a> StoreContents<'a> {
    /// Content of layers.
    #[must_use]
    pub fn new(store: &'a Store) -> Self {
        Self {
            store,
            paths: &NoPaths,
        }
    }
}

impl<'a, P: Contents + ?Sized> StoreContents<'a, P> {
    /// Content of layers and of a walked directory.
    pub fn with_paths(store: &'a Store, paths: &'a P) -> Self {
        Self { store, paths }
    }
}

impl<P: Contents + ?Sized> Contents for StoreContents<'_, P> {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        match &content.source {
            Source::Blob { id, .. } | Source::SparseBlob { id, .. } => {
                let blob = self
                    .store
                    .open_blob(&Digest::from_bytes(*id))
                    .map_err(io::Error::other)?;
                content
                    .opened_in(&blob)
                    .ok_or_else(|| io::Error::other("a blob's content is no part of a blob"))
            }
            Source::Path(_) => self.paths.open(content),
            Source::Bytes(bytes) => Ok(Opened::Bytes(Arc::clone(bytes))),
        }
    }
}

/// A layer or a tree could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// The blob is not in the store or cannot be read.
    #[error("cannot read layer {layer}")]
    Store {
        /// Which.
        layer: Digest,
        /// Why.
        source: StoreError,
    },
    /// The blob is no valid layer.
    #[error("layer {layer} is no valid tar")]
    Tar {
        /// Which.
        layer: Digest,
        /// Why.
        source: TarError,
    },
    /// The layer does not fit on what is below.
    #[error("cannot apply layer {layer}")]
    Apply {
        /// Which.
        layer: Digest,
        /// Why.
        source: ApplyError,
    },
    /// The content of a new layer cannot be read or written.
    #[error("cannot write a layer")]
    Write {
        /// Why.
        source: io::Error,
    },
    /// The store refused a new layer.
    #[error("cannot store a layer")]
    Put(#[source] StoreError),
}

impl ContentError {
    /// Whether the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Write { source } => source.kind() == io::ErrorKind::StorageFull,
            Self::Put(error) => error.kind() == firebuild_store::StoreErrorKind::NoSpace,
            _ => false,
        }
    }

    pub(crate) fn apply(layer: Digest, source: ApplyError) -> Self {
        Self::Apply { layer, source }
    }
}

/// Reads the headers of a stored layer.
///
/// # Errors
/// When the blob is missing or is no valid layer.
pub fn read_layer(store: &Store, diff_id: &Digest) -> Result<Layer, ContentError> {
    let file = store
        .read_blob_file(diff_id)
        .map_err(|source| ContentError::Store {
            layer: *diff_id,
            source,
        })?;
    tar::read_layer(file, *diff_id.as_bytes(), &tar::ReadOptions::default()).map_err(|source| {
        ContentError::Tar {
            layer: *diff_id,
            source,
        }
    })
}

/// A layer that was written into the store.
#[derive(Debug)]
pub struct Stored {
    /// Its digest.
    pub diff_id: Digest,
    /// What is in it; contents point into the blob.
    pub layer: Layer,
}

/// Writes a layer as a blob.
///
/// # Errors
/// When content cannot be read or the disk refuses.
pub fn store_layer(
    store: &Store,
    layer: &Layer,
    contents: &dyn Contents,
) -> Result<Stored, ContentError> {
    let path = store.temporary().map_err(ContentError::Put)?;
    let stored = write_blob(&path, layer, contents).and_then(|written| {
        let diff_id = Digest::from_bytes(written.diff_id);
        store
            .adopt_blob(&path, &diff_id)
            .map_err(ContentError::Put)?;
        Ok(Stored {
            diff_id,
            layer: written.layer,
        })
    });
    if stored.is_err() {
        let _ = fs_err::remove_file(&path);
    }
    stored
}

fn write_blob(
    path: &Path,
    layer: &Layer,
    contents: &dyn Contents,
) -> Result<tar::Written, ContentError> {
    let file = fs_err::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|source| ContentError::Write { source })?;
    tar::write_layer(
        layer,
        contents,
        tar::Output::File(file.file()),
        &tar::WriteOptions::default(),
    )
    .map_err(|source| ContentError::Write {
        source: io::Error::other(source),
    })
}
