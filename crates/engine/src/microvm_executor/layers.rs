//! What a guest has of chains: the disk that it began with, and directories on its scratch disk.
//!
//! A directory holds what one layer changes, in the form that overlayfs reads, computed from trees as the sandbox does it
//! for its snapshots. The upper directory of a step that has succeeded becomes the directory of its layer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use firebuild_build::cancel::Cancel;
use firebuild_build::chain::{Chain, ChainLayer};
use firebuild_build::content::{ContentError, StoreContents, read_layer};
use firebuild_build::exec::{ExecError, ExecErrorKind};
use firebuild_oci::Digest;
use firebuild_rootfs::diff::snapshot_layer;
use firebuild_rootfs::layer::Layer;
use firebuild_rootfs::tar::{Output, WriteOptions, write_layer};
use firebuild_rootfs::tree::Tree;
use firebuild_sandbox::task::{BASE, SCRATCH, Task};
use firebuild_store::Store;

use super::caches::Cache;
use super::stopped;
use super::task::{self, With};
use super::vm::Vm;

/// Longer stacks are made flat up to a multiple of half of this, as in the sandbox.
const MAX_LOWERS: usize = 128;

/// What a guest has.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The directory that completes a chain; flat ones hold all that is above the disk.
    layers: HashMap<(Digest, bool), PathBuf>,
    /// Cache directories, by the directory of the host.
    pub(super) caches: HashMap<PathBuf, Cache>,
}

impl Held {
    /// Remembers the upper directory of a step as that of its layer.
    pub(super) fn adopt(&mut self, chain: &Chain, directory: PathBuf) {
        self.layers.insert((*chain.id(), false), directory);
    }
}

pub(super) fn base(error: ContentError) -> ExecError {
    ExecError::caused(
        ExecErrorKind::Base,
        "cannot read the layers below the step",
        error,
    )
}

/// The chain ids of all prefixes, the empty one first.
pub(super) fn ids(layers: &[ChainLayer]) -> Vec<Digest> {
    let mut chain = Chain::scratch();
    let mut ids = vec![*chain.id()];
    for layer in layers {
        chain = chain.push(layer.clone());
        ids.push(*chain.id());
    }
    ids
}

/// The directories of the guest that show a chain, lowest first. Those that are missing are sent.
pub(super) fn lowers(
    store: &Store,
    vm: &Vm,
    chain: &Arc<Chain>,
    cancel: &Cancel,
) -> Result<Vec<PathBuf>, ExecError> {
    let layers = chain.layers();
    let ids = ids(&layers);
    let on_disk = vm
        .image
        .and_then(|image| ids.iter().position(|id| *id == image));
    let mut lowers: Vec<PathBuf> = on_disk.iter().map(|_| PathBuf::from(BASE)).collect();
    let begin = on_disk.unwrap_or(0);
    let stops = stops(begin, layers.len(), on_disk.is_some());

    // One thread at a time, so that nothing is sent twice.
    let mut held = vm.held.lock().unwrap_or_else(PoisonError::into_inner);
    let key = |stop: &Stop| (ids[stop.at], stop.flat);
    if stops
        .iter()
        .any(|stop| !held.layers.contains_key(&key(stop)))
    {
        let mut below = tree(store, &Tree::new(), &layers[..begin])?;
        let mut done = begin;
        for stop in &stops {
            let above = tree(store, &below, &layers[done..stop.at])?;
            if let Entry::Vacant(place) = held.layers.entry(key(stop)) {
                let number = vm.number();
                let directory = Path::new(SCRATCH).join(format!("layers/{number}"));
                let layer = snapshot_layer(&below, &above);
                send(store, vm, number, &layer, &directory, true, cancel)?;
                place.insert(directory);
            }
            (below, done) = (above, stop.at);
        }
    }
    lowers.extend(stops.iter().map(|stop| held.layers[&key(stop)].clone()));
    Ok(lowers)
}

/// A place in a chain that a directory completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stop {
    at: usize,
    flat: bool,
}

fn stops(begin: usize, end: usize, on_disk: bool) -> Vec<Stop> {
    let plain = |at| Stop { at, flat: false };
    if end == begin {
        // The empty chain is a directory, too.
        return if on_disk {
            Vec::new()
        } else {
            vec![plain(end)]
        };
    }
    if end - begin <= MAX_LOWERS {
        return (begin + 1..=end).map(plain).collect();
    }
    let half = MAX_LOWERS / 2;
    let flat = begin + (end - begin - 1) / half * half;
    let mut stops = vec![Stop {
        at: flat,
        flat: true,
    }];
    stops.extend((flat + 1..=end).map(plain));
    stops
}

/// A tree with layers on top of it.
fn tree(store: &Store, below: &Tree, layers: &[ChainLayer]) -> Result<Tree, ExecError> {
    let mut tree = below.clone();
    for layer in layers {
        let entries = read_layer(store, &layer.diff_id).map_err(base)?;
        tree.apply(&entries).map_err(|error| {
            ExecError::caused(
                ExecErrorKind::Base,
                format!("cannot apply layer {}", layer.diff_id),
                error,
            )
        })?;
    }
    Ok(tree)
}

/// Sends files into a new directory of the guest.
pub(super) fn send(
    store: &Store,
    vm: &Vm,
    number: u32,
    layer: &Layer,
    directory: &Path,
    is_layer: bool,
    cancel: &Cancel,
) -> Result<(), ExecError> {
    if cancel.is_raised() {
        return Err(stopped());
    }
    let task = Task::Unpack {
        directory: directory.to_owned(),
        is_layer,
    };
    let contents = StoreContents::new(store);
    let mut archive = |mut to: &mut dyn io::Write| {
        write_layer(
            layer,
            &contents,
            Output::Stream(&mut to),
            &WriteOptions::default(),
        )
        .map(drop)
        .map_err(io::Error::other)
    };
    let with = With {
        archive: Some(&mut archive),
        ..With::default()
    };
    task::run(vm, number, &task, with, cancel).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{Stop, stops};

    #[test]
    fn short_stacks_have_a_directory_for_each_layer() {
        let at = |stops: Vec<Stop>| -> Vec<usize> { stops.iter().map(|stop| stop.at).collect() };
        assert_eq!(at(stops(0, 0, false)), [0]);
        assert_eq!(at(stops(2, 2, true)), [] as [usize; 0]);
        assert_eq!(at(stops(1, 4, true)), [2, 3, 4]);
    }

    #[test]
    fn long_stacks_are_flat_below() {
        let long = stops(1, 1 + 300, true);
        assert!(long[0].flat && long.len() <= 65, "{}", long.len());
        assert_eq!(long.last().unwrap().at, 301);
        // The flat part changes seldom.
        assert_eq!(stops(1, 302, true)[0], long[0]);
    }
}
