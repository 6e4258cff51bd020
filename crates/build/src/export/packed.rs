//! An image put together: its layers in the form for the road, its configuration, its manifest.

use std::path::PathBuf;
use std::sync::Arc;

use firebuild_oci::{Descriptor, Digest, Manifest, media_type};
use firebuild_store::Store;

use super::compress::compressed;
use super::output::ImageForm;
use super::rewrite::rewritten;
use super::{Compression, ExportError, Image, Output};
use crate::cancel::Cancel;

/// An image, ready to be written or pushed.
#[derive(Debug)]
pub(super) struct Packed {
    /// Its layers, lowest first.
    pub(super) layers: Vec<PackedLayer>,
    /// The configuration.
    pub(super) config: Vec<u8>,
    /// Its descriptor.
    pub(super) config_descriptor: Descriptor,
    /// The manifest.
    pub(super) manifest: Vec<u8>,
    /// Its descriptor, with its annotations and the platform.
    pub(super) descriptor: Descriptor,
}

/// A layer and where its bytes are.
#[derive(Debug)]
pub(super) struct PackedLayer {
    pub(super) diff_id: Digest,
    pub(super) descriptor: Descriptor,
    /// Not there for a layer that the registry has in this form already.
    pub(super) file: Option<PathBuf>,
}

/// Puts an image together. `known` may give a layer in a form that the destination has already.
pub(super) fn pack(
    store: &Store,
    image: &Image<'_>,
    output: &Output,
    cancel: &Cancel,
    known: &dyn Fn(&Digest) -> Option<Descriptor>,
) -> Result<Packed, ExportError> {
    let form = &output.image;
    let chain = match image.epoch.filter(|_| output.rewrite_timestamp) {
        None => Arc::clone(image.chain),
        Some(epoch) => rewritten(store, image.chain, image.base_layers, epoch, cancel)?,
    };
    let mut layers = Vec::with_capacity(chain.len());
    for layer in chain.layers() {
        let (descriptor, file) = match known(&layer.diff_id) {
            Some(descriptor) => (descriptor, None),
            None => {
                let (mut descriptor, file) =
                    compressed(store, &layer.diff_id, form.packing, cancel)?;
                if form.docker_types {
                    docker_layer(form.packing.compression).clone_into(&mut descriptor.media_type);
                }
                (descriptor, Some(file))
            }
        };
        layers.push(PackedLayer {
            diff_id: layer.diff_id,
            descriptor,
            file,
        });
    }
    let mut config = image.config.clone();
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let (config_type, manifest_type) = if form.docker_types {
        (media_type::DOCKER_CONFIG, media_type::DOCKER_MANIFEST)
    } else {
        (media_type::OCI_CONFIG, media_type::OCI_MANIFEST)
    };
    let platform = config.platform.clone();
    let created = config.created.clone();
    let config = config.to_bytes();
    let config_descriptor = Descriptor::of(config_type, &config);
    let mut manifest = Manifest::new(
        config_descriptor.clone(),
        layers
            .iter()
            .map(|layer| layer.descriptor.clone())
            .collect(),
    );
    manifest.media_type = Some(manifest_type.to_owned());
    manifest.annotations = form.annotations(false, &platform);
    let manifest = manifest.to_bytes();
    let mut descriptor = Descriptor::of(manifest_type, &manifest);
    descriptor.annotations = descriptor_annotations(form, &platform, created);
    descriptor.platform = Some(platform);
    Ok(Packed {
        layers,
        config,
        config_descriptor,
        manifest,
        descriptor,
    })
}

/// When the image was made, as BuildKit notes it, and what the user asked for.
fn descriptor_annotations(
    form: &ImageForm,
    platform: &firebuild_oci::Platform,
    created: Option<String>,
) -> std::collections::BTreeMap<String, String> {
    let mut annotations = form.annotations(true, platform);
    if let Some(created) = created {
        annotations
            .entry("org.opencontainers.image.created".to_owned())
            .or_insert(created);
    }
    annotations
}

fn docker_layer(compression: Compression) -> &'static str {
    match compression {
        Compression::Gzip => media_type::DOCKER_LAYER_GZIP,
        Compression::Zstd => media_type::DOCKER_LAYER_ZSTD,
        Compression::Uncompressed => media_type::DOCKER_LAYER,
    }
}
