//! Exports: from a chain and a configuration to what the user asked for.
//!
//! Every export is written beside its destination and renamed, so that nothing is half-written.

mod disk;
mod image;
mod layout;
mod output;
mod write;

pub use disk::{disk, disk_key};
pub use image::{ImageRecord, image, publish};
pub(crate) use image::{of_image, publish_bytes};
pub(crate) use layout::compressed;
pub use output::{Compression, Dest, Output, OutputError, OutputKind};
pub(crate) use output::{csv, truth};
pub use write::{Image, export};

use std::error::Error;
use std::io;

use firebuild_store::{StoreError, StoreErrorKind};

use crate::content::ContentError;

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportErrorKind {
    /// The content cannot be read or does not fit into the format.
    Content,
    /// The destination refused.
    Dest,
    /// The disk is full.
    NoSpace,
    /// The store refused.
    Store,
}

/// A failed export.
#[derive(Debug)]
pub struct ExportError {
    kind: ExportErrorKind,
    message: String,
    source: Box<dyn Error + Send + Sync>,
}

impl ExportError {
    pub(crate) fn caused(
        kind: ExportErrorKind,
        message: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind,
            message: message.into(),
            source: Box::new(source),
        }
    }

    pub(crate) fn io(message: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull => ExportErrorKind::NoSpace,
            _ => ExportErrorKind::Dest,
        };
        Self::caused(kind, message, source)
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> ExportErrorKind {
        self.kind
    }
}

impl std::fmt::Display for ExportError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

impl Error for ExportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        let kind = match error.kind() {
            StoreErrorKind::NoSpace => ExportErrorKind::NoSpace,
            _ => ExportErrorKind::Store,
        };
        Self::caused(kind, "the store refused", error)
    }
}

impl From<ContentError> for ExportError {
    fn from(error: ContentError) -> Self {
        Self::caused(
            ExportErrorKind::Content,
            "cannot read the image's files",
            error,
        )
    }
}
