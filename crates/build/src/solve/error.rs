//! What can go wrong while a graph is solved.

use std::error::Error;

use firebuild_dockerfile::Span;
use firebuild_store::{StoreError, StoreErrorKind};

use crate::graph::Vertex;

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SolveErrorKind {
    /// A RUN ended with a code that is not 0, or by a signal.
    Step,
    /// A RUN could not be started.
    Executor,
    /// A COPY or ADD cannot be done as written.
    Copy,
    /// A source could not be read.
    Source,
    /// The store refused.
    Store,
    /// The disk is full.
    NoSpace,
    /// A cache elsewhere does not have what it promised; the build goes on without it.
    CacheLost,
    /// Somebody asked for a stop.
    Cancelled,
    /// This version cannot do it.
    Unsupported,
    /// A broken invariant.
    Internal,
}

/// A failed vertex.
#[derive(Debug)]
pub struct SolveError {
    kind: SolveErrorKind,
    message: String,
    span: Option<Span>,
    step: String,
    hints: Vec<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl SolveError {
    pub(crate) fn new(kind: SolveErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            span: None,
            step: String::new(),
            hints: Vec::new(),
            source: None,
        }
    }

    pub(crate) fn caused(
        kind: SolveErrorKind,
        message: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            source: Some(Box::new(source)),
            ..Self::new(kind, message)
        }
    }

    pub(crate) fn store(error: StoreError) -> Self {
        let kind = match error.kind() {
            StoreErrorKind::NoSpace => SolveErrorKind::NoSpace,
            _ => SolveErrorKind::Store,
        };
        Self::caused(kind, "the store refused", error)
    }

    pub(crate) fn content(error: crate::content::ContentError) -> Self {
        let kind = if error.is_full() {
            SolveErrorKind::NoSpace
        } else {
            SolveErrorKind::Store
        };
        Self::caused(kind, "cannot make a layer", error)
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(SolveErrorKind::Cancelled, "the build was stopped")
    }

    pub(crate) fn internal(what: &str) -> Self {
        Self::new(SolveErrorKind::Internal, format!("internal error: {what}"))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn at(mut self, vertex: &Vertex) -> Self {
        if self.span.is_none() {
            self.span = vertex.span;
            self.step.clone_from(&vertex.name);
        }
        self
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> SolveErrorKind {
        self.kind
    }

    /// Where in the Dockerfile.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.span
    }

    /// The step that failed, as people read it.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.step
    }

    /// What to do about it.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl std::fmt::Display for SolveError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

impl Error for SolveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|error| &**error as &(dyn Error + 'static))
    }
}
