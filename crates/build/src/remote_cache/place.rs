//! Where the blobs of a cache are.

use std::io::Write;
use std::sync::Arc;

use firebuild_oci::document::MAX_CONFIG_BYTES;
use firebuild_oci::layout::Layout;
use firebuild_oci::registry::{Registry, RegistryErrorKind};
use firebuild_oci::{Descriptor, Manifest, Platform, Reference};

use super::CacheFrom;
use crate::transfer::{TransferError, TransferErrorKind, copy_blob};

/// An opened layout, or a repository.
#[derive(Debug)]
pub(super) enum Place {
    Layout(Layout),
    Registry(Arc<Registry>, Reference),
}

impl Place {
    /// Reads the manifest and the configuration of a cache; nothing where there is no such cache yet.
    pub(super) fn open(
        from: &CacheFrom,
        registry: &Arc<Registry>,
    ) -> Result<Option<(Self, Manifest, Vec<u8>)>, TransferError> {
        let platform = Platform::host();
        match from {
            CacheFrom::Registry(reference) => {
                let found = match registry.resolve_manifest(reference, &platform) {
                    Ok(found) => found,
                    Err(error) if error.kind() == RegistryErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
                let (reference, manifest) = (found.reference, found.manifest);
                let config = registry.small_blob(&reference, &manifest.config, MAX_CONFIG_BYTES)?;
                let place = Self::Registry(Arc::clone(registry), reference);
                Ok(Some((place, manifest, config)))
            }
            CacheFrom::Local { src, tag, digest } => {
                if !src.join("index.json").exists() && src.is_dir() || !src.exists() {
                    return Ok(None);
                }
                let layout = Layout::open(src)?;
                let image = match digest {
                    Some(digest) => layout.find_digest(digest)?,
                    None => layout.find(Some(tag))?,
                };
                let manifest = layout.manifest(image, &platform)?.ok_or_else(|| {
                    TransferError::new(
                        TransferErrorKind::Corrupt,
                        format!(
                            "{} is an archive of docker save and no cache",
                            src.display()
                        ),
                    )
                })?;
                let config = layout.small_blob(&manifest.config, MAX_CONFIG_BYTES)?;
                Ok(Some((Self::Layout(layout), manifest, config)))
            }
        }
    }

    /// Copies a layer, compressed as it is, to `out` and verifies its digest.
    pub(super) fn fetch(
        &self,
        descriptor: &Descriptor,
        out: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), TransferError> {
        match self {
            Self::Registry(registry, reference) => registry
                .blob(reference, descriptor, out, progress)
                .map_err(TransferError::from),
            Self::Layout(layout) => {
                let reader = layout.open_blob(descriptor)?;
                copy_blob(
                    reader,
                    &descriptor.digest.to_string(),
                    Some(descriptor.digest),
                    out,
                    progress,
                )
            }
        }
    }
}
