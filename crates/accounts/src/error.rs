//! Why a `user[:group]` could not be resolved.

use std::error::Error;
use std::fmt;

/// What was wrong with the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The name is in no entry of `/etc/passwd` or `/etc/group`.
    Unknown,
    /// The number is below 0 or above [`MAX_ID`](crate::MAX_ID).
    OutOfRange,
    /// There is a name, and no file system whose files could tell its number.
    NoAccounts,
}

/// Which half of `user[:group]` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    /// The part before the colon.
    User,
    /// The part after the colon.
    Group,
}

/// Why a `user[:group]` could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountsError {
    kind: ErrorKind,
    id: Id,
    text: Box<str>,
}

impl AccountsError {
    pub(crate) fn new(kind: ErrorKind, id: Id, text: &str) -> Self {
        Self {
            kind,
            id,
            text: text.into(),
        }
    }

    /// What was wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Which half of the text it was.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    /// The half of the text that was wrong, as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for AccountsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, file) = match self.id {
            Id::User => ("user", "/etc/passwd"),
            Id::Group => ("group", "/etc/group"),
        };
        let text = &self.text;
        match self.kind {
            ErrorKind::Unknown => write!(
                out,
                "unable to find {what} {text:?}: no such entry in {file}"
            ),
            ErrorKind::OutOfRange => {
                write!(
                    out,
                    "{what} id {text} is out of range: ids go from 0 to {}",
                    crate::MAX_ID
                )
            }
            ErrorKind::NoAccounts => {
                write!(
                    out,
                    "cannot look up {what} {text:?} in an empty file system: use a numeric id"
                )
            }
        }
    }
}

impl Error for AccountsError {}
