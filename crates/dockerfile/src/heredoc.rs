//! Here-documents.

use std::borrow::Cow;

use crate::span::Span;

/// One here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The terminator without quotes; for `COPY` and `ADD` also the file name.
    pub name: String,
    /// Whether variables in the body are expanded: no quote character in the name.
    pub expand: bool,
    /// `<<-`: leading tabs of each line are not part of the document.
    pub strip_tabs: bool,
    /// The number before `<<`; 0 when absent.
    pub fd: u32,
    /// The body as it stands in the file, line endings included. [`Heredoc::text`] applies `<<-`.
    pub body: String,
    /// Where the `<<NAME` word stood.
    pub span: Span,
    /// Where the body stood.
    pub body_span: Span,
}

impl Heredoc {
    /// The body, without leading tabs when `<<-` asked for that.
    pub fn text(&self) -> Cow<'_, str> {
        if !self.strip_tabs || !self.body.contains('\t') {
            return Cow::Borrowed(&self.body);
        }
        self.body
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect::<String>()
            .into()
    }
}
