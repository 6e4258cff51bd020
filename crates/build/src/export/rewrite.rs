//! `rewrite-timestamp`: layers whose times are not later than the epoch of the build.
//!
//! Layers of the base stay as they are, as with BuildKit: they are an input. What was rewritten once is remembered.

use std::io;
use std::sync::Arc;

use firebuild_oci::Digest;
use firebuild_rootfs::layer::{Change, Layer};
use firebuild_rootfs::tar;
use firebuild_rootfs::tree::Time;
use firebuild_store::Store;

use super::ExportError;
use super::dest::StoppableContents;
use crate::cancel::Cancel;
use crate::chain::{Chain, ChainLayer};
use crate::content::{StoreContents, read_layer};
use crate::key::KeyWriter;

/// The chain with the times of the layers above the base rewritten; `base` counts the layers that stay.
///
/// # Errors
/// When a layer is missing, or the disk refuses.
pub fn rewritten(
    store: &Store,
    chain: &Arc<Chain>,
    base: usize,
    epoch: i64,
    cancel: &Cancel,
) -> Result<Arc<Chain>, ExportError> {
    let mut new = Chain::scratch();
    let mut changed = false;
    for (index, layer) in chain.layers().into_iter().enumerate() {
        let diff_id = if index < base {
            layer.diff_id
        } else {
            one(store, &layer.diff_id, epoch, cancel)?
        };
        changed |= diff_id != layer.diff_id;
        new = new.push(ChainLayer {
            diff_id,
            created: layer.created,
        });
    }
    // The old one may have its tree already.
    Ok(if changed { new } else { Arc::clone(chain) })
}

fn one(store: &Store, old: &Digest, epoch: i64, cancel: &Cancel) -> Result<Digest, ExportError> {
    let mut key = KeyWriter::new("rewrite-timestamp/1");
    key.digest(old).text(&epoch.to_string());
    let key = key.finish();
    if let Some(known) = store
        .cache_get::<Digest>(&key.0)
        .filter(|digest| store.has_blob(digest))
    {
        return Ok(known);
    }
    let clamp = Time {
        secs: epoch,
        nanos: 0,
    };
    let layer = read_layer(store, old)?;
    let new = if is_later(&layer, clamp) {
        write(store, &layer, clamp, cancel)?
    } else {
        *old
    };
    store.cache_put(&key.0, &new)?;
    Ok(new)
}

fn is_later(layer: &Layer, clamp: Time) -> bool {
    layer.entries.iter().any(|entry| match &entry.change {
        Change::Node(inode) => inode.meta.mtime > clamp,
        _ => false,
    })
}

fn write(
    store: &Store,
    layer: &Layer,
    clamp: Time,
    cancel: &Cancel,
) -> Result<Digest, ExportError> {
    let options = tar::WriteOptions {
        clamp_mtime: Some(clamp),
        ..tar::WriteOptions::default()
    };
    let contents = StoppableContents {
        inner: StoreContents::new(store),
        cancel,
    };
    let path = store.temporary()?;
    let written = fs_err::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|file| {
            tar::write_layer(layer, &contents, tar::Output::File(file.file()), &options)
                .map_err(io::Error::other)
        });
    match written {
        Ok(written) => {
            let digest = Digest::from_bytes(written.diff_id);
            store.adopt_blob(&path, &digest)?;
            Ok(digest)
        }
        Err(error) => {
            let _ = fs_err::remove_file(&path);
            Err(ExportError::io(
                "cannot rewrite the times of a layer",
                error,
            ))
        }
    }
}
