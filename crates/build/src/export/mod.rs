//! Exports: from a chain and a configuration to what the user asked for.
//!
//! Every export is written beside its destination and renamed, so that nothing is half-written.

mod compress;
mod dest;
mod disk;
mod earlier;
mod files;
mod image;
mod layout;
mod output;
mod packed;
mod push;
mod rewrite;
mod write;

pub(crate) use compress::compressed;
pub use dest::write_file;
pub use disk::{disk, disk_key};
pub use earlier::InUse;
pub use image::{ImageRecord, image, publish};
pub(crate) use image::{of_image, publish_bytes, source_annotation};
pub use output::{
    Annotation, Compression, Dest, ImageForm, Output, OutputError, OutputKind, Packing, Publication,
};
pub(crate) use output::{csv, truth};
pub use rewrite::rewritten;
pub use write::{Exported, Image, export};

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

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
    /// A registry refused.
    Registry,
}

/// A failed export.
#[derive(Debug)]
pub struct ExportError {
    kind: ExportErrorKind,
    message: String,
    /// The destination whose disk is full.
    full: Option<PathBuf>,
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
            full: None,
            source: Box::new(source),
        }
    }

    /// The same, and when a full disk is the reason, it is that of this destination.
    fn full_at(mut self, dest: &Path) -> Self {
        if self.kind != ExportErrorKind::Store
            && self.full.is_none()
            && (self.kind == ExportErrorKind::NoSpace || is_full(&self))
        {
            self.kind = ExportErrorKind::NoSpace;
            self.full = Some(dest.to_owned());
        }
        self
    }

    /// The destination whose disk is full, when that is the reason.
    #[must_use]
    pub fn full(&self) -> Option<&Path> {
        self.full.as_deref()
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

/// Whether somewhere beneath an error the disk, or the user's part of it, is full.
#[must_use]
pub fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        ) {
            return true;
        }
        at = error.source();
    }
    false
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
