//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The operating system refused.
    Io,
    /// The disk or a quota is full.
    NoSpace,
    /// The store was written by a newer version.
    TooNew,
    /// Something in the store is not what its name says.
    Corrupt,
    /// What was asked for is not there.
    NotFound,
    /// Others use the store, or clean it.
    Busy,
}

/// A failed operation on the store.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    context: String,
    source: Option<io::Error>,
}

impl StoreError {
    /// An error that a user of the store finds, such as an image without one of its layers.
    pub fn new(kind: StoreErrorKind, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// The operating system's error at a place.
    pub(crate) fn io(what: &str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::NoSpace,
            io::ErrorKind::NotFound => StoreErrorKind::NotFound,
            _ => StoreErrorKind::Io,
        };
        Self {
            kind,
            context: format!("{what} {}", path.display()),
            source: Some(source),
        }
    }

    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.context)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|error| error as &(dyn std::error::Error + 'static))
    }
}

/// Gives an [`io::Error`] its place.
pub(crate) trait At<T> {
    fn at(self, what: &str, path: &Path) -> Result<T, StoreError>;
}

impl<T> At<T> for Result<T, io::Error> {
    fn at(self, what: &str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::io(what, path, error))
    }
}

impl<T> At<T> for Result<T, rustix::io::Errno> {
    fn at(self, what: &str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::io(what, path, error.into()))
    }
}

/// Makes a directory and its parents, readable by the owner only.
pub(crate) fn make_dir(path: PathBuf) -> Result<PathBuf, StoreError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .at("cannot make directory", &path)?;
    Ok(path)
}
