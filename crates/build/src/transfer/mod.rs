//! Images from elsewhere into the store: pulled from a registry, or imported from an image layout.
//!
//! ```text
//!  Registry::blob ─┐
//!                  ├─▶ Intake: decompress ▸ bound ▸ hash ─▶ BlobWriter ─▶ blobs/sha256/<diff ID>
//!  BlobReader ─────┘
//! ```
//!
//! The store keeps layers uncompressed under their diff ID, so a layer that any image brought is never fetched again.
//! Bytes are decompressed as they come; nothing gets its final name before the compressed digest *and* the diff ID are
//! what manifest and config say. Several layers come at once; two processes do not fetch the same one.

mod error;
mod import;
mod intake;
mod layers;
pub(crate) mod origins;
mod pull;

pub use error::{TransferError, TransferErrorKind};
pub(crate) use import::copy_blob;
pub use import::{ImportOptions, import_layout};
pub(crate) use layers::{Wanted, take_in};
pub use pull::pull;

/// Bounds of a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Layers that come at once.
    pub parallel: usize,
    /// Largest uncompressed layer, bytes. Free space on the store's disk bounds it as well.
    pub max_layer: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            parallel: 4,
            max_layer: 64 << 30,
        }
    }
}
