//! `RunDir`: the directory of one running machine, and the user it runs as.
//!
//! ```text
//! <base>/                  0711, ours          $XDG_RUNTIME_DIR/firebuild, or /run/firebuild for root
//! └── <short id>/          0700, ours          gone with the machine, and at reboot
//!     ├── lock             held (flock) as long as the owner of the machine lives
//!     ├── remainders.json  what else there is of the machine on this host, written before it is made
//!     └── *.sock           control sockets of the owner; the VMM itself gets connected descriptors, never a path
//! ```
//!
//! The lock is the proof of life: who takes it has found a dead machine and may remove what is left of it.

use fs_err::os::unix::fs::OpenOptionsExt;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::remainder;
use crate::uid::{UidError, UidLease};

/// Longest path of a Unix socket in bytes: `sun_path` of `sockaddr_un` is 108 with its final NUL (`unix(7)`).
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Characters of a machine's name that name its run dir.
pub const SHORT_ID_BYTES: usize = 12;

const LOCK: &str = "lock";

/// The directory of one running machine.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    user: Option<(u32, u32)>,
    /// Held as long as this value lives; `None` for a run dir that is only spoken of.
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    _lock: OwnedFd,
    /// Kept for its lock: the id is free again when it is dropped.
    _user: Option<UidLease>,
}

/// A run dir that cannot be made or used.
#[derive(Debug)]
pub struct RunDirError {
    kind: RunDirErrorKind,
    path: PathBuf,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What is wrong with a run dir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunDirErrorKind {
    /// The path of a socket in it would have this many bytes, which is more than [`MAX_SOCKET_PATH_BYTES`].
    PathTooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// A machine of this name runs.
    InUse,
    /// The base directory belongs to another user, or others may write to it.
    Unsafe,
    /// The name cannot be a file name.
    Name,
    /// No user could be had for the machine.
    User,
    /// The kernel refused an operation.
    Io,
}

impl RunDirError {
    fn new(kind: RunDirErrorKind, path: &Path) -> Self {
        Self {
            kind,
            path: path.to_owned(),
            source: None,
        }
    }

    fn io(path: &Path, source: io::Error) -> Self {
        Self {
            kind: RunDirErrorKind::Io,
            path: path.to_owned(),
            source: Some(Box::new(source)),
        }
    }

    fn user(path: &Path, source: UidError) -> Self {
        Self {
            kind: RunDirErrorKind::User,
            path: path.to_owned(),
            source: Some(Box::new(source)),
        }
    }

    /// What to match on.
    #[must_use]
    pub fn kind(&self) -> RunDirErrorKind {
        self.kind
    }
}

impl fmt::Display for RunDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.kind {
            RunDirErrorKind::PathTooLong { bytes } => write!(
                f,
                "path of the socket {path} has {bytes} bytes, a Unix socket takes at most {MAX_SOCKET_PATH_BYTES}; \
                 set XDG_RUNTIME_DIR to a shorter directory"
            ),
            RunDirErrorKind::InUse => write!(f, "a machine runs in {path} already"),
            RunDirErrorKind::Unsafe => {
                write!(
                    f,
                    "{path} is not a directory that belongs to this user and that only he can write to"
                )
            }
            RunDirErrorKind::Name => write!(f, "{path} is not a name for a run dir"),
            RunDirErrorKind::User => write!(f, "no user for the machine in {path}"),
            RunDirErrorKind::Io => write!(f, "cannot use the run dir {path}"),
        }
    }
}

impl std::error::Error for RunDirError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl RunDir {
    /// Makes the run dir of a machine under `base`, locks it, and, when the caller is root, takes a user for the machine.
    ///
    /// What a dead machine of the same name left is removed first.
    ///
    /// # Errors
    /// A socket path that would be too long (`control.sock` is counted), a live machine of that name, a base that others
    /// can write to, no free user.
    pub fn create(base: &Path, id: &str) -> Result<Self, RunDirError> {
        let path = Self::place(base, id)?;
        socket_in(&path, "control.sock")?;
        make_base(base)?;
        // Until it is locked it would look like that of a dead machine.
        let _making = quiesce(base)?;
        if path.symlink_metadata().is_ok() {
            reclaim(&path)?;
        }
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|source| {
                let taken = source.kind() == io::ErrorKind::AlreadyExists;
                if taken {
                    RunDirError::new(RunDirErrorKind::InUse, &path)
                } else {
                    RunDirError::io(&path, source)
                }
            })?;
        let lock = match lock(&path)? {
            Some(lock) => lock,
            None => return Err(RunDirError::new(RunDirErrorKind::InUse, &path)),
        };
        let lease = if rustix::process::geteuid().is_root() {
            Some(UidLease::acquire().map_err(|source| {
                // Nothing is in it yet but the lock; a failure to remove it would hide the reason.
                let _ = fs::remove_dir_all(&path);
                RunDirError::user(&path, source)
            })?)
        } else {
            None
        };
        let user = lease.as_ref().map(|lease| (lease.uid(), lease.uid()));
        Ok(Self {
            path,
            user,
            held: Some(Held {
                _lock: lock,
                _user: lease,
            }),
        })
    }

    /// The run dir that a machine would get, for a plan that is only shown: nothing is made. `user` is the uid and gid
    /// that the machine would run as, `None` for those of the caller.
    ///
    /// # Errors
    /// A socket path that would be too long, a name that is none.
    pub fn dry(base: &Path, id: &str, user: Option<(u32, u32)>) -> Result<Self, RunDirError> {
        let path = Self::place(base, id)?;
        socket_in(&path, "control.sock")?;
        Ok(Self {
            path,
            user,
            held: None,
        })
    }

    /// Where the run dir of a machine is: under `base`, named by the first [`SHORT_ID_BYTES`] of its name.
    ///
    /// # Errors
    /// A name that cannot be a file name.
    pub fn place(base: &Path, id: &str) -> Result<PathBuf, RunDirError> {
        let short = id.get(..SHORT_ID_BYTES).unwrap_or(id);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if short.is_empty() || !short.bytes().all(plain) {
            return Err(RunDirError::new(RunDirErrorKind::Name, Path::new(id)));
        }
        Ok(base.join(short))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// User and group that the machine's processes become; `None` keeps those of the caller, who is not root then.
    #[must_use]
    pub fn user(&self) -> Option<(u32, u32)> {
        self.user
    }

    /// Path of a socket in it.
    ///
    /// # Errors
    /// A path longer than [`MAX_SOCKET_PATH_BYTES`].
    pub fn socket(&self, name: &str) -> Result<PathBuf, RunDirError> {
        socket_in(&self.path, name)
    }

    /// Removes the directory and gives the user back. Removing what is gone already is no error.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(self) -> Result<(), RunDirError> {
        if self.held.is_none() {
            return Ok(());
        }
        remove_all(&self.path)
    }
}

/// Keeps run dirs from being made under `base`, as long as the value lives: one that is not locked then is a dead
/// machine's. Waits for those that are being made.
///
/// # Errors
/// When `base` is not there or cannot be locked.
pub fn quiesce(base: &Path) -> Result<OwnedFd, RunDirError> {
    let failed = |source: rustix::io::Errno| RunDirError::io(base, source.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(base, flags, Mode::empty()).map_err(failed)?;
    loop {
        match rustix::fs::flock(&dir, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            locked => return locked.map(|()| dir).map_err(failed),
        }
    }
}

/// Whether the owner of the machine in this run dir lives.
///
/// # Errors
/// When the lock cannot be asked.
pub fn is_alive(path: &Path) -> Result<bool, RunDirError> {
    match lock(path) {
        Ok(Some(_free_again)) => Ok(false),
        Ok(None) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the run dir of a machine whose owner has died, after what it lists as left elsewhere.
///
/// # Errors
/// [`RunDirErrorKind::InUse`] while the owner lives; when something cannot be removed.
pub fn reclaim(path: &Path) -> Result<(), RunDirError> {
    let held = match lock(path) {
        Ok(Some(held)) => Some(held),
        Ok(None) => return Err(RunDirError::new(RunDirErrorKind::InUse, path)),
        // Killed between the making of the directory and of its lock.
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    // What is listed in it goes first; as long as something is left of that, the list is kept.
    let removed = remainder::remove_recorded(path)
        .map_err(|source| RunDirError::io(path, source))
        .and_then(|()| remove_all(path));
    drop(held);
    removed
}

impl RunDirError {
    fn is_not_found(&self) -> bool {
        let source = self
            .source
            .as_ref()
            .and_then(|source| source.downcast_ref::<io::Error>());
        source.is_some_and(|source| source.kind() == io::ErrorKind::NotFound)
    }
}

fn socket_in(dir: &Path, name: &str) -> Result<PathBuf, RunDirError> {
    let path = dir.join(name);
    let bytes = path.as_os_str().as_bytes().len();
    if bytes > MAX_SOCKET_PATH_BYTES {
        return Err(RunDirError::new(
            RunDirErrorKind::PathTooLong { bytes },
            &path,
        ));
    }
    Ok(path)
}

fn make_base(base: &Path) -> Result<(), RunDirError> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(base);
    made.map_err(|source| RunDirError::io(base, source))?;
    let found = fs::symlink_metadata(base).map_err(|source| RunDirError::io(base, source))?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if !found.is_dir() || !ours || found.permissions().mode() & 0o022 != 0 {
        return Err(RunDirError::new(RunDirErrorKind::Unsafe, base));
    }
    Ok(())
}

/// Takes the lock of a run dir; `None` when somebody else has it.
fn lock(path: &Path) -> Result<Option<OwnedFd>, RunDirError> {
    let name = path.join(LOCK);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = options
        .open(&name)
        .map_err(|source| RunDirError::io(&name, source))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file.into_file().into())),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(source) => Err(RunDirError::io(&name, source.into())),
    }
}

fn remove_all(path: &Path) -> Result<(), RunDirError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(RunDirError::io(path, source))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
