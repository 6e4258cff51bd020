//! What can be wrong with a COPY.

use std::io;

use firebuild_dockerfile::BadPattern;
use firebuild_rootfs::tree::TreeError;

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyErrorKind {
    /// A source that was named is not there.
    NotFound,
    /// A pattern cannot be read.
    Pattern,
    /// A file and a directory are in each other's way.
    Conflict,
    /// A path cannot be followed or made.
    Tree,
    /// Content cannot be read.
    Content,
    /// An archive is damaged.
    Archive,
}

/// A COPY or ADD that cannot be done.
#[derive(Debug)]
pub struct CopyError {
    kind: CopyErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CopyError {
    pub(crate) fn new(kind: CopyErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn caused(
        kind: CopyErrorKind,
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            source: Some(Box::new(source)),
            ..Self::new(kind, message)
        }
    }

    pub(crate) fn tree(message: impl Into<String>, source: TreeError) -> Self {
        Self::caused(CopyErrorKind::Tree, message, source)
    }

    pub(crate) fn pattern(pattern: &str, source: BadPattern) -> Self {
        Self::caused(
            CopyErrorKind::Pattern,
            format!("cannot understand the pattern {pattern:?}"),
            source,
        )
    }

    pub(crate) fn content(path: &[u8], source: io::Error) -> Self {
        let shown = firebuild_rootfs::path::escape(path);
        Self::caused(
            CopyErrorKind::Content,
            format!("cannot read {shown}"),
            source,
        )
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> CopyErrorKind {
        self.kind
    }
}

impl std::fmt::Display for CopyError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for CopyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|error| &**error as &(dyn std::error::Error + 'static))
    }
}
