//! Why something could not be fetched.

use std::error::Error;

use firebuild_oci::registry::{RegistryError, RegistryErrorKind};
use firebuild_store::StoreError;

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteErrorKind {
    /// There is no such document, reference, commit or directory.
    NotFound,
    /// It is something else than what `--checksum` says.
    Checksum,
    /// The address or a part of it means nothing.
    Address,
    /// The server cannot be reached, fell silent, or refuses.
    Server,
    /// It is over a limit.
    TooLarge,
    /// The git program is missing or failed.
    Git,
    /// The store refused.
    Store,
    /// Somebody asked for a stop.
    Cancelled,
}

/// A failed fetch. The text names what was to be fetched.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    kind: RemoteErrorKind,
    message: String,
    hints: Vec<String>,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl RemoteError {
    pub(crate) fn new(kind: RemoteErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hints: Vec::new(),
            source: None,
        }
    }

    pub(crate) fn caused(
        kind: RemoteErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(kind, message)
        }
    }

    pub(crate) fn store(error: StoreError) -> Self {
        Self::caused(RemoteErrorKind::Store, "the store refused", error)
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(RemoteErrorKind::Cancelled, "the build was stopped")
    }

    pub(super) fn web(what: &str, error: RegistryError) -> Self {
        let kind = match error.kind() {
            RegistryErrorKind::Stopped => return Self::cancelled(),
            RegistryErrorKind::NotFound => RemoteErrorKind::NotFound,
            _ => RemoteErrorKind::Server,
        };
        Self::caused(kind, format!("cannot fetch {what}"), error)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> RemoteErrorKind {
        self.kind
    }

    /// What to do about it.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}
