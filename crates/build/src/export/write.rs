//! Writing an output where the user wants it.

use std::sync::Arc;

use firebuild_oci::{Descriptor, Digest, ImageConfig, Reference};
use firebuild_store::Store;

use super::dest::{StoppableContents, beside, copy_sparse};
use super::rewrite::rewritten;
use super::{Dest, ExportError, InUse, Output, OutputKind, disk, files, layout, packed, push};
use crate::cancel::Cancel;
use crate::chain::Chain;
use crate::content::StoreContents;
use crate::event::{Event, Sink};

/// What every export needs to know about an image.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Its layers.
    pub chain: &'a Arc<Chain>,
    /// Its configuration, complete.
    pub config: &'a ImageConfig,
    /// The tags of the build.
    pub names: &'a [Reference],
    /// Layers of its base, which a rewrite of times leaves alone.
    pub base_layers: usize,
    /// Bytes that an ext4 image has at least.
    pub min_size: Option<u64>,
    /// The epoch of the build (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// Earlier ext4 images that are not to be made into the next one.
    pub in_use: InUse<'a>,
}

/// What an export made, for outputs that are images.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// The manifest.
    pub descriptor: Option<Descriptor>,
    /// Digest of the configuration.
    pub config: Option<Digest>,
    /// The names in it.
    pub names: Vec<Reference>,
}

/// Writes one output. A raised `cancel` ends it with the next piece of data, and a file that was begun is removed.
///
/// # Errors
/// When content is missing, does not fit into the format, or the destination or a registry refuses.
pub fn export(
    store: &Store,
    image: &Image<'_>,
    output: &Output,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<Exported, ExportError> {
    let contents = StoppableContents {
        inner: StoreContents::new(store),
        cancel,
    };
    let names = if output.image.names.is_empty() {
        image.names
    } else {
        &output.image.names
    };
    match output.kind {
        OutputKind::Ext4 => {
            let chain = reproducible(store, image, cancel)?;
            let source = disk(store, &chain, image.min_size, image.in_use, cancel)?;
            if let Dest::Path(path) = &output.dest {
                beside(path, |aside| copy_sparse(&source, aside, path, cancel))?;
            }
        }
        OutputKind::Erofs => {
            let tree = reproducible(store, image, cancel)?.tree(store)?;
            files::write_erofs(&tree, &contents, &output.dest, image.epoch)?;
        }
        OutputKind::Initrd(packing) => {
            let tree = reproducible(store, image, cancel)?.tree(store)?;
            for message in files::write_initrd(&tree, &contents, &output.dest, packing)? {
                sink(Event::Notice { message });
            }
        }
        OutputKind::Tar => {
            let tree = files::at_epoch(image.chain.tree(store)?, image.epoch);
            files::write_tar(&tree, &contents, &output.dest)?;
        }
        OutputKind::Dir { delete } => {
            let tree = files::at_epoch(image.chain.tree(store)?, image.epoch);
            files::write_dir(tree, &contents, &output.dest, delete)?;
        }
        OutputKind::Oci { .. } | OutputKind::Docker { .. } => {
            let packed = packed::pack(store, image, output, cancel, &|_| None)?;
            layout::write(&packed, names, output, cancel)?;
            return Ok(exported(&packed, names));
        }
        OutputKind::Image(publication) => {
            if publication.push {
                let packed = push::push(store, image, output, publication, names, sink, cancel)?;
                return Ok(exported(&packed, names));
            }
        }
        OutputKind::CacheOnly => {}
    }
    Ok(Exported::default())
}

fn exported(packed: &packed::Packed, names: &[Reference]) -> Exported {
    Exported {
        descriptor: Some(packed.descriptor.clone()),
        config: Some(packed.config_descriptor.digest),
        names: names.to_vec(),
    }
}

/// The chain for what boots: with an epoch, its times are rewritten without being asked.
fn reproducible(
    store: &Store,
    image: &Image<'_>,
    cancel: &Cancel,
) -> Result<Arc<Chain>, ExportError> {
    match image.epoch {
        None => Ok(Arc::clone(image.chain)),
        Some(epoch) => rewritten(store, image.chain, image.base_layers, epoch, cancel),
    }
}
