//! Caches that a build may take step results from.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firebuild_oci::Digest;
use firebuild_oci::registry::{Options, Registry};
use firebuild_store::Store;

use super::document::{Offer, read};
use super::place::Place;
use super::{CacheFrom, StepRecord};
use crate::cancel::Cancel;
use crate::content::read_layer;
use crate::event::{Event, Sink};
use crate::key::CacheKey;
use crate::transfer::{Limits, TransferError, TransferErrorKind, Wanted, take_in};

/// Caches from elsewhere, in the order in which they are asked.
#[derive(Debug, Default)]
pub struct RemoteCache {
    sources: Vec<Source>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Source {
    name: String,
    place: Place,
    offer: Offer,
}

#[derive(Debug, Default)]
struct State {
    /// Layers that were promised and are not in the store: who has them, and the records that wait for them.
    promised: BTreeMap<Digest, (usize, Vec<StepRecord>)>,
    /// Sources that broke a promise.
    broken: BTreeSet<usize>,
}

impl RemoteCache {
    /// Reads which records the caches have. One that is not there, or cannot be used, is told to `sink` and left out.
    #[must_use]
    pub fn open(froms: &[CacheFrom], sink: Sink<'_>, cancel: &Cancel) -> Self {
        let mut cache = Self::default();
        if froms.is_empty() {
            return cache;
        }
        let registry = Arc::new(Registry::new(Options {
            stop: cancel.stop(),
            // A build waits for it, and can do without.
            retries: 2,
            ..Options::default()
        }));
        for from in froms {
            if cancel.is_raised() {
                break;
            }
            let unusable = |why: &dyn std::fmt::Display| {
                sink(Event::Notice {
                    message: format!("cannot use the cache {from}: {why}"),
                });
            };
            match Place::open(from, &registry) {
                Ok(None) => unusable(&"it is not there"),
                Err(error) => unusable(&chain(&error)),
                Ok(Some((place, manifest, config))) => match read(&manifest, &config) {
                    Err(why) => unusable(&why),
                    Ok(offer) => cache.sources.push(Source {
                        name: from.to_string(),
                        place,
                        offer,
                    }),
                },
            }
        }
        cache
    }

    /// Whether no cache can be asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a key. Its layer may still have to be brought.
    pub(crate) fn find(&self, store: &Store, key: &CacheKey) -> Option<StepRecord> {
        let mut state = self.state();
        let (number, record) = self
            .sources
            .iter()
            .enumerate()
            .find_map(|(number, source)| {
                let record = source.offer.records.get(key)?;
                (!state.broken.contains(&number)).then_some((number, record))
            })?;
        if !store.has_blob(&record.layer) {
            let promise = state
                .promised
                .entry(record.layer)
                .or_insert((number, Vec::new()));
            promise.1.push(record.clone());
        }
        Some(record.clone())
    }

    /// Fetches those of `layers` that were promised and are not in the store, and gives the records that were kept back
    /// for them.
    ///
    /// # Errors
    /// When a cache does not have what it promised. It is not asked again.
    pub(crate) fn bring(
        &self,
        store: &Store,
        layers: &[Digest],
        sink: Sink<'_>,
        cancel: &Cancel,
    ) -> Result<Vec<StepRecord>, TransferError> {
        let mut wanted: BTreeMap<usize, Vec<Wanted>> = BTreeMap::new();
        {
            let state = self.state();
            for layer in layers {
                let Some((number, _)) = state.promised.get(layer) else {
                    continue;
                };
                let Some(descriptor) = self.sources[*number].offer.layers.get(layer) else {
                    continue;
                };
                wanted.entry(*number).or_default().push(Wanted {
                    index: 0,
                    diff_id: *layer,
                    name: descriptor.digest.to_string(),
                    size: descriptor.size,
                });
            }
        }
        let mut records = Vec::new();
        for (number, wanted) in wanted {
            let source = &self.sources[number];
            let fetch = |wanted: &Wanted, out: &mut dyn Write, progress: &dyn Fn(u64)| {
                let descriptor = &source.offer.layers[&wanted.diff_id];
                source.place.fetch(descriptor, out, progress)
            };
            let brought = take_in(store, &wanted, &Limits::default(), sink, cancel, &fetch)
                .and_then(|()| usable(store, &wanted));
            if let Err(error) = brought {
                if error.kind() != TransferErrorKind::Cancelled {
                    let mut state = self.state();
                    state.broken.insert(number);
                    state.promised.retain(|_, (owner, _)| *owner != number);
                    drop(state);
                    sink(Event::Notice {
                        message: format!(
                            "the cache {} is not used any more: {}",
                            source.name,
                            chain(&error)
                        ),
                    });
                }
                return Err(error);
            }
            let mut state = self.state();
            for layer in &wanted {
                if let Some((_, kept)) = state.promised.remove(&layer.diff_id) {
                    records.extend(kept);
                }
            }
        }
        Ok(records)
    }
}

/// A layer has the digest that its record names; that does not make it a layer.
fn usable(store: &Store, wanted: &[Wanted]) -> Result<(), TransferError> {
    for layer in wanted {
        read_layer(store, &layer.diff_id).map_err(|error| {
            TransferError::caused(
                TransferErrorKind::Corrupt,
                format!("layer {} cannot be used", layer.name),
                error,
            )
        })?;
    }
    Ok(())
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        at = cause.source();
    }
    text
}
