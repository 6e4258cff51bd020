//! Results of build steps from elsewhere and for elsewhere: `--cache-from` and `--cache-to`.
//!
//! ```text
//!  --cache-from ─ open ─▶ records: key ▸ layer     no layer is fetched yet
//!      solver: a key that the store does not know ─ find ─▶ the layer's digest
//!      … and only when a step or the result needs the files ─ bring ─▶ blobs/sha256/<diff ID>
//!  --cache-to ◀─ write ─ records and layers of the build that has ended
//! ```
//!
//! An exported cache is an OCI manifest with a configuration document of ours; an inline cache is a member of an image's
//! own configuration (`docs/formats/cache-export.md`). Keys name content, so a record is right wherever it was made, as
//! long as one trusts who made it: a cache says what a step gives, and nobody can tell a lie from the truth without
//! executing the step (`docs/threat-model.md`). It can give layers for keys and nothing else; each layer has the digest
//! that its record names, and everything is bounded.

mod document;
mod export;
mod import;
mod place;
mod spec;

pub use document::{INLINE, embed, strip};
pub use export::{Exported, write};
pub use import::RemoteCache;
pub use spec::{CacheError, CacheFrom, CacheTo, Mode, To};

use firebuild_oci::Digest;

use crate::key::CacheKey;

/// A result of a step, as caches keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// Its key.
    pub key: CacheKey,
    /// Diff ID of the layer that it gave.
    pub layer: Digest,
    /// When it was made, in seconds since the epoch.
    pub created: i64,
    /// The step, for people; may be empty.
    pub name: String,
    /// Another key of the same result: that of a COPY by what it copies, where `key` is by what it names.
    pub also: Option<CacheKey>,
}
