//! Caches elsewhere: what a build gives them when it has ended.

use firebuild_build::cancel::Cancel;
use firebuild_build::event::{Event, Sink};
use firebuild_build::remote_cache::{RemoteCache, To, embed, strip, write};
use firebuild_build::solve::Solved;
use firebuild_oci::{Digest, ImageConfig};
use firebuild_store::Store;

use super::outputs::failed as output_failed;
use super::{BuildError, Request, stopped};

/// The build argument that BuildKit's users ask for an inline cache with.
pub(super) const INLINE_ARGUMENT: &str = "BUILDKIT_INLINE_CACHE";

/// Puts the steps of the image into its configuration, if that was asked for.
pub(super) fn inline(config: &mut ImageConfig, request: &Request, solved: &Solved) {
    strip(config);
    let by_argument = request
        .build_args
        .get(INLINE_ARGUMENT)
        .is_some_and(|value| matches!(value.as_str(), "1" | "true"));
    if by_argument || request.cache_to.iter().any(|to| to.to == To::Inline) {
        embed(config, &solved.records);
    }
}

/// Exports to all caches that were asked for.
pub(super) fn export(
    store: &Store,
    from: &RemoteCache,
    request: &Request,
    solved: &Solved,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    let result: Vec<Digest> = solved
        .chain
        .layers()
        .iter()
        .map(|layer| layer.diff_id)
        .collect();
    for to in &request.cache_to {
        if to.to == To::Inline {
            continue;
        }
        let item = format!("exporting cache to {to}");
        let progress = |done| {
            sink(Event::Progress {
                item: item.clone(),
                current: 0,
                total: None,
                done,
            });
        };
        progress(false);
        let written = write(store, to, from, &solved.records, &result, sink, cancel);
        progress(true);
        match written {
            Ok(exported) if exported.left_out > 0 => sink(Event::Notice {
                message: format!(
                    "{} layers did not fit into the cache {to}: a manifest has room for {}",
                    exported.left_out, exported.layers
                ),
            }),
            Ok(_) => {}
            Err(_) if cancel.is_raised() => return Err(stopped()),
            Err(error) if to.ignore_error => sink(Event::Notice {
                message: format!("the cache was not exported: {}", causes(&error)),
            }),
            Err(error) => return Err(output_failed(error)),
        }
    }
    Ok(())
}

/// An error with its causes, in one line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
