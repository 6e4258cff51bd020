//! The ext4 image of a chain: what a VM boots.
//!
//! It is an artifact of the store, named by the content and the wanted size, so an unchanged rebuild makes none and all VMs
//! of an image share one file. A changed one is made of an earlier image where that is possible ([`super::earlier`]).

use std::fs::File;
use std::path::PathBuf;

use firebuild_rootfs::ext4::{self, Ledger};
use firebuild_rootfs::tree::Tree;
use firebuild_store::Store;

use super::dest::{StoppableContents, stopped};
use crate::cancel::Cancel;
use crate::chain::Chain;
use crate::content::StoreContents;
use crate::export::{ExportError, ExportErrorKind, InUse, earlier};
use crate::key::{CacheKey, KeyWriter};

/// What names the ext4 image of a chain among the artifacts of kind `ext4`.
#[must_use]
pub fn disk_key(chain: &Chain, min_size: Option<u64>) -> CacheKey {
    let mut key = KeyWriter::new("ext4/2");
    key.digest(chain.id()).number(min_size.unwrap_or(0));
    key.finish()
}

/// The path of the ext4 image of a chain; made if it is not there. `min_size` bytes at least. It may be made of an earlier
/// image that nothing needs, which is none of those `in_use`.
///
/// # Errors
/// When content is missing, something does not fit into ext4, the disk is full, or somebody asked for a stop.
pub fn disk(
    store: &Store,
    chain: &Chain,
    min_size: Option<u64>,
    in_use: InUse<'_>,
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
    let options = ext4::Options {
        min_size,
        layers: chain
            .layers()
            .iter()
            .map(|layer| *layer.diff_id.as_bytes())
            .collect(),
        content: Some(*chain.id().as_bytes()),
        ..ext4::Options::default()
    };
    let (temporary, file, before) = match earlier::find(store, &options.layers, in_use) {
        Some(earlier) => (earlier.path, earlier.file, Some(earlier.ledger)),
        None => {
            let path = store.temporary()?;
            let mut new = fs_err::OpenOptions::new();
            let file = new.read(true).write(true).create_new(true).open(&path);
            let file =
                file.map_err(|error| ExportError::io("cannot make the ext4 image", error))?;
            (path, file.into_parts().0, None)
        }
    };
    let written = write(&file, &tree, store, &options, before.as_ref(), cancel);
    let ledger = match written {
        Ok(ledger) => ledger,
        Err(error) => {
            let _ = fs_err::remove_file(&temporary);
            return Err(error);
        }
    };
    let path = store.adopt_artifact("ext4", &key.0, &temporary)?;
    store.put_note("ext4", &key.0, &ledger.to_bytes());
    drop(lock);
    Ok(path)
}

fn write(
    file: &File,
    tree: &Tree,
    store: &Store,
    options: &ext4::Options,
    before: Option<&Ledger>,
    cancel: &Cancel,
) -> Result<Ledger, ExportError> {
    let contents = StoppableContents {
        inner: StoreContents::new(store),
        cancel,
    };
    ext4::write_noted(tree, &contents, file, options, before)
        .map(|(_, ledger)| ledger)
        .map_err(|error| {
            ExportError::caused(
                ExportErrorKind::Content,
                "cannot make the ext4 image",
                error,
            )
        })
}
