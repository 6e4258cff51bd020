//! Quote removal and variable expansion, the shell-like part of the language (moby/buildkit, shell/lex.go).
//!
//! ```text
//!   word      = { char | escape char | '…' | "…" | variable }
//!   variable  = $name | ${name} | ${name[:](-|+|?)word} | ${name(#|##|%|%%)pattern} | ${name(/|//)pattern/word}
//! ```
//!
//! The result of an expansion is one word: blanks inside do not split it. Only `EXPOSE` splits, through
//! [`expand_words`]. Heredoc bodies of `COPY` and `ADD` go through [`expand_heredoc`], where quotes are text and the
//! escape character is always a backslash.
//!
//! Values are looked up through a function, since the environment differs by instruction. The word behind a modifier is
//! always expanded, used or not, so an unset name in it is reported in any case.

mod lexer;

use std::fmt;

use self::lexer::{Lexer, Options};
use crate::limits::{MAX_BODY_BYTES, MAX_WORD_BYTES};

/// An expanded word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Names that were looked up and not found, each once, in order.
    pub unset: Vec<String>,
}

/// Expanded words of an `EXPOSE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpandedWords {
    /// The words; may be none.
    pub words: Vec<String>,
    /// Names that were looked up and not found, each once, in order.
    pub unset: Vec<String>,
}

/// The sort of an [`ExpandError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExpandErrorKind {
    /// A quote is not closed.
    UnterminatedQuote,
    /// A `${` is not closed.
    UnterminatedBrace,
    /// `${}` and the like.
    BadSubstitution,
    /// `${name^}` and other modifiers that the language does not have.
    UnsupportedModifier,
    /// `${name:?}` of a name that is unset or empty.
    Required,
    /// A pattern with a wrong escape.
    BadPattern,
    /// The nesting, the result or the work is above the limit.
    TooLarge,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpandError {
    kind: ExpandErrorKind,
    offset: usize,
    message: String,
}

impl ExpandError {
    fn new(kind: ExpandErrorKind, offset: usize, message: impl Into<String>) -> Self {
        Self {
            kind,
            offset,
            message: message.into(),
        }
    }

    /// The sort of the error.
    pub fn kind(&self) -> ExpandErrorKind {
        self.kind
    }

    /// Byte offset in the unexpanded text.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl fmt::Display for ExpandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExpandError {}

/// Removes quotes and expands variables.
///
/// # Errors
///
/// On bad syntax, on `${name:?}` and when a limit is passed (64 levels of nesting, 1 MiB of result).
pub fn expand_word<'e>(
    text: &str,
    escape: char,
    lookup: impl Fn(&str) -> Option<&'e str>,
) -> Result<Expanded, ExpandError> {
    let options = Options {
        escape,
        max_bytes: MAX_WORD_BYTES,
        ..Options::default()
    };
    let mut lexer = Lexer::new(text, options, &lookup);
    let text = lexer.word()?;
    Ok(Expanded {
        text,
        unset: lexer.into_unset(),
    })
}

/// Like [`expand_word`], then splits at white space that is not quoted or escaped. For `EXPOSE`.
///
/// # Errors
///
/// As [`expand_word`].
pub fn expand_words<'e>(
    text: &str,
    escape: char,
    lookup: impl Fn(&str) -> Option<&'e str>,
) -> Result<ExpandedWords, ExpandError> {
    let options = Options {
        escape,
        max_bytes: MAX_WORD_BYTES,
        ..Options::default()
    };
    let mut lexer = Lexer::new(text, options, &lookup);
    let words = lexer.words()?;
    Ok(ExpandedWords {
        words,
        unset: lexer.into_unset(),
    })
}

/// Expands variables in a heredoc body of `COPY` or `ADD`.
///
/// # Errors
///
/// As [`expand_word`], with a result of up to 64 MiB.
pub fn expand_heredoc<'e>(
    body: &str,
    lookup: impl Fn(&str) -> Option<&'e str>,
) -> Result<Expanded, ExpandError> {
    let options = Options {
        quotes_are_text: true,
        max_bytes: MAX_BODY_BYTES,
        ..Options::default()
    };
    let mut lexer = Lexer::new(body, options, &lookup);
    let text = lexer.word()?;
    Ok(Expanded {
        text,
        unset: lexer.into_unset(),
    })
}

/// Expands variables in a line that a person reads: quotes stay, and so do variables that nothing sets, for the shell
/// will set them. This is how BuildKit names its RUN steps.
///
/// # Errors
///
/// As [`expand_word`].
pub fn expand_shown<'e>(
    text: &str,
    escape: char,
    lookup: impl Fn(&str) -> Option<&'e str>,
) -> Result<String, ExpandError> {
    let options = Options {
        escape,
        keep_quotes: true,
        keep_unset: true,
        max_bytes: MAX_WORD_BYTES,
        ..Options::default()
    };
    Lexer::new(text, options, &lookup).word()
}

/// Splits a shell line into words with quotes and escapes kept: how heredocs are found.
pub(crate) fn shell_words(line: &str) -> Result<Vec<String>, ExpandError> {
    let options = Options {
        keep_quotes: true,
        keep_escapes: true,
        keep_unset: true,
        ..Options::default()
    };
    Lexer::new(line, options, &|_| None).words()
}

/// Splits the part behind `<<`: once without quotes, once with.
pub(crate) fn heredoc_names(text: &str) -> Result<(Vec<String>, Vec<String>), ExpandError> {
    let split = |keep_quotes| {
        let options = Options {
            keep_quotes,
            keep_unset: true,
            ..Options::default()
        };
        Lexer::new(text, options, &|_| None).words()
    };
    Ok((split(false)?, split(true)?))
}

#[cfg(test)]
mod tests;
