//! What can go wrong on the way into the store.

use std::error::Error;

use firebuild_oci::layout::{LayoutError, LayoutErrorKind};
use firebuild_oci::registry::{RegistryError, RegistryErrorKind};
use firebuild_store::{StoreError, StoreErrorKind};

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferErrorKind {
    /// There is no such image.
    NotFound,
    /// The image exists, but not for the wanted platform.
    Platform,
    /// Credentials are missing, wrong or unreadable.
    Unauthorized,
    /// The registry cannot be reached, or failed.
    Registry,
    /// The content is not what its digest says, or no image.
    Corrupt,
    /// A layer is larger than allowed.
    TooLarge,
    /// The disk is full.
    NoSpace,
    /// The layout or the store cannot be read or written.
    Io,
    /// Somebody asked for a stop.
    Cancelled,
}

/// A failed pull or import.
#[derive(Debug)]
pub struct TransferError {
    kind: TransferErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl TransferError {
    pub(crate) fn new(kind: TransferErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn caused(
        kind: TransferErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            message: message.into(),
            source: Some(source.into()),
        }
    }

    pub(super) fn cancelled() -> Self {
        Self::new(TransferErrorKind::Cancelled, "cancelled")
    }

    pub(super) fn store(message: impl Into<String>, source: StoreError) -> Self {
        let kind = match source.kind() {
            StoreErrorKind::NoSpace => TransferErrorKind::NoSpace,
            StoreErrorKind::Corrupt => TransferErrorKind::Corrupt,
            _ => TransferErrorKind::Io,
        };
        Self::caused(kind, message, source)
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> TransferErrorKind {
        self.kind
    }
}

impl std::fmt::Display for TransferError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

impl Error for TransferError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn Error + 'static))
    }
}

/// The texts of these name reference, digest and path themselves: they take the place of ours.
impl From<RegistryError> for TransferError {
    fn from(error: RegistryError) -> Self {
        let kind = match error.kind() {
            RegistryErrorKind::NotFound => TransferErrorKind::NotFound,
            RegistryErrorKind::Platform => TransferErrorKind::Platform,
            RegistryErrorKind::Unauthorized | RegistryErrorKind::Credentials => {
                TransferErrorKind::Unauthorized
            }
            RegistryErrorKind::Corrupt | RegistryErrorKind::Document => TransferErrorKind::Corrupt,
            RegistryErrorKind::TooLarge => TransferErrorKind::TooLarge,
            _ => TransferErrorKind::Registry,
        };
        Self {
            kind,
            message: error.to_string(),
            source: take_source(error),
        }
    }
}

impl From<LayoutError> for TransferError {
    fn from(error: LayoutError) -> Self {
        let kind = match error.kind() {
            LayoutErrorKind::NoImage => TransferErrorKind::NotFound,
            LayoutErrorKind::Platform => TransferErrorKind::Platform,
            LayoutErrorKind::Io => TransferErrorKind::Io,
            _ => TransferErrorKind::Corrupt,
        };
        Self {
            kind,
            message: error.to_string(),
            source: take_source(error),
        }
    }
}

/// The cause below an error whose own text was taken already.
fn take_source(error: impl Error + Send + Sync + 'static) -> Option<Box<dyn Error + Send + Sync>> {
    error.source()?;
    Some(Box::new(Below(Box::new(error))))
}

/// An error that shows itself as its cause.
#[derive(Debug)]
struct Below(Box<dyn Error + Send + Sync>);

impl Below {
    fn cause(&self) -> &(dyn Error + 'static) {
        self.0.source().unwrap_or(&*self.0)
    }
}

impl std::fmt::Display for Below {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self.cause(), out)
    }
}

impl Error for Below {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause().source()
    }
}
