//! What can go wrong with a build, with the place in the Dockerfile where there is one.

use std::error::Error;
use std::ops::Range;

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildErrorKind {
    /// The request contradicts itself.
    Usage,
    /// The Dockerfile or the context cannot be read.
    Source,
    /// The Dockerfile is wrong.
    Dockerfile,
    /// An image cannot be had.
    Image,
    /// A step failed.
    Step,
    /// The result cannot be stored or exported.
    Output,
    /// Somebody asked for a stop.
    Cancelled,
}

/// A piece of a file that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the file.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Bytes of the text that are meant.
    pub span: Range<usize>,
}

/// A failed build.
#[derive(Debug)]
pub struct BuildError {
    kind: BuildErrorKind,
    message: String,
    place: Option<Box<Place>>,
    hints: Vec<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BuildError {
    pub(super) fn new(kind: BuildErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            place: None,
            hints: Vec::new(),
            source: None,
        }
    }

    pub(super) fn caused(
        kind: BuildErrorKind,
        message: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            source: Some(Box::new(source)),
            ..Self::new(kind, message)
        }
    }

    pub(super) fn at(mut self, place: Option<Place>) -> Self {
        self.place = place.map(Box::new);
        self
    }

    pub(super) fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> BuildErrorKind {
        self.kind
    }

    /// Where in the Dockerfile.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.place.as_deref()
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &[String] {
        &self.hints
    }
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|error| &**error as &(dyn Error + 'static))
    }
}
