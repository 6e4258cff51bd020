//! From a tree to an image in the store: one layer, a config, a manifest, a reference.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use firebuild_oci::{
    ContainerConfig, Descriptor, Digest, History, ImageConfig, Manifest, Platform, Reference,
    media_type,
};
use firebuild_rootfs::layer::Layer;
use firebuild_rootfs::tar::{self, Output, WriteOptions};
use firebuild_rootfs::tree::{Content, Contents, Opened, Time, Tree};
use firebuild_store::{RefRecord, Store, StoreError};
use jiff::Timestamp;

use super::error::{BaseOsError, BaseOsErrorKind};
use crate::error::Error;

/// The PATH of every official image.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the image says about itself.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) reference: Reference,
    /// How it was made, for the history.
    pub(crate) created_by: String,
    pub(crate) created: Timestamp,
    /// Later times are written as this one, when reproducible output was asked for.
    pub(crate) clamp: Option<Time>,
    pub(crate) cmd: Vec<String>,
    pub(crate) stop_signal: Option<String>,
}

/// An archive that no store knows, as the place where content is.
#[derive(Debug)]
pub(crate) struct Archive(pub(crate) Arc<File>);

impl Contents for Archive {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        content
            .opened_in(&self.0)
            .ok_or_else(|| io::Error::other("content outside the archive"))
    }
}

/// An image as it stands in the store.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) manifest: Digest,
    pub(crate) layer_bytes: u64,
}

/// Stores a tree as an image of one layer. The reference comes last, when everything else is there.
pub(crate) fn store(
    store: &Store,
    tree: &Tree,
    contents: &dyn Contents,
    description: &Description,
) -> Result<Stored, BaseOsError> {
    let refused = |error: StoreError| {
        Error::caused(
            BaseOsErrorKind::Store,
            format!("cannot store {}", description.reference),
            error,
        )
    };
    let (diff_id, layer_bytes) = layer(store, tree, contents, description.clamp)?;
    let config = ImageConfig {
        created: Some(description.created.to_string()),
        config: ContainerConfig {
            env: vec![PATH.to_owned()],
            cmd: Some(description.cmd.clone()),
            stop_signal: description.stop_signal.clone(),
            ..ContainerConfig::default()
        },
        rootfs: firebuild_oci::RootFs {
            diff_ids: vec![diff_id],
            ..firebuild_oci::RootFs::default()
        },
        history: vec![History {
            created: Some(description.created.to_string()),
            created_by: Some(description.created_by.clone()),
            ..History::default()
        }],
        ..ImageConfig::new(Platform::linux("amd64"))
    };
    let config = config.to_bytes();
    let config_digest = store.put_blob(&config).map_err(refused)?;
    let manifest = Manifest::new(
        Descriptor::new(media_type::OCI_CONFIG, config_digest, config.len() as u64),
        vec![Descriptor::new(media_type::OCI_LAYER, diff_id, layer_bytes)],
    )
    .to_bytes();
    let digest = store.put_blob(&manifest).map_err(refused)?;
    store
        .set_ref(&RefRecord {
            name: description.reference.canonical(),
            manifest: digest,
            size: manifest.len() as u64,
            annotations: BTreeMap::new(),
        })
        .map_err(refused)?;
    Ok(Stored {
        manifest: digest,
        layer_bytes,
    })
}

/// Writes the whole tree as a layer blob.
fn layer(
    store: &Store,
    tree: &Tree,
    contents: &dyn Contents,
    clamp_mtime: Option<Time>,
) -> Result<(Digest, u64), BaseOsError> {
    let refused = |error| {
        Error::caused(
            BaseOsErrorKind::Store,
            "cannot store the layer of the base image",
            error,
        )
    };
    let path = store.temporary().map_err(refused)?;
    let written = fs_err::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|error| super::error::io("write", &path, error))
        .and_then(|file| {
            tar::write_layer(
                &Layer::of_tree(tree),
                contents,
                Output::File(file.file()),
                &WriteOptions {
                    clamp_mtime,
                    ..WriteOptions::default()
                },
            )
            .map_err(|error| {
                Error::caused(
                    BaseOsErrorKind::Content,
                    "cannot write the layer of the base image",
                    error,
                )
            })
        })
        .and_then(|written| {
            let digest = Digest::from_bytes(written.diff_id);
            store.adopt_blob(&path, &digest).map_err(refused)?;
            Ok((digest, written.size))
        });
    if written.is_err() {
        // It is under tmp/ and would go with the session anyway.
        let _ = fs_err::remove_file(&path);
    }
    written
}
