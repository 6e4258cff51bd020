//! Pushing an image to registries.
//!
//! What a registry has already is not sent again: a blob that the repository has, and one that another repository of the
//! same registry has ([`origins`](crate::transfer::origins)), which the registry then takes from there. A layer that
//! came from this registry keeps the form in which it has it, so that it is the same blob for everybody, unless
//! `force-compression=true`.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use firebuild_oci::registry::{Options, Registry, RegistryError};
use firebuild_oci::{Descriptor, Digest, Reference, media_type};
use firebuild_store::Store;

use super::dest::StoppableRead;
use super::output::{ImageForm, Publication};
use super::packed::{Packed, PackedLayer, pack};
use super::{ExportError, ExportErrorKind, Image, Output};
use crate::cancel::Cancel;
use crate::event::{Event, Sink};
use crate::transfer::origins;

/// Layers that are sent at once.
const PARALLEL: usize = 3;

/// Puts an image together and pushes it under all of `names`.
pub(super) fn push(
    store: &Store,
    image: &Image<'_>,
    output: &Output,
    publication: Publication,
    names: &[Reference],
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<Packed, ExportError> {
    let plain_http = names
        .iter()
        .filter(|_| publication.insecure)
        .map(|name| name.registry().to_owned())
        .collect();
    let registry = Registry::new(Options {
        plain_http,
        ..Options::default()
    });
    let failed: Mutex<Option<ExportError>> = Mutex::new(None);
    let known = |diff_id: &Digest| {
        let known = there(store, &registry, names, diff_id, &output.image);
        known.unwrap_or_else(|error| {
            let mut first = failed.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
            None
        })
    };
    let packed = pack(store, image, output, cancel, &known)?;
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    for name in names {
        let upload = Upload {
            store,
            registry: &registry,
            name,
            sink,
            cancel,
        };
        upload.run(&packed).map_err(|error| {
            ExportError::caused(
                ExportErrorKind::Registry,
                format!("cannot push {}", name.familiar()),
                error,
            )
        })?;
        let target = if publication.by_digest {
            name.with_digest(packed.descriptor.digest)
        } else {
            name.clone()
        };
        registry
            .push_manifest(&target, &packed.descriptor.media_type, &packed.manifest)
            .map_err(|error| {
                ExportError::caused(
                    ExportErrorKind::Registry,
                    format!("cannot push {}", name.familiar()),
                    error,
                )
            })?;
    }
    Ok(packed)
}

/// The form in which every one of the repositories has a layer, or has taken it from its neighbour.
fn there(
    store: &Store,
    registry: &Registry,
    names: &[Reference],
    diff_id: &Digest,
    form: &ImageForm,
) -> Result<Option<Descriptor>, ExportError> {
    if form.force {
        return Ok(None);
    }
    'origins: for origin in origins::of(store, diff_id) {
        for name in names {
            let taken = if name.registry() == origin.registry {
                take(
                    registry,
                    name,
                    &origin.repository,
                    &origin.descriptor.digest,
                )
                .map_err(|error| {
                    ExportError::caused(
                        ExportErrorKind::Registry,
                        format!("cannot push {}", name.familiar()),
                        error,
                    )
                })?
            } else {
                false
            };
            if !taken {
                continue 'origins;
            }
        }
        let mut descriptor = origin.descriptor;
        respell(&mut descriptor, form.docker_types);
        return Ok(Some(descriptor));
    }
    Ok(None)
}

/// Whether a repository has a blob, or takes it from another one.
fn take(
    registry: &Registry,
    name: &Reference,
    from: &str,
    digest: &Digest,
) -> Result<bool, RegistryError> {
    if registry.blob_exists(name, digest)? {
        return Ok(true);
    }
    if name.repository() == from {
        return Ok(false);
    }
    registry.mount_blob(name, digest, from)
}

/// The media type of a layer in the spelling of the manifest that it will stand in.
fn respell(descriptor: &mut Descriptor, docker: bool) {
    use media_type::Compression;
    let spelling = match (
        media_type::layer_compression(&descriptor.media_type),
        docker,
    ) {
        (Some(Compression::None), false) => media_type::OCI_LAYER,
        (Some(Compression::Gzip), false) => media_type::OCI_LAYER_GZIP,
        (Some(Compression::Zstd), false) => media_type::OCI_LAYER_ZSTD,
        (Some(Compression::None), true) => media_type::DOCKER_LAYER,
        (Some(Compression::Gzip), true) => media_type::DOCKER_LAYER_GZIP,
        (Some(Compression::Zstd), true) => media_type::DOCKER_LAYER_ZSTD,
        (None, _) => return,
    };
    spelling.clone_into(&mut descriptor.media_type);
}

/// One image on its way to one repository.
struct Upload<'a> {
    store: &'a Store,
    registry: &'a Registry,
    name: &'a Reference,
    sink: Sink<'a>,
    cancel: &'a Cancel,
}

impl Upload<'_> {
    /// Sends all blobs. The first failure ends it.
    fn run(&self, packed: &Packed) -> Result<(), RegistryError> {
        let next = AtomicUsize::new(0);
        let first: Mutex<Option<RegistryError>> = Mutex::new(None);
        let work = || {
            while let Some(layer) = packed.layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.layer(layer) {
                    let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(error);
                    next.store(packed.layers.len(), Ordering::Relaxed);
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..PARALLEL.min(packed.layers.len()) {
                scope.spawn(work);
            }
            work();
        });
        if let Some(error) = first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let config = packed.config.clone();
        self.registry.push_blob(
            self.name,
            &packed.config_descriptor,
            &|| Ok(Box::new(io::Cursor::new(config.clone())) as Box<dyn Read + Send>),
            &(Arc::new(|_| {}) as _),
        )
    }

    fn layer(&self, layer: &PackedLayer) -> Result<(), RegistryError> {
        let Some(path) = &layer.file else {
            return Ok(());
        };
        let digest = &layer.descriptor.digest;
        let hex = digest.to_hex();
        let progress = |current: u64, done: bool| {
            (self.sink)(Event::Progress {
                item: format!("pushing layer {}", hex.get(..12).unwrap_or(&hex)),
                current,
                total: Some(layer.descriptor.size),
                done,
            });
        };
        progress(0, false);
        let repository = self.name.repository();
        let mut taken = false;
        for origin in origins::of(self.store, &layer.diff_id) {
            if origin.registry == self.name.registry()
                && origin.descriptor.digest == *digest
                && origin.repository != repository
                && take(self.registry, self.name, &origin.repository, digest)?
            {
                taken = true;
                break;
            }
        }
        if !taken {
            self.registry.push_blob(
                self.name,
                &layer.descriptor,
                &|| {
                    if self.cancel.is_raised() {
                        return Err(super::dest::stopped());
                    }
                    let file = fs_err::File::open(path)?;
                    Ok(Box::new(StoppableRead::new(file, self.cancel)) as Box<dyn Read + Send>)
                },
                &(Arc::new(|_| {}) as _),
            )?;
        }
        origins::remember(self.store, &layer.diff_id, self.name, &layer.descriptor);
        progress(layer.descriptor.size, true);
        Ok(())
    }
}
