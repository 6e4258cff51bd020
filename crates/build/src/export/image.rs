//! Images in the store: a manifest, a configuration and layers under a name.

use std::collections::BTreeMap;
use std::sync::Arc;

use firebuild_oci::{
    Descriptor, Digest, Document, ImageConfig, Manifest, Reference, document, media_type,
};
use firebuild_store::{RefRecord, Store, StoreError, StoreErrorKind};

use crate::chain::{Chain, ChainLayer};
use crate::export::{ExportError, ExportErrorKind};

/// The annotation that says which manifest a registry had for this image.
const SOURCE_DIGEST: &str = "io.github.firebuild.source.digest";

/// An image of the store.
#[derive(Clone, Debug)]
pub struct ImageRecord {
    /// Its canonical name.
    pub name: String,
    /// Digest of the manifest in the store.
    pub manifest: Digest,
    /// Digest of the manifest in the registry it came from.
    pub source: Option<Digest>,
    /// Digest of the configuration.
    pub config_digest: Digest,
    /// The configuration.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub chain: Arc<Chain>,
    /// Bytes of all layers together.
    pub size: u64,
}

/// Puts a configuration and a manifest for `chain` into the store, and makes `names` stand for it.
///
/// The configuration's `rootfs` is set to the chain's layers. Gives the digests of manifest and configuration.
///
/// # Errors
/// When a layer is missing or the disk refuses.
pub fn publish(
    store: &Store,
    chain: &Chain,
    config: &ImageConfig,
    names: &[Reference],
    source: Option<&Digest>,
) -> Result<(Digest, Digest), ExportError> {
    let mut config = config.clone();
    let layers: Vec<Digest> = chain.layers().iter().map(|layer| layer.diff_id).collect();
    config.rootfs.diff_ids.clone_from(&layers);
    publish_bytes(store, &layers, &config.to_bytes(), names, source).map_err(ExportError::from)
}

/// The same for a configuration whose bytes must stay what they are, so that the image keeps its ID.
pub(crate) fn publish_bytes(
    store: &Store,
    layers: &[Digest],
    config_bytes: &[u8],
    names: &[Reference],
    source: Option<&Digest>,
) -> Result<(Digest, Digest), StoreError> {
    let config_digest = store.put_blob(config_bytes)?;
    let config_descriptor = Descriptor::new(
        media_type::OCI_CONFIG,
        config_digest,
        config_bytes.len() as u64,
    );
    let descriptors = layers
        .iter()
        .map(|layer| {
            Ok(Descriptor::new(
                media_type::OCI_LAYER,
                *layer,
                store.blob_size(layer)?,
            ))
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    let manifest_bytes = Manifest::new(config_descriptor, descriptors).to_bytes();
    let manifest = store.put_blob(&manifest_bytes)?;
    let annotations = source_annotation(source);
    for name in names {
        store.set_ref(&RefRecord {
            name: name.canonical(),
            manifest,
            size: manifest_bytes.len() as u64,
            annotations: annotations.clone(),
        })?;
    }
    Ok((manifest, config_digest))
}

/// What a reference record says about where the image came from.
pub(crate) fn source_annotation(source: Option<&Digest>) -> BTreeMap<String, String> {
    source
        .map(|source| (SOURCE_DIGEST.to_owned(), source.to_string()))
        .into_iter()
        .collect()
}

/// Reads the image of a reference record.
///
/// # Errors
/// When its manifest or configuration is missing or damaged.
pub fn image(store: &Store, record: &RefRecord) -> Result<ImageRecord, ExportError> {
    let broken = |what: &str| {
        let message = format!(
            "image {} is damaged in the store: {what}; build or pull it again",
            record.name
        );
        ExportError::caused(
            ExportErrorKind::Store,
            message,
            std::io::Error::other("not what it should be"),
        )
    };
    let bytes = store.read_blob(&record.manifest, document::MAX_MANIFEST_BYTES)?;
    let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, media_type::OCI_MANIFEST) else {
        return Err(broken("its manifest cannot be read"));
    };
    let bytes = store.read_blob(&manifest.config.digest, document::MAX_CONFIG_BYTES)?;
    let config =
        ImageConfig::parse(&bytes).map_err(|_| broken("its configuration cannot be read"))?;
    let chain = of_image(&config.rootfs.diff_ids);
    if let Some(layer) = chain
        .layers()
        .iter()
        .find(|layer| !store.has_blob(&layer.diff_id))
    {
        let missing = format!("layer {} is missing", layer.diff_id);
        return Err(ExportError::from(firebuild_store_error(
            &record.name,
            &missing,
        )));
    }
    Ok(ImageRecord {
        name: record.name.clone(),
        manifest: record.manifest,
        source: record
            .annotations
            .get(SOURCE_DIGEST)
            .and_then(|text| text.parse().ok()),
        config_digest: manifest.config.digest,
        config,
        chain,
        size: manifest.layers.iter().map(|layer| layer.size).sum(),
    })
}

/// The chain of an image's layers.
pub(crate) fn of_image(diff_ids: &[Digest]) -> Arc<Chain> {
    diff_ids.iter().fold(Chain::scratch(), |chain, layer| {
        chain.push(ChainLayer {
            diff_id: *layer,
            created: None,
        })
    })
}

fn firebuild_store_error(name: &str, what: &str) -> StoreError {
    StoreError::new(
        StoreErrorKind::NotFound,
        format!("image {name}: {what}; build or pull it again"),
    )
}
