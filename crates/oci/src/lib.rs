//! The image world: its names, its documents, and the client that fetches them.
//!
//! ```text
//!   Reference ──Registry::resolve──▶ manifest ──▶ ImageConfig + layer Descriptors
//!   "debian:12"                      (bytes, Digest)        │
//!                                                           ▼
//!                                       Registry::blob │ Layout::open_blob ──▶ bytes
//! ```
//!
//! * [`Digest`], [`Hasher`]: the name of content.
//! * [`Reference`]: `registry/repository:tag@digest`, normalised as Docker does.
//! * [`Platform`]: operating system and processor, and which image of an index fits.
//! * [`Descriptor`], [`Manifest`], [`Index`], [`ImageConfig`]: the documents, in the OCI and the Docker spelling.
//! * [`layout`]: image layouts and `docker save` archives on disk.
//! * [`registry`]: a synchronous client for the distribution protocol.
//!
//! Invariants: a value that exists is valid (the parsers are strict); what is read is bounded before it is parsed;
//! unknown JSON fields of documents survive a round trip; the same value always has the same bytes.
//!
//! This crate refuses to know file systems, builds and virtual machines. No type of an HTTP or async library
//! appears in a signature.

pub mod config;
pub mod descriptor;
pub mod digest;
pub mod document;
pub mod layout;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod registry;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Digest, DigestError, Hasher};
pub use document::{Document, DocumentError, DocumentErrorKind, Index, Manifest};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError, ReferenceErrorKind};
