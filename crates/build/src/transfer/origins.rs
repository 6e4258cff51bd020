//! Where registries have the layers of the store, and in which form.
//!
//! The store keeps layers uncompressed. Which compressed blobs they came as, or went out as, is remembered here, so that
//! a push sends nothing that the registry has in another repository. It is a hint: the registry is asked before it is
//! relied on.

use firebuild_oci::{Descriptor, Digest, Reference};
use firebuild_store::Store;
use serde::{Deserialize, Serialize};

use crate::key::{CacheKey, KeyWriter};

/// Repositories that are remembered for one layer; the oldest is forgotten first.
const MAX: usize = 8;

/// A repository that had a layer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Origin {
    /// Host and port of the registry.
    pub(crate) registry: String,
    /// The path in it.
    pub(crate) repository: String,
    /// The blob.
    pub(crate) descriptor: Descriptor,
}

fn key(diff_id: &Digest) -> CacheKey {
    let mut key = KeyWriter::new("origins/1");
    key.digest(diff_id);
    key.finish()
}

/// The repositories that had a layer, the latest first.
pub(crate) fn of(store: &Store, diff_id: &Digest) -> Vec<Origin> {
    store.cache_get(&key(diff_id).0).unwrap_or_default()
}

/// Notes that a repository has a layer as this blob. What cannot be noted is only a hint less.
pub(crate) fn remember(store: &Store, diff_id: &Digest, name: &Reference, descriptor: &Descriptor) {
    let origin = Origin {
        registry: name.registry().to_owned(),
        repository: name.repository().to_owned(),
        descriptor: Descriptor::new(
            descriptor.media_type.clone(),
            descriptor.digest,
            descriptor.size,
        ),
    };
    let mut known = of(store, diff_id);
    if known.first() == Some(&origin) {
        return;
    }
    known.retain(|other| *other != origin);
    known.insert(0, origin);
    known.truncate(MAX);
    let _ = store.cache_put(&key(diff_id).0, &known);
}
