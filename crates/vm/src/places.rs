//! Places: what a machine needs in the host's file system while it runs.
//!
//! A jail is a directory of its own, with the files of the machine seen in it and memory for what must not be on a disk.
//! Places are made one after the other. How they are undone is the plan's list of [`crate::remainder`]s, which is written
//! down before the first of them is made; [`remainders`] gives what belongs on it.

use std::fmt;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use serde::{Deserialize, Serialize};

use crate::plan::Access;
use crate::remainder::Remainder;

/// How often a directory that others remove while it is empty is made again.
const SHARED_TRIES: u32 = 16;

/// A user and a group by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Something in the host's file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Place {
    /// A directory of the machine's own.
    Directory {
        /// Where; must not exist yet.
        #[serde(serialize_with = "crate::text::path")]
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Whose it is; `None` is the launcher's.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<Owner>,
    },
    /// A directory that machines share; it is made if it is missing, with those above it.
    Shared {
        /// Where.
        #[serde(serialize_with = "crate::text::path")]
        path: PathBuf,
    },
    /// Memory at a new directory (`tmpfs(5)`), for what must not be on a disk.
    Memory {
        /// Where.
        #[serde(serialize_with = "crate::text::path")]
        path: PathBuf,
    },
    /// An existing file seen at another path: by a hard link where the file system allows one, else by a bind mount.
    Seen {
        /// Where; must not exist yet.
        #[serde(serialize_with = "crate::text::path")]
        path: PathBuf,
        /// The file.
        #[serde(serialize_with = "crate::text::path")]
        source: PathBuf,
        /// Who uses it.
        owner: Owner,
        /// What he may do with it. A file to be written becomes his own; one to be read is only made readable.
        access: Access,
    },
}

/// A place that cannot be made.
#[derive(Debug)]
pub struct PlaceError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.what, self.path.display())
    }
}

impl std::error::Error for PlaceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Place {
    /// Makes it.
    pub(crate) fn make(&self) -> Result<(), PlaceError> {
        match self {
            Self::Directory { path, mode, owner } => directory(path, *mode, *owner),
            Self::Shared { path } => shared(path),
            Self::Memory { path } => memory(path),
            Self::Seen {
                path,
                source,
                owner,
                access,
            } => seen(path, source, *owner, *access),
        }
    }
}

/// What is left of places that lie in a directory which is removed as a whole: their mounts. In the order in which they
/// are to be undone.
#[must_use]
pub fn remainders(places: &[Place]) -> Vec<Remainder> {
    let mounts = places.iter().rev().filter_map(|place| match place {
        Place::Memory { path } | Place::Seen { path, .. } => {
            Some(Remainder::Mount { path: path.clone() })
        }
        Place::Directory { .. } | Place::Shared { .. } => None,
    });
    mounts.collect()
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> PlaceError + 'a {
    move |source| PlaceError {
        what,
        path: path.to_owned(),
        source,
    }
}

fn directory(path: &Path, mode: u32, owner: Option<Owner>) -> Result<(), PlaceError> {
    let failed = failed("make the directory", path);
    let mut tries = 0;
    loop {
        match std::fs::DirBuilder::new().mode(mode).create(path) {
            Ok(()) => break,
            // The shared directory above it was empty for a moment, and another machine's end has removed it.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && tries < SHARED_TRIES
                    && path.parent().is_some_and(|parent| shared(parent).is_ok()) =>
            {
                tries += 1;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    // The process's umask has had its say.
    fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(&failed)?;
    owner
        .map_or(Ok(()), |owner| give(path, owner))
        .map_err(failed)
}

fn shared(path: &Path) -> Result<(), PlaceError> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path);
    made.map_err(failed("make the directory", path))
}

fn memory(path: &Path) -> Result<(), PlaceError> {
    directory(path, 0o711, None)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", path, "tmpfs", flags, Some(c"mode=711"))
        .map_err(|error| failed("mount memory on", path)(error.into()))
}

fn seen(path: &Path, source: &Path, owner: Owner, access: Access) -> Result<(), PlaceError> {
    let shown = failed("show the machine the file", source);
    let found = fs::metadata(source).map_err(&shown)?;
    match access {
        Access::ReadWrite => give(source, owner).map_err(&shown)?,
        Access::Read => make_readable(source, &found, owner).map_err(&shown)?,
    }
    // A block device has no second name on its file system that would help.
    let linked = if found.is_file() {
        rustix::fs::linkat(
            rustix::fs::CWD,
            source,
            rustix::fs::CWD,
            path,
            rustix::fs::AtFlags::SYMLINK_FOLLOW,
        )
    } else {
        Err(Errno::XDEV)
    };
    match linked {
        Ok(()) => Ok(()),
        // Another file system; or one that has no links, or no room for one more.
        Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP) => {
            bind(path, source, access).map_err(shown)
        }
        Err(error) => Err(shown(error.into())),
    }
}

fn bind(path: &Path, source: &Path, access: Access) -> io::Result<()> {
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?;
    drop(made);
    mount_bind(source, path)?;
    let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NOEXEC;
    flags.set(MountFlags::RDONLY, access == Access::Read);
    Ok(mount_remount(path, flags, "")?)
}

fn give(path: &Path, owner: Owner) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    Ok(rustix::fs::chown(path, Some(uid), Some(gid))?)
}

/// A file that machines share: each has a user of its own, so it has to be readable for everyone who gets to it. Whoever
/// is no machine does not: the directories above it are closed.
fn make_readable(path: &Path, found: &std::fs::Metadata, owner: Owner) -> io::Result<()> {
    let mode = found.permissions().mode();
    let readable = if found.uid() == owner.uid {
        mode & 0o400 != 0
    } else if found.gid() == owner.gid {
        mode & 0o040 != 0
    } else {
        mode & 0o004 != 0
    };
    if readable {
        return Ok(());
    }
    fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o444))
}

#[cfg(test)]
mod tests;
