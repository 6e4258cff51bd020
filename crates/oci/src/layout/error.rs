//! What can be wrong with a layout.

use std::error::Error;

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutErrorKind {
    /// The operating system refused.
    Io,
    /// Neither a layout nor a `docker save` archive.
    NotALayout,
    /// A file of the layout is missing or its content is wrong.
    Corrupt,
    /// No image of that name, or several and no name given.
    NoImage,
    /// No image for the wanted platform.
    Platform,
}

/// A layout that cannot be read or written. The text names the path.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct LayoutError {
    kind: LayoutErrorKind,
    context: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl LayoutError {
    pub(super) fn new(kind: LayoutErrorKind, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            source: None,
        }
    }

    pub(super) fn with(
        kind: LayoutErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            context: context.into(),
            source: Some(source.into()),
        }
    }

    /// What went wrong, to match on.
    pub fn kind(&self) -> LayoutErrorKind {
        self.kind
    }
}
