//! The ext4 image of a chain: what a VM boots.
//!
//! It is an artifact of the store, named by the content and the wanted size, so an unchanged rebuild makes none and all VMs
//! of an image share one file.

use std::path::PathBuf;

use firebuild_rootfs::ext4;
use firebuild_store::Store;

use super::dest::{StoppableContents, stopped};
use crate::cancel::Cancel;
use crate::chain::Chain;
use crate::content::StoreContents;
use crate::export::{ExportError, ExportErrorKind};
use crate::key::{CacheKey, KeyWriter};

/// What names the ext4 image of a chain among the artifacts of kind `ext4`.
#[must_use]
pub fn disk_key(chain: &Chain, min_size: Option<u64>) -> CacheKey {
    let mut key = KeyWriter::new("ext4/1");
    key.digest(chain.id()).number(min_size.unwrap_or(0));
    key.finish()
}

/// The path of the ext4 image of a chain; made if it is not there. `min_size` bytes at least.
///
/// # Errors
/// When content is missing, something does not fit into ext4, the disk is full, or somebody asked for a stop.
pub fn disk(
    store: &Store,
    chain: &Chain,
    min_size: Option<u64>,
    cancel: &Cancel,
) -> Result<PathBuf, ExportError> {
    let key = disk_key(chain, min_size);
    if let Some(path) = store.artifact("ext4", &key.0) {
        return Ok(path);
    }
    let Some(lock) = store.lock(&format!("disk-{key}"), &|| cancel.is_raised())? else {
        return Err(ExportError::io("cannot make the ext4 image", stopped()));
    };
    if let Some(path) = store.artifact("ext4", &key.0) {
        return Ok(path);
    }
    let tree = chain.tree(store)?;
    let temporary = store.temporary()?;
    let written = write(&temporary, &tree, store, min_size, cancel);
    if let Err(error) = written {
        let _ = fs_err::remove_file(&temporary);
        return Err(error);
    }
    let path = store.adopt_artifact("ext4", &key.0, &temporary)?;
    drop(lock);
    Ok(path)
}

fn write(
    path: &std::path::Path,
    tree: &firebuild_rootfs::tree::Tree,
    store: &Store,
    min_size: Option<u64>,
    cancel: &Cancel,
) -> Result<(), ExportError> {
    let file = fs_err::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| ExportError::io("cannot make the ext4 image", error))?;
    let options = ext4::Options {
        min_size,
        ..ext4::Options::default()
    };
    let contents = StoppableContents {
        inner: StoreContents::new(store),
        cancel,
    };
    ext4::write(tree, &contents, file.file(), &options)
        .map(|_| ())
        .map_err(|error| {
            ExportError::caused(
                ExportErrorKind::Content,
                "cannot make the ext4 image",
                error,
            )
        })
}
