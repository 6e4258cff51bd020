//! From a registry into the store.

use std::io::Write;

use firebuild_oci::media_type::layer_compression;
use firebuild_oci::registry::{Registry, ResolvedImage};
use firebuild_oci::{Digest, Platform, Reference};
use firebuild_store::{RefRecord, Store};

use super::Limits;
use super::error::{TransferError, TransferErrorKind as Kind};
use super::layers::{Wanted, take_in};
use super::origins;
use crate::cancel::Cancel;
use crate::event::Sink;
use crate::export::{ImageRecord, image, of_image, publish_bytes, source_annotation};

/// Pulls the image that `reference` names for `platform`, and makes `reference` stand for it in the store.
///
/// Layers that the store has are not fetched. The configuration keeps its bytes, the digest in the registry is kept as
/// [`ImageRecord::source`]. Progress goes to `sink`, one item for each layer. When it fails, layers that were complete
/// stay in the store and the next pull goes on from there; the name keeps what it stood for.
///
/// A raised `cancel` ends it with the next bytes that come; a server that is silent is left after its timeout.
///
/// # Errors
/// The text names the reference, and the layer where there is one.
pub fn pull(
    store: &Store,
    registry: &Registry,
    reference: &Reference,
    platform: &Platform,
    limits: &Limits,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<ImageRecord, TransferError> {
    let found = registry.resolve(reference, platform)?;
    let wanted = wanted(reference, &found)?;
    take_in(
        store,
        &wanted,
        limits,
        sink,
        cancel,
        &|layer: &Wanted, out: &mut dyn Write, progress: &dyn Fn(u64)| {
            let descriptor = &found.manifest.layers[layer.index];
            registry
                .blob(&found.reference, descriptor, out, progress)
                .map_err(TransferError::from)
        },
    )?;
    let diff_ids = &found.config.rootfs.diff_ids;
    for (descriptor, diff_id) in found.manifest.layers.iter().zip(diff_ids) {
        origins::remember(store, diff_id, reference, descriptor);
    }
    record(
        store,
        diff_ids,
        &found.config_bytes,
        reference,
        Some(&found.digest),
        true,
    )
}

fn wanted(reference: &Reference, found: &ResolvedImage) -> Result<Vec<Wanted>, TransferError> {
    let layers = found
        .manifest
        .layers
        .iter()
        .zip(&found.config.rootfs.diff_ids)
        .enumerate();
    layers
        .map(|(index, (descriptor, diff_id))| {
            let kind = descriptor.media_type.as_str();
            if !kind.is_empty() && layer_compression(kind).is_none() {
                return Err(TransferError::new(
                    Kind::Corrupt,
                    format!(
                        "cannot use image {reference}: its layer {} is of type {kind:?}",
                        descriptor.digest
                    ),
                ));
            }
            Ok(Wanted {
                index,
                diff_id: *diff_id,
                name: descriptor.digest.to_string(),
                size: descriptor.size,
            })
        })
        .collect()
}

/// Gives an image whose layers are in the store its name, if it shall have one, and reads it back.
///
/// The layers are put together first: an image that cannot become a tree, say because an entry of a layer climbs out of
/// it, gets no name. Whoever uses the image at once finds the tree made.
pub(super) fn record(
    store: &Store,
    diff_ids: &[Digest],
    config_bytes: &[u8],
    reference: &Reference,
    source: Option<&Digest>,
    named: bool,
) -> Result<ImageRecord, TransferError> {
    let chain = of_image(diff_ids);
    let _ = chain.tree(store).map_err(|error| {
        TransferError::caused(
            Kind::Corrupt,
            format!("cannot use image {reference}"),
            error,
        )
    })?;
    let failed = |error| TransferError::store(format!("cannot store image {reference}"), error);
    let names = if named {
        std::slice::from_ref(reference)
    } else {
        &[]
    };
    let (manifest, _) =
        publish_bytes(store, diff_ids, config_bytes, names, source).map_err(failed)?;
    let record = RefRecord {
        name: reference.canonical(),
        manifest,
        size: 0,
        annotations: source_annotation(source),
    };
    let mut found = image(store, &record).map_err(|error| {
        TransferError::caused(
            Kind::Io,
            format!("cannot read image {reference} back"),
            error,
        )
    })?;
    if found.chain.id() == chain.id() {
        found.chain = chain;
    }
    Ok(found)
}
