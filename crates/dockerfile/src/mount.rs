//! `RUN --mount`.

use crate::instruction::Word;
use crate::span::Span;

/// One `--mount` flag: its fields, unexpanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The fields in order.
    pub fields: Vec<MountField>,
    /// `from`; never expanded, so stages can be found without an environment.
    pub from: Option<Word>,
    /// The whole flag.
    pub span: Span,
}

/// `key=value` or a bare `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountField {
    /// The key in lower case.
    pub key: String,
    /// The value, unexpanded; `None` for a bare key.
    pub value: Option<String>,
}
