//! What can be wrong with a Dockerfile.

use std::fmt;

use crate::span::Span;

/// The sort of a [`ParseError`]: what callers match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// The file, a line of it, or the number of its parts is above the limit.
    TooLarge,
    /// The file is not UTF-8 where it matters.
    NotUtf8,
    /// There is nothing in the file, or only comments.
    Empty,
    /// There are instructions but no `FROM`.
    NoStages,
    /// A parser directive is repeated or has a bad value.
    BadDirective,
    /// The first word of a line is no instruction.
    UnknownInstruction,
    /// An instruction other than `ARG` stands above the first `FROM`.
    OutsideStage,
    /// The instruction has no such flag.
    UnknownFlag,
    /// A flag is repeated, lacks its value, or has a bad one.
    BadFlag,
    /// Too few or too many arguments.
    WrongArguments,
    /// Arguments of the wrong form.
    BadArguments,
    /// A JSON array with something that is no string, or no JSON array where one is needed.
    BadJson,
    /// A heredoc without its end.
    UnterminatedHeredoc,
    /// A stage name breaks the grammar.
    BadStageName,
    /// Not allowed as a trigger.
    BadTrigger,
    /// A `--mount` that breaks the grammar.
    BadMount,
}

/// One error, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    kind: ParseErrorKind,
    message: String,
    span: Span,
    hint: Option<String>,
}

impl ParseError {
    pub(crate) fn new(kind: ParseErrorKind, span: Span, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            span,
            hint: None,
        }
    }

    /// Adds `(did you mean X?)` when there is a near name.
    pub(crate) fn with_suggestion(mut self, near: Option<String>) -> Self {
        if let Some(near) = near {
            self.message = format!("{} (did you mean {near}?)", self.message);
            self.hint = Some(near);
        }
        self
    }

    /// The sort of the error.
    pub fn kind(&self) -> ParseErrorKind {
        self.kind
    }

    /// Where it is.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The name that was probably meant. The message mentions it already.
    pub fn suggestion(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ParseError {}

/// All errors found in one file: at least one, in order of position, at most [`ParseErrors::LIMIT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseErrors {
    errors: Vec<ParseError>,
}

impl ParseErrors {
    /// Later errors are dropped.
    pub const LIMIT: usize = 20;

    /// Wraps errors, if there are any.
    pub(crate) fn check(mut errors: Vec<ParseError>) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        errors.sort_by_key(|error| error.span.start);
        errors.truncate(Self::LIMIT);
        Err(Self { errors })
    }

    /// The first one.
    pub fn first(&self) -> &ParseError {
        &self.errors[0]
    }

    /// All of them.
    pub fn all(&self) -> &[ParseError] {
        &self.errors
    }
}

impl From<ParseError> for ParseErrors {
    fn from(error: ParseError) -> Self {
        Self {
            errors: vec![error],
        }
    }
}

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first())?;
        match self.errors.len() {
            1 => Ok(()),
            2 => write!(f, " (and one more error)"),
            n => write!(f, " (and {} more errors)", n - 1),
        }
    }
}

impl std::error::Error for ParseErrors {}
