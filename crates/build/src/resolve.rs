//! Names to things, before lowering.
//!
//! `lower` is pure: it works on what is in a [`Resolved`]. When it meets an image that is not there it answers with the
//! list of [`ImageRequest`]s it needs; the caller looks them up (store, registry, named context), adds them, and lowers
//! again. Images may bring ONBUILD triggers that name further images, so this repeats, with a bound.

use std::collections::BTreeMap;

use firebuild_oci::{Digest, ImageConfig, Reference};

/// How often lowering may ask for more images: ONBUILD triggers can chain.
pub const MAX_ROUNDS: usize = 16;

/// An image that lowering needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRequest {
    /// The normalised reference, or the name of a `--build-context`.
    pub reference: String,
    /// `os/arch[/variant]` that is wanted.
    pub platform: String,
}

/// An image that was looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedImage {
    /// The canonical reference with digest, for people and for records.
    pub reference: Reference,
    /// Digest of the manifest as the registry or store has it.
    pub manifest: Digest,
    /// Its configuration.
    pub config: ImageConfig,
    /// Digests of the uncompressed layers, lowest first.
    pub layers: Vec<Digest>,
}

/// All images that were looked up for one build.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// By request.
    pub images: BTreeMap<ImageRequest, ResolvedImage>,
}
