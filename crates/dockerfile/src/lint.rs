//! Checks.

use crate::span::Span;

/// One finding of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The check.
    pub rule: Rule,
    /// What was found.
    pub message: String,
    /// Where.
    pub span: Span,
}

/// The checks, by BuildKit's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// An empty line inside a continued instruction.
    NoEmptyContinuation,
}
