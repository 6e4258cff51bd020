//! Manifests and indexes, read strictly and within bounds.
//!
//! Sources: OCI image specification, `manifest.md` and `image-index.md`; Docker's manifest version 2 schema 2 and
//! manifest list, which differ only in their media types. Documents that could be read as either are refused
//! (CVE-2021-41190).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::descriptor::null_default;
use crate::{Descriptor, Platform, media_type};

/// Largest manifest or index that is read, in bytes: the limit that the distribution specification asks registries
/// to accept.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Largest image config that is read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// Most layers of one image, and most entries of an index.
pub const MAX_ENTRIES: usize = 1024;

/// An image manifest: one config and the layers, lowest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own media type, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Where the [`crate::ImageConfig`] is.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// Free notes.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Fields that are not known here, kept as they are.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Manifest {
    /// An OCI image manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config,
            layers,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The bytes of the document; the same value always gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

/// An image index: the same image for several platforms, or what a layout holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own media type, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Manifests or further indexes.
    #[serde(default, deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
    /// Free notes.
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Fields that are not known here, kept as they are.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Index {
    /// An OCI image index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests,
            annotations: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The bytes of the document; the same value always gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// The entry for `wanted`: the best rank of [`Platform::rank`], among equals the first.
    ///
    /// An entry without a platform is taken only if none fits; its config must then be checked by the caller.
    /// Attestations (platform `unknown/unknown`) never fit.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        self.manifests
            .iter()
            .filter_map(|entry| {
                let rank = match &entry.platform {
                    Some(platform) => wanted.rank(platform)?,
                    None => u32::MAX,
                };
                Some((rank, entry))
            })
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
    }
}

fn to_bytes(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("documents have text keys and no failing serialisers")
}

/// What stands behind a reference: an image, or a list to choose from.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one value, taken apart at once, never in a collection"
)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

impl Document {
    /// Reads a manifest or an index.
    ///
    /// `content_type` is what the server or the descriptor called it; an empty text if nothing is known. The
    /// document's own `mediaType` must not contradict it.
    ///
    /// # Errors
    /// [`DocumentErrorKind`] tells the cases apart.
    pub fn parse(bytes: &[u8], content_type: &str) -> Result<Self, DocumentError> {
        check_len("manifest", bytes, MAX_MANIFEST_BYTES)?;
        let probe: Probe = json("manifest", bytes)?;
        if probe.schema_version != 2 {
            return Err(DocumentError::new(
                DocumentErrorKind::Unsupported,
                format!(
                    "manifest schema version {} is not supported, only 2 is; push the image again with a current tool",
                    probe.schema_version
                ),
            ));
        }
        // Parameters such as "; charset=utf-8" are not part of the type.
        let served = content_type.split(';').next().unwrap_or_default().trim();
        let own = probe.media_type.as_deref().unwrap_or_default();
        let kind = match (kind_of(own), kind_of(served)) {
            (Some(own), Some(served)) if own != served => {
                return Err(DocumentError::new(
                    DocumentErrorKind::Invalid,
                    format!("manifest says it is {own:?} but was served as {served:?}"),
                ));
            }
            (Some(kind), _) | (None, Some(kind)) => kind,
            (None, None) if !own.is_empty() => {
                return Err(DocumentError::new(
                    DocumentErrorKind::Unsupported,
                    format!("media type {own:?} is neither an image manifest nor an index"),
                ));
            }
            (None, None) if probe.manifests.is_some() => Kind::Index,
            (None, None) => Kind::Manifest,
        };
        let has_image = probe.config.is_some() || probe.layers.is_some();
        if probe.manifests.is_some() && has_image {
            return Err(DocumentError::new(
                DocumentErrorKind::Invalid,
                "manifest has the fields of an image and of an index".to_owned(),
            ));
        }
        let (document, entries) = match kind {
            Kind::Manifest => {
                let manifest: Manifest = json("image manifest", bytes)?;
                let entries = manifest.layers.len();
                (Self::Manifest(manifest), entries)
            }
            Kind::Index => {
                let index: Index = json("image index", bytes)?;
                let entries = index.manifests.len();
                (Self::Index(index), entries)
            }
        };
        if entries > MAX_ENTRIES {
            return Err(DocumentError::new(
                DocumentErrorKind::TooLarge,
                format!("manifest has {entries} entries, more than {MAX_ENTRIES}"),
            ));
        }
        Ok(document)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Manifest,
    Index,
}

fn kind_of(name: &str) -> Option<Kind> {
    match name {
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => Some(Kind::Manifest),
        media_type::OCI_INDEX | media_type::DOCKER_INDEX => Some(Kind::Index),
        _ => None,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

/// Checks a document's length before anything is parsed.
pub(crate) fn check_len(what: &str, bytes: &[u8], max: u64) -> Result<(), DocumentError> {
    if bytes.len() as u64 > max {
        return Err(DocumentError::new(
            DocumentErrorKind::TooLarge,
            format!("{what} has {} bytes, more than {max}", bytes.len()),
        ));
    }
    Ok(())
}

/// Parses JSON; the depth is bounded by the parser (128).
pub(crate) fn json<'a, T: Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(|source| DocumentError {
        kind: DocumentErrorKind::Invalid,
        message: format!("cannot read {what}"),
        source: Some(source),
    })
}

/// What is wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DocumentErrorKind {
    /// Over a limit of this module.
    TooLarge,
    /// Not JSON, a field missing or of the wrong type, or contradictions.
    Invalid,
    /// A valid document of a kind that is not handled here.
    Unsupported,
}

/// A manifest, index or config that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DocumentError {
    kind: DocumentErrorKind,
    message: String,
    #[source]
    source: Option<serde_json::Error>,
}

impl DocumentError {
    pub(crate) fn new(kind: DocumentErrorKind, message: String) -> Self {
        Self {
            kind,
            message,
            source: None,
        }
    }

    /// The kind, for callers that decide.
    pub fn kind(&self) -> DocumentErrorKind {
        self.kind
    }
}

#[cfg(test)]
mod tests;
