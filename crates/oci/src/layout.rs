//! Images on disk: OCI image layouts, as a directory or a tar, and what `docker save` writes.
//!
//! ```text
//!   oci-layout  index.json  blobs/sha256/<hex>        OCI image specification, image-layout.md
//!   manifest.json  <config>.json  <layer>/layer.tar   docker save before version 25; later ones write both
//! ```
//!
//! [`Layout`] reads, [`LayoutWriter`] writes. Where a tar holds both forms, `index.json` is believed. A tar is indexed
//! once and then read in place, so it must be a plain file that is not compressed. Manifests and configs are verified here;
//! layers are handed out as they are, and whoever reads them verifies digest and diff ID.

mod archive;
mod error;
mod read;
mod write;

pub use error::{LayoutError, LayoutErrorKind};
pub use read::{BlobReader, Layout, LayoutImage, LoadedImage, LoadedLayer};
pub use write::LayoutWriter;

/// Annotation with the name of an image in a layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation in which containerd and Docker keep the full name.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Content of the file `oci-layout`.
pub const LAYOUT_MARKER: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
