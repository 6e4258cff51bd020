//! Why unpacking fails.

use std::fmt;
use std::io;

use crate::path::Shown;

/// Why a layer or tree cannot be unpacked.
#[derive(Debug)]
pub struct UnpackError {
    kind: UnpackErrorKind,
    path: Vec<u8>,
    source: Option<io::Error>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnpackErrorKind {
    /// A directory cannot be made or opened.
    Directory,
    /// A file, link or node cannot be made.
    Create,
    /// A file's content cannot be read from where it is.
    Content,
    /// A file's content cannot be written.
    Write,
    /// Mode or times cannot be set.
    Properties,
    /// The owner cannot be given: it is not mapped in this user name space, or this process is not root.
    Owner {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// A hard link's target is not in the layer.
    Link,
}

impl UnpackError {
    pub(super) fn new(kind: UnpackErrorKind, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self {
            kind,
            path: path.to_vec(),
            source: Some(source.into()),
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> UnpackErrorKind {
        self.kind
    }

    /// The entry.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}

impl fmt::Display for UnpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = Shown(&self.path);
        match self.kind {
            UnpackErrorKind::Directory => write!(f, "cannot make or open the directory {path}"),
            UnpackErrorKind::Create => write!(f, "cannot make {path}"),
            UnpackErrorKind::Content => write!(f, "cannot read the content of {path}"),
            UnpackErrorKind::Write => write!(f, "cannot write {path}"),
            UnpackErrorKind::Properties => write!(f, "cannot set mode, owner or times of {path}"),
            UnpackErrorKind::Owner { uid, gid } => write!(
                f,
                "cannot give {path} to user {uid} and group {gid}, which are not mapped here; \
                 give the user who builds a range of subordinate ids in /etc/subuid and /etc/subgid"
            ),
            UnpackErrorKind::Link => {
                write!(f, "cannot link {path} to a file that was not unpacked")
            }
        }
    }
}

impl std::error::Error for UnpackError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
