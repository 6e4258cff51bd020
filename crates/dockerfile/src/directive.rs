//! Parser directives.

use crate::instruction::Word;

/// The parser directives of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// `syntax`: the frontend the author asks for.
    pub syntax: Option<Word>,
    /// `escape`: backslash or backtick.
    pub escape: char,
    /// `check`: options of the checks.
    pub check: Option<Word>,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            syntax: None,
            escape: '\\',
            check: None,
        }
    }
}
