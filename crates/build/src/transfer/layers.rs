//! Several layers at once, each fetched by one process only.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use firebuild_oci::Digest;
use firebuild_store::{Store, StoreError, StoreErrorKind};

use super::Limits;
use super::error::{TransferError, TransferErrorKind as Kind};
use super::intake::{Intake, Stop};
use crate::cancel::Cancel;
use crate::event::{Event, Sink};

/// A layer that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its place in the source's list.
    pub(crate) index: usize,
    /// Digest of the uncompressed bytes.
    pub(crate) diff_id: Digest,
    /// What people know it by: the digest in the registry, or a file name.
    pub(crate) name: String,
    /// Bytes that will come, for progress.
    pub(crate) size: u64,
}

/// Brings the bytes of one layer: writes them, calls back with the number of bytes so far, and verifies what it can.
pub(crate) type Fetch<'a> =
    &'a (dyn Fn(&Wanted, &mut dyn Write, &dyn Fn(u64)) -> Result<(), TransferError> + Sync);

/// Fetches what is missing of `wanted` into the store. The first failure ends all.
pub(crate) fn take_in(
    store: &Store,
    wanted: &[Wanted],
    limits: &Limits,
    sink: Sink<'_>,
    cancel: &Cancel,
    fetch: Fetch<'_>,
) -> Result<(), TransferError> {
    // Raised by the first failure or by the caller: one flag for those that still work.
    let stop = Cancel::new()
        .map_err(|error| TransferError::caused(Kind::Io, "cannot begin to fetch layers", error))?;
    let next = AtomicUsize::new(0);
    let first: Mutex<Option<TransferError>> = Mutex::new(None);
    let work = || {
        while let Some(layer) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ended = || cancel.is_raised() || stop.is_raised();
            let result = if ended() {
                Err(TransferError::cancelled())
            } else {
                one(store, layer, limits, sink, &ended, fetch)
            };
            if let Err(error) = result {
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                // Those that stop because another one failed are not the reason.
                if first.is_none() {
                    *first = Some(error);
                }
                stop.raise();
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..limits.parallel.min(wanted.len()) {
            scope.spawn(work);
        }
        work();
    });
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Ok(()),
        Some(_) if cancel.is_raised() => Err(TransferError::cancelled()),
        Some(error) => Err(error),
    }
}

fn one(
    store: &Store,
    layer: &Wanted,
    limits: &Limits,
    sink: Sink<'_>,
    ended: &dyn Fn() -> bool,
    fetch: Fetch<'_>,
) -> Result<(), TransferError> {
    let progress = |current: u64, done: bool| {
        sink(Event::Progress {
            item: format!(
                "layer {}",
                layer
                    .name
                    .trim_start_matches("sha256:")
                    .get(..12)
                    .unwrap_or(&layer.name)
            ),
            current,
            total: Some(layer.size),
            done,
        });
    };
    if store.has_blob(&layer.diff_id) {
        progress(layer.size, true);
        return Ok(());
    }
    progress(0, false);
    let failed = |error: StoreError| {
        TransferError::store(format!("cannot store layer {}", layer.name), error)
    };
    // Another process, or a second layer of the same content in this image, may be at it.
    let lock = store
        .lock(&format!("layer-{}", layer.diff_id.to_hex()), ended)
        .map_err(failed)?
        .ok_or_else(TransferError::cancelled)?;
    if !store.has_blob(&layer.diff_id) {
        let space = free_space(store);
        let limit = limits.max_layer.min(space);
        let blob = store.blob_writer().map_err(failed)?;
        let mut intake = Intake::new(blob, limit, ended);
        let explain = |error: TransferError| match Stop::of(&error) {
            None => error,
            Some(Stop::Cancelled) => TransferError::cancelled(),
            Some(stop) => {
                let kind = match stop {
                    Stop::NoSpace => Kind::NoSpace,
                    Stop::TooLarge(_) if limit == space => Kind::NoSpace,
                    Stop::TooLarge(_) => Kind::TooLarge,
                    _ => Kind::Corrupt,
                };
                TransferError::caused(kind, format!("cannot unpack layer {}", layer.name), stop)
            }
        };
        fetch(layer, &mut intake, &|current| progress(current, false)).map_err(explain)?;
        let blob = intake.finish().map_err(|error| {
            explain(TransferError::caused(
                Kind::Corrupt,
                format!("cannot unpack layer {}", layer.name),
                error,
            ))
        })?;
        blob.commit(Some(&layer.diff_id))
            .map_err(|error| match error.kind() {
                StoreErrorKind::Corrupt => TransferError::caused(
                    Kind::Corrupt,
                    format!(
                        "layer {} is not the one that the image config names ({})",
                        layer.name, layer.diff_id
                    ),
                    error,
                ),
                _ => failed(error),
            })?;
    }
    drop(lock);
    progress(layer.size, true);
    Ok(())
}

/// Bytes that this user may still write on the store's disk; everything if the system does not say.
fn free_space(store: &Store) -> u64 {
    rustix::fs::statvfs(store.root())
        .map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}
