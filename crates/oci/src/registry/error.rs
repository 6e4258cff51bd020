//! What can go wrong between us and a registry.

use std::error::Error;
use std::time::Duration;

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryErrorKind {
    /// The registry has no such image, tag or blob.
    NotFound,
    /// Credentials are missing or not enough.
    Unauthorized,
    /// Credentials are configured but cannot be read.
    Credentials,
    /// No connection: unknown host, refused, TLS.
    Connect,
    /// The server fell silent.
    Timeout,
    /// The connection ended in the middle.
    Dropped,
    /// The registry asks to come back later (429).
    RateLimited,
    /// The registry failed (5xx).
    Server,
    /// The registry refuses the request (other 4xx).
    Refused,
    /// The answer breaks the protocol.
    Protocol,
    /// The content is not what its digest or size says.
    Corrupt,
    /// The answer is over a limit.
    TooLarge,
    /// A manifest, index or config is not valid.
    Document,
    /// The image exists, but not for the wanted platform.
    Platform,
    /// What was downloaded could not be handed on, or what is to be uploaded could not be read.
    Local,
    /// Somebody asked for a stop.
    Stopped,
}

/// A failed operation on a registry. The text names the reference and, for content, the digest.
#[derive(Debug, thiserror::Error)]
#[error("{context}")]
pub struct RegistryError {
    kind: RegistryErrorKind,
    context: String,
    /// What the server asked for in `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl RegistryError {
    pub(super) fn new(kind: RegistryErrorKind, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            retry_after: None,
            source: None,
        }
    }

    pub(super) fn with(
        kind: RegistryErrorKind,
        context: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            context: context.into(),
            retry_after: None,
            source: Some(source.into()),
        }
    }

    /// Puts what was attempted in front of why it failed.
    pub(super) fn during(self, what: impl Into<String>) -> Self {
        Self {
            kind: self.kind,
            context: what.into(),
            retry_after: self.retry_after,
            source: Some(Box::new(self)),
        }
    }

    /// What went wrong, to match on.
    pub fn kind(&self) -> RegistryErrorKind {
        self.kind
    }
}
