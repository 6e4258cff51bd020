//! The shape of every error of this crate: kind + context + source.
//!
//! * `kind()` is small and is what a caller matches, to choose an exit code or a hint.
//! * `Display` is the context: what was tried, on which thing, and the remedy where one is known.
//!   Lower case, no full stop, and never the text of the source.
//! * `source()` is the cause, for the one place which prints chains.
//!
//! Each family of operations has a kind of its own and an alias, `KernelError` for instance.

use std::error::Error as StdError;
use std::fmt;

/// The cause of an error.
pub type Cause = Box<dyn StdError + Send + Sync + 'static>;

/// An error of an operation family whose kinds are `K`.
#[derive(Debug)]
pub struct Error<K> {
    kind: K,
    context: String,
    source: Option<Cause>,
}

impl<K: Copy> Error<K> {
    /// An error without a deeper cause.
    pub fn new(kind: K, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// An error that something else caused. `context` must not repeat the cause.
    pub fn caused(kind: K, context: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self {
            kind,
            context: context.into(),
            source: Some(source.into()),
        }
    }

    /// What went wrong, for a caller to match.
    pub fn kind(&self) -> K {
        self.kind
    }
}

impl<K> fmt::Display for Error<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl<K: fmt::Debug> StdError for Error<K> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, StdError};

    #[test]
    fn display_is_the_context_and_the_cause_is_the_source() {
        let error = Error::caused(
            7_u8,
            "cannot open the door",
            std::io::Error::other("locked"),
        );
        assert_eq!(error.to_string(), "cannot open the door");
        assert_eq!(error.source().unwrap().to_string(), "locked");
        assert_eq!(error.kind(), 7);
    }
}
