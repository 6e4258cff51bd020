//! From a name to an image: manifests and the config.

use reqwest::header::CONTENT_TYPE;

use super::Registry;
use super::auth::Action;
use super::error::{RegistryError, RegistryErrorKind as Kind};
use super::transport::{Tries, check, read_limited};
use crate::document::{DocumentError, DocumentErrorKind, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES};
use crate::media_type;
use crate::{Descriptor, Digest, Document, ImageConfig, Manifest, Platform, Reference};

/// Indexes may name indexes; deeper than this is no image.
const MAX_DEPTH: usize = 4;

/// An image of a registry for one platform: all but its layers.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// What was asked for, pinned to [`ResolvedImage::digest`].
    pub reference: Reference,
    /// Digest of what the reference names: an index or a manifest. Pulling by it gives the same again.
    pub digest: Digest,
    /// Digest of the manifest for the platform; equal to `digest` where there is no index.
    pub manifest_digest: Digest,
    /// The manifest's bytes as the registry has them.
    pub manifest_bytes: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
    /// The config's bytes as the registry has them.
    pub config_bytes: Vec<u8>,
    /// The config.
    pub config: ImageConfig,
}

/// A manifest of a registry, whatever its config is.
#[derive(Clone, Debug)]
pub struct ResolvedManifest {
    /// What was asked for, pinned to the digest that it had.
    pub reference: Reference,
    /// The manifest.
    pub manifest: Manifest,
}

/// Where a reference leads.
struct Found {
    /// Digest of what it names.
    digest: Digest,
    manifest_digest: Digest,
    manifest_bytes: Vec<u8>,
    manifest: Manifest,
}

/// A manifest or index as it came.
struct Fetched {
    digest: Digest,
    bytes: Vec<u8>,
    document: Document,
}

impl Registry {
    /// Looks up the image for `platform`.
    ///
    /// A reference with a digest is looked up by it, its tag is not asked for.
    ///
    /// # Errors
    /// The text names the reference; [`RegistryError::kind`] tells the cases apart.
    pub fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, RegistryError> {
        self.resolve_image(reference, platform)
            .map_err(|error| error.during(format!("cannot resolve image {reference}")))
    }

    /// Looks up what need not be an image: a manifest, of an index the one for `platform`.
    ///
    /// # Errors
    /// The text names the reference.
    pub fn resolve_manifest(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedManifest, RegistryError> {
        let found = self
            .find_manifest(reference, platform)
            .map_err(|error| error.during(format!("cannot resolve {reference}")))?;
        Ok(ResolvedManifest {
            reference: reference.with_digest(found.digest),
            manifest: found.manifest,
        })
    }

    /// Fetches a small blob, such as a config, and verifies it.
    ///
    /// # Errors
    /// When it is larger than `limit` bytes, or not what `descriptor` says.
    pub fn small_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        if descriptor.size > limit {
            return Err(RegistryError::new(
                Kind::TooLarge,
                format!(
                    "{} in {reference} has {} bytes, more than {limit}",
                    descriptor.digest, descriptor.size
                ),
            ));
        }
        let mut bytes = Vec::new();
        self.download(reference, descriptor, &mut bytes, &|_| {})?;
        Ok(bytes)
    }

    /// Follows a reference to a manifest.
    fn find_manifest(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Found, RegistryError> {
        let top = match reference.digest() {
            Some(digest) => self.manifest(reference, &digest.to_string(), Some(digest), "")?,
            None => self.manifest(reference, reference.tag().unwrap_or("latest"), None, "")?,
        };
        let digest = top.digest;
        let mut fetched = top;
        let mut depth = 0;
        loop {
            match fetched.document {
                Document::Manifest(manifest) => {
                    return Ok(Found {
                        digest,
                        manifest_digest: fetched.digest,
                        manifest_bytes: fetched.bytes,
                        manifest,
                    });
                }
                Document::Index(index) => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return Err(RegistryError::new(
                            Kind::Document,
                            format!("more than {MAX_DEPTH} indexes lead from one to the next"),
                        ));
                    }
                    let entry = index
                        .select(platform)
                        .ok_or_else(|| no_platform(platform, &index))?;
                    let (wanted, media) = (entry.digest, entry.media_type.clone());
                    fetched =
                        self.manifest(reference, &wanted.to_string(), Some(&wanted), &media)?;
                }
            }
        }
    }

    fn resolve_image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, RegistryError> {
        let Found {
            digest,
            manifest_digest,
            manifest_bytes,
            manifest,
        } = self.find_manifest(reference, platform)?;
        if manifest.config.size > MAX_CONFIG_BYTES {
            return Err(RegistryError::new(
                Kind::TooLarge,
                format!(
                    "image config {} has {} bytes, more than {MAX_CONFIG_BYTES}",
                    manifest.config.digest, manifest.config.size
                ),
            ));
        }
        let kind = manifest.config.media_type.as_str();
        if !matches!(
            kind,
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "" | "application/octet-stream"
        ) {
            return Err(RegistryError::new(
                Kind::Document,
                format!(
                    "this is no container image but an artifact with a config of type {kind:?}"
                ),
            ));
        }
        let mut config_bytes = Vec::new();
        self.download(reference, &manifest.config, &mut config_bytes, &|_| {})?;
        let config = ImageConfig::parse(&config_bytes).map_err(document)?;
        let made_for = &config.platform;
        if !made_for.architecture.is_empty()
            && !made_for.os.is_empty()
            && platform.rank(made_for).is_none()
        {
            return Err(RegistryError::new(
                Kind::Platform,
                format!("it is made for {made_for}, not for {platform}"),
            ));
        }
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(RegistryError::new(
                Kind::Document,
                format!(
                    "the manifest has {} layers and the config {}",
                    manifest.layers.len(),
                    config.rootfs.diff_ids.len()
                ),
            ));
        }
        Ok(ResolvedImage {
            reference: reference.with_digest(digest),
            digest,
            manifest_digest,
            manifest_bytes,
            manifest,
            config_bytes,
            config,
        })
    }

    /// Fetches a manifest or an index by tag or digest, with `expected` as its digest if that is known.
    fn manifest(
        &self,
        reference: &Reference,
        name: &str,
        expected: Option<&Digest>,
        media: &str,
    ) -> Result<Fetched, RegistryError> {
        let mut tries = Tries::new(self.transport.options());
        let (bytes, served, claimed) = loop {
            match self.manifest_once(reference, name) {
                Ok(found) => break found,
                Err(error) => tries.again(error)?,
            }
        };
        let digest = Digest::of(&bytes);
        // The header is a second opinion; a digest of another kind there is none.
        let claimed = claimed.and_then(|text| text.parse::<Digest>().ok());
        for wanted in expected.into_iter().chain(claimed.as_ref()) {
            if *wanted != digest {
                return Err(RegistryError::new(
                    Kind::Corrupt,
                    format!("the registry sent a manifest with digest {digest} for {wanted}"),
                ));
            }
        }
        // Some registries serve every manifest as text or JSON: then the descriptor that led here knows better.
        let served = if served.contains("manifest") || served.contains("index") {
            served.as_str()
        } else {
            media
        };
        let document = Document::parse(&bytes, served).map_err(document)?;
        Ok(Fetched {
            digest,
            bytes,
            document,
        })
    }

    fn manifest_once(
        &self,
        reference: &Reference,
        name: &str,
    ) -> Result<(Vec<u8>, String, Option<String>), RegistryError> {
        let mut call = self.get(reference, &format!("manifests/{name}"))?;
        call.accept = Some(media_type::ACCEPT_MANIFEST);
        let response = self
            .request(reference, Action::Pull, &call)
            .and_then(check)?;
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let served = header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let claimed = header("docker-content-digest");
        let limit = usize::try_from(MAX_MANIFEST_BYTES).unwrap_or(usize::MAX);
        let too_large = || {
            RegistryError::new(
                Kind::TooLarge,
                format!("the manifest has more than {MAX_MANIFEST_BYTES} bytes"),
            )
        };
        if response
            .content_length()
            .is_some_and(|length| length > MAX_MANIFEST_BYTES)
        {
            return Err(too_large());
        }
        let bytes = read_limited(response, limit)
            .map_err(|error| super::download::broken(reference, error))?;
        if bytes.len() > limit {
            return Err(too_large());
        }
        Ok((bytes, served, claimed))
    }
}

fn no_platform(platform: &Platform, index: &crate::Index) -> RegistryError {
    let mut offered: Vec<String> = index
        .manifests
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(ToString::to_string)
        .collect();
    offered.dedup();
    offered.truncate(20);
    RegistryError::new(
        Kind::Platform,
        format!(
            "there is no image for {platform}, only for {}",
            offered.join(", ")
        ),
    )
}

fn document(error: DocumentError) -> RegistryError {
    let kind = match error.kind() {
        DocumentErrorKind::TooLarge => Kind::TooLarge,
        _ => Kind::Document,
    };
    RegistryError::with(kind, "the registry's document cannot be used", error)
}
