//! Why a Dockerfile cannot be lowered.

use std::error::Error;
use std::fmt;

use firebuild_dockerfile::{Span, Warning};

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LowerErrorKind {
    /// A variable cannot be expanded.
    Expansion,
    /// A base image or another image has no usable name.
    Reference,
    /// A platform cannot be read.
    Platform,
    /// There is no such target.
    Target,
    /// A stage is named that is not there, stands too late, or depends on itself.
    Stage,
    /// A `--mount` is wrong.
    Mount,
    /// A COPY or ADD is wrong.
    Copy,
    /// A value of an instruction is wrong.
    Value,
    /// An ONBUILD trigger of a base cannot be read.
    Trigger,
    /// `SOURCE_DATE_EPOCH` is wrong.
    Epoch,
    /// The options of the checks are wrong, or a check that counts as an error found something.
    Check,
    /// A step asks for what the caller has not allowed.
    Entitlement,
    /// Something passes a limit.
    TooLarge,
}

/// An error with its place in the Dockerfile.
#[derive(Debug)]
pub struct LowerError {
    kind: LowerErrorKind,
    message: Box<str>,
    span: Option<Span>,
    stage: Box<str>,
    hint: Option<Box<str>>,
    warnings: Box<[Warning]>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl LowerError {
    pub(super) fn new(kind: LowerErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into().into(),
            span: None,
            stage: Box::default(),
            hint: None,
            warnings: Box::default(),
            source: None,
        }
    }

    pub(super) fn at(self, span: Span) -> Self {
        self.at_maybe(Some(span))
    }

    pub(super) fn at_maybe(mut self, span: Option<Span>) -> Self {
        self.span = self.span.or(span);
        self
    }

    /// Replaces the place: what a trigger says has none in this file.
    pub(super) fn moved_to(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    pub(super) fn in_stage(mut self, name: &str) -> Self {
        self.stage = name.into();
        self
    }

    pub(super) fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    pub(super) fn with_warnings(mut self, warnings: Vec<Warning>) -> Self {
        self.warnings = warnings.into();
        self
    }

    /// What the checks found before it.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// What sort of error it is.
    pub fn kind(&self) -> LowerErrorKind {
        self.kind
    }

    /// Where in the Dockerfile it is, if it is there.
    pub fn span(&self) -> Option<Span> {
        self.span
    }

    /// The stage, if it is of one; `stage-N` for those without a name.
    pub fn stage(&self) -> Option<&str> {
        (!self.stage.is_empty()).then_some(&*self.stage)
    }

    /// What may help.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for LowerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for LowerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}
