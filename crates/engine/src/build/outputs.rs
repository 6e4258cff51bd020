//! What a build leaves: the disk of the catalogue, the outputs that were asked for, and last the names.
//!
//! With an epoch, what boots has its times rewritten without being asked: the disk, and the image of that name in the
//! store, which further disks are made from. An output of type `oci`, `docker` or `image` is rewritten when it says so,
//! as with BuildKit.

use std::path::PathBuf;
use std::sync::Arc;

use firebuild_build::cancel::Cancel;
use firebuild_build::chain::Chain;
use firebuild_build::event::{Event, Sink};
use firebuild_build::export::{
    Dest, ExportError, ExportErrorKind, Exported, Image, InUse, OutputKind, disk, export, is_full,
    publish, rewritten,
};
use firebuild_oci::registry::{RegistryError, RegistryErrorKind};
use firebuild_oci::{Digest, ImageConfig, Reference};
use firebuild_store::Store;

use super::{BuildError, BuildErrorKind, Request};

/// One output that was written.
#[derive(Clone, Debug)]
pub struct OutputReport {
    /// The word of its `type=`.
    pub kind: &'static str,
    /// The file or directory; none for standard output, the store and registries.
    pub dest: Option<PathBuf>,
    /// What it is, for outputs that are images.
    pub exported: Exported,
}

/// What came of a build.
pub(super) struct Made {
    /// Digest of the manifest in the store.
    pub(super) manifest: Digest,
    /// Digest of the configuration in the store.
    pub(super) config: Digest,
    /// The names that stand for it.
    pub(super) names: Vec<Reference>,
    /// The ext4 image of the catalogue.
    pub(super) disk: Option<PathBuf>,
    pub(super) outputs: Vec<OutputReport>,
}

/// The end of a build.
pub(super) struct Finish<'a> {
    pub(super) store: &'a Store,
    pub(super) in_use: InUse<'a>,
    pub(super) request: &'a Request,
    pub(super) sink: Sink<'a>,
    pub(super) cancel: &'a Cancel,
}

impl Finish<'_> {
    /// Writes everything, does `before_names`, and gives the image its names.
    pub(super) fn run(
        &self,
        chain: &Arc<Chain>,
        config: &ImageConfig,
        epoch: Option<i64>,
        before_names: &dyn Fn() -> Result<(), BuildError>,
    ) -> Result<Made, BuildError> {
        let Self {
            store,
            in_use,
            request,
            sink,
            cancel,
        } = *self;
        let image = Image {
            chain,
            config,
            names: &request.tags,
            base_layers: chain
                .layers()
                .iter()
                .take_while(|layer| layer.created.is_none())
                .count(),
            min_size: request.min_size,
            epoch,
            in_use,
        };
        let kept = match epoch {
            None => Arc::clone(chain),
            Some(epoch) => {
                rewritten(store, chain, image.base_layers, epoch, cancel).map_err(failed)?
            }
        };
        let disk = if request.disk {
            let made = step(sink, "exporting ext4", || {
                disk(store, &kept, request.min_size, in_use, cancel)
            });
            Some(made.map_err(failed)?)
        } else {
            None
        };
        let mut outputs = Vec::new();
        let mut names = request.tags.clone();
        for output in &request.outputs {
            let kind = output.kind.word();
            let exported = step(sink, &format!("exporting {kind}"), || {
                export(store, &image, output, sink, cancel)
            })
            .map_err(failed)?;
            if let OutputKind::Image(publication) = output.kind
                && !publication.unrecorded
                && !publication.by_digest
            {
                names.extend(output.image.names.iter().cloned());
            }
            outputs.push(OutputReport {
                kind,
                dest: match &output.dest {
                    Dest::Path(path) => Some(path.clone()),
                    Dest::Stdout | Dest::Within => None,
                },
                exported,
            });
        }
        before_names()?;
        if cancel.is_raised() {
            return Err(super::stopped());
        }
        names.sort();
        names.dedup();
        if !records(request) {
            names.clear();
        }
        // A name that moves stands for the old image or for the new one, at whatever moment the power fails.
        if request.sync {
            self.settle()?;
        }
        // Last, so that a name never stands for an image that has no disk or whose outputs failed.
        let (manifest, config) = publish(store, &kept, config, &names, None).map_err(failed)?;
        if request.sync {
            self.settle()?;
        }
        Ok(Made {
            manifest,
            config,
            names,
            disk,
            outputs,
        })
    }

    /// Waits until the disk has what the store names.
    fn settle(&self) -> Result<(), BuildError> {
        step(self.sink, "syncing the store", || self.store.settle()).map_err(|error| {
            let what = "cannot put the image on the disk";
            BuildError::caused(BuildErrorKind::Output, what, error)
        })
    }
}

/// Whether the names of a build stand for its image in the store: not when only the cache was asked for, or an image
/// that is pushed and not kept.
fn records(request: &Request) -> bool {
    request.outputs.is_empty()
        || request.outputs.iter().any(|output| match output.kind {
            OutputKind::CacheOnly => false,
            OutputKind::Image(publication) => !publication.unrecorded,
            _ => true,
        })
}

/// Does something and tells when it begins and ends.
fn step<T, E>(sink: Sink<'_>, item: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let tell = |done| {
        sink(Event::Progress {
            item: item.to_owned(),
            current: 0,
            total: None,
            done,
        });
    };
    tell(false);
    let result = work()?;
    tell(true);
    Ok(result)
}

/// The error of an export, with what to do about it.
pub(super) fn failed(error: ExportError) -> BuildError {
    let hint = match (error.full(), error.kind()) {
        (Some(path), _) => Some(format!(
            "the disk of {} is full: free some space there, or choose another dest=",
            path.display()
        )),
        (None, ExportErrorKind::NoSpace) => Some(super::no_space_hint()),
        (None, _) if is_full(&error) => Some(super::no_space_hint()),
        (None, ExportErrorKind::Registry) => login_hint(&error),
        _ => None,
    };
    let message = error.to_string();
    BuildError::caused(BuildErrorKind::Output, message, error).hints(hint)
}

/// For a registry that wants to know who pushes.
fn login_hint(error: &ExportError) -> Option<String> {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        if let Some(registry) = error.downcast_ref::<RegistryError>()
            && registry.kind() == RegistryErrorKind::Unauthorized
        {
            return Some(
                "log in with docker login, podman login or skopeo login, whose files are read here"
                    .to_owned(),
            );
        }
        at = error.source();
    }
    None
}
