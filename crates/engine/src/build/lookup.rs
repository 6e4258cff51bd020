//! Looking an image up: the store first, then its registry.

use firebuild_build::cancel::Cancel;
use firebuild_build::event::Sink;
use firebuild_build::export::{self, ImageRecord};
use firebuild_build::resolve::{ImageRequest, ResolvedImage};
use firebuild_build::transfer;
use firebuild_oci::registry::{self, Registry};
use firebuild_oci::{ImageConfig, Platform, Reference};
use firebuild_store::Store;

use super::{BuildError, BuildErrorKind, layouts};

/// The image of a request. With `pull` the registry is asked although the store has it.
pub(super) fn image(
    store: &Store,
    request: &ImageRequest,
    pull: bool,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<ResolvedImage, BuildError> {
    let name = &request.reference;
    if let Some(place) = name.strip_prefix(layouts::SCHEME) {
        let platform = platform(&request.platform)?;
        let (reference, image) = layouts::image(store, place, &platform, sink, cancel)?;
        return Ok(resolved(&reference, image));
    }
    let reference: Reference = name.parse().map_err(|error| {
        BuildError::caused(
            BuildErrorKind::Dockerfile,
            format!("invalid image reference {name:?}"),
            error,
        )
    })?;
    let image = match stored(store, &reference)? {
        Some(image) if !pull && fits(&image.config, &request.platform) => image,
        Some(other) if !pull => {
            // An image of another platform is better than none; the checks will say what it is.
            let found = fetch(store, &reference, &request.platform, sink, cancel);
            match found {
                Err(error) if error.kind() == BuildErrorKind::Image => other,
                found => found?,
            }
        }
        _ => fetch(store, &reference, &request.platform, sink, cancel)?,
    };
    Ok(resolved(&reference, image))
}

fn resolved(reference: &Reference, image: ImageRecord) -> ResolvedImage {
    ResolvedImage {
        reference: reference.with_digest(image.source.unwrap_or(image.manifest)),
        manifest: image.manifest,
        layers: image
            .chain
            .layers()
            .iter()
            .map(|layer| layer.diff_id)
            .collect(),
        config: image.config,
    }
}

fn platform(text: &str) -> Result<Platform, BuildError> {
    text.parse().map_err(|error| {
        BuildError::caused(
            BuildErrorKind::Usage,
            format!("invalid platform {text:?}"),
            error,
        )
    })
}

/// Whether an image is of a platform, as far as it matters to its programs.
fn fits(config: &ImageConfig, platform: &str) -> bool {
    let Ok(wanted) = platform.parse::<Platform>() else {
        return true;
    };
    let (wanted, offered) = (wanted.normalised(), config.platform.normalised());
    (wanted.os, wanted.architecture) == (offered.os, offered.architecture)
}

/// The image of a request without its layers: what checks need to know of it.
pub(super) fn config(store: &Store, request: &ImageRequest) -> Result<ResolvedImage, BuildError> {
    let name = &request.reference;
    let wrong = |error| {
        let message = format!("invalid image reference {name:?}");
        BuildError::caused(BuildErrorKind::Dockerfile, message, error)
    };
    let reference: Reference = name.parse().map_err(wrong)?;
    if let Some(image) = stored(store, &reference)? {
        return Ok(ResolvedImage {
            reference: reference.with_digest(image.source.unwrap_or(image.manifest)),
            manifest: image.manifest,
            layers: image
                .chain
                .layers()
                .iter()
                .map(|layer| layer.diff_id)
                .collect(),
            config: image.config,
        });
    }
    let platform: Platform = request.platform.parse().map_err(|error| {
        let message = format!("invalid platform {:?}", request.platform);
        BuildError::caused(BuildErrorKind::Usage, message, error)
    })?;
    let registry = Registry::new(registry::Options::default());
    let found = registry.resolve(&reference, &platform).map_err(|error| {
        let message = format!("cannot get image {}", reference.familiar());
        let hint = bootstrap_hint(&reference);
        BuildError::caused(BuildErrorKind::Image, message, error).hints(hint)
    })?;
    Ok(ResolvedImage {
        reference: found.reference,
        manifest: found.manifest_digest,
        layers: found.config.rootfs.diff_ids.clone(),
        config: found.config,
    })
}

/// The image as the store has it, if it does.
pub(crate) fn stored(
    store: &Store,
    reference: &Reference,
) -> Result<Option<ImageRecord>, BuildError> {
    let record = store.get_ref(reference).map_err(|error| {
        BuildError::caused(BuildErrorKind::Image, "cannot read the image store", error)
    })?;
    // A damaged image is fetched again.
    Ok(record.and_then(|record| export::image(store, &record).ok()))
}

/// Pulls an image from its registry.
pub(crate) fn fetch(
    store: &Store,
    reference: &Reference,
    platform: &str,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<ImageRecord, BuildError> {
    let platform = self::platform(platform)?;
    let registry = Registry::new(registry::Options {
        stop: cancel.stop(),
        ..registry::Options::default()
    });
    transfer::pull(
        store,
        &registry,
        reference,
        &platform,
        &transfer::Limits::default(),
        sink,
        cancel,
    )
    .map_err(|error| {
        let kind = if cancel.is_raised() {
            BuildErrorKind::Cancelled
        } else {
            BuildErrorKind::Image
        };
        let hint = bootstrap_hint(reference);
        let message = format!("cannot get image {}", reference.familiar());
        BuildError::caused(kind, message, error).hints(hint)
    })
}

/// For an official image that cannot be had: what works without a registry.
fn bootstrap_hint(reference: &Reference) -> Option<String> {
    let canonical = reference.canonical();
    let short = canonical.strip_prefix("docker.io/library/")?;
    let bootstraps = ["debian:", "ubuntu:"]
        .iter()
        .any(|distribution| short.starts_with(distribution));
    Some(if bootstraps {
        format!(
            "firebuild baseos --bootstrap {short} makes it from packages where no registry can be reached"
        )
    } else {
        "where no registry can be reached, firebuild baseos --bootstrap debian:bookworm makes a base from packages, and firebuild image load reads a saved image".to_owned()
    })
}
