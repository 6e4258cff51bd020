//! A user for each machine: root never starts a VMM as root, and no two machines share a user.
//!
//! Ids come from a range that no user database gives out. A locked file in [`LOCK_DIR`] marks an id as taken; the lock
//! ends with its process, so a killed monitor gives its id back without a clean-up.
//!
//! The range is 1,900,000,000 to 1,900,065,535: systemd lists 1,879,048,192 to 2,147,483,647 as unused (`UIDS-GIDS.md`).
//! Inside a user namespace that does not map it, 63,000 to 63,999 are taken, which no distribution assigns.

use fs_err::os::unix::fs::OpenOptionsExt;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::FlockOperation;

/// Where taken ids are locked, for all users of this host.
pub const LOCK_DIR: &str = "/run/firebuild-uids";

const RANGES: [Range<u32>; 2] = [1_900_000_000..1_900_065_536, 63_000..64_000];

/// An id that no other machine has as long as this value lives. User and group have the same number.
#[derive(Debug)]
pub struct UidLease {
    uid: u32,
    path: PathBuf,
    _lock: OwnedFd,
}

/// No id could be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum UidError {
    /// This user namespace maps none of the ranges.
    NotMapped,
    /// All ids are taken.
    Exhausted,
    /// A lock cannot be made.
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for UidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped => f.write_str(
                "this user namespace maps neither the ids from 1900000000 nor those from 63000; map them, or run as an ordinary user",
            ),
            Self::Exhausted => write!(f, "every id for machines is taken, see {LOCK_DIR}"),
            Self::Io { path, .. } => write!(f, "cannot lock {}", path.display()),
        }
    }
}

impl std::error::Error for UidError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::NotMapped | Self::Exhausted => None,
        }
    }
}

/// The user that the next machine of this caller would get if nothing else ran, for plans that are only shown; `None`
/// for an ordinary user, whose machines keep his own.
///
/// # Errors
/// When this user namespace maps none of the ranges.
pub fn planned() -> Result<Option<(u32, u32)>, UidError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let first = mapped_range()?.start;
    Ok(Some((first, first)))
}

fn mapped_range() -> Result<Range<u32>, UidError> {
    let path = Path::new("/proc/self/uid_map");
    let map = fs::read_to_string(path).map_err(|source| UidError::Io {
        path: path.to_owned(),
        source,
    })?;
    RANGES
        .into_iter()
        .find(|range| is_mapped(&map, range))
        .ok_or(UidError::NotMapped)
}

impl UidLease {
    /// Takes the first free id.
    ///
    /// # Errors
    /// When none is mapped or free, or a lock cannot be made. Needs root.
    pub fn acquire() -> Result<Self, UidError> {
        Self::acquire_in(Path::new(LOCK_DIR), mapped_range()?)
    }

    fn acquire_in(dir: &Path, range: Range<u32>) -> Result<Self, UidError> {
        let failed = |path: &Path, source| UidError::Io {
            path: path.to_owned(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| failed(dir, source))?;
        for uid in range {
            let path = dir.join(uid.to_string());
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(false);
            options
                .mode(0o600)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
            let file = options
                .open(&path)
                .map_err(|source| failed(&path, source))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => continue,
                Err(source) => return Err(failed(&path, source.into())),
            }
            // The file may have been unlinked by its last holder between open and lock: then the lock guards nothing.
            if is_same_file(&file, &path) {
                return Ok(Self {
                    uid,
                    path,
                    _lock: file.into_file().into(),
                });
            }
        }
        Err(UidError::Exhausted)
    }

    /// The id.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }
}

/// Removes the locks of ids whose holders were killed; they hold nothing, and are no more than files that nobody needs.
/// Gives their number.
///
/// # Errors
/// The first that cannot be removed.
pub fn sweep() -> Result<usize, UidError> {
    sweep_in(Path::new(LOCK_DIR))
}

fn sweep_in(dir: &Path) -> Result<usize, UidError> {
    let failed = |path: &Path, source| UidError::Io {
        path: path.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(|source| failed(dir, source))?,
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        if entry
            .file_name()
            .to_str()
            .is_none_or(|name| name.parse::<u32>().is_err())
        {
            continue;
        }
        let Ok(file) = fs::File::open(&path) else {
            continue; // given back meanwhile
        };
        let free = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Who opened it before it goes, and locks it after, sees that it is no longer the one of that name.
        if free && is_same_file(&file, &path) {
            fs::remove_file(&path).map_err(|source| failed(&path, source))?;
            removed += 1;
        }
    }
    Ok(removed)
}

impl Drop for UidLease {
    fn drop(&mut self) {
        // Before the lock goes, so that nobody holds the lock of a file that is about to vanish.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_same_file(file: &fs::File, path: &Path) -> bool {
    let Ok(named) = rustix::fs::lstat(path) else {
        return false;
    };
    rustix::fs::fstat(file)
        .is_ok_and(|held| (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino))
}

/// Whether a line of `uid_map` (`user_namespaces(7)`: inside, outside, length) maps the whole range.
fn is_mapped(map: &str, range: &Range<u32>) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(inside)), Some(Ok(_)), Some(Ok(length))) =
            (fields.next(), fields.next(), fields.next())
        else {
            return false;
        };
        inside <= range.start.into() && u64::from(range.end) <= inside.saturating_add(length)
    })
}

#[cfg(test)]
mod tests {
    use super::{RANGES, UidError, UidLease, is_mapped};

    #[test]
    fn maps_are_read() {
        let [high, low] = RANGES;
        assert!(is_mapped("         0          0 4294967295\n", &high));
        assert!(!is_mapped("0 100000 65536\n", &high));
        assert!(is_mapped("0 100000 65536\n", &low));
        assert!(!is_mapped("0 1000 1\n1 100000 63500\n", &low));
        assert!(!is_mapped("", &low));
        assert!(!is_mapped("a b c\n", &low));
    }

    #[test]
    fn no_two_leases_share_an_id() {
        let dir = tempfile::tempdir().unwrap();
        let range = 63_000..63_002;
        let first = UidLease::acquire_in(dir.path(), range.clone()).unwrap();
        let second = UidLease::acquire_in(dir.path(), range.clone()).unwrap();
        assert_eq!((first.uid(), second.uid()), (63_000, 63_001));
        assert!(matches!(
            UidLease::acquire_in(dir.path(), range.clone()),
            Err(UidError::Exhausted)
        ));
        drop(first);
        assert_eq!(
            UidLease::acquire_in(dir.path(), range).unwrap().uid(),
            63_000
        );
        drop(second);
        // A killed holder leaves a file without a lock; a living one is not touched.
        fs_err::write(dir.path().join("63001"), "").unwrap();
        fs_err::write(dir.path().join("stranger"), "").unwrap();
        let held = UidLease::acquire_in(dir.path(), 63_000..63_001).unwrap();
        assert_eq!(super::sweep_in(dir.path()).unwrap(), 1);
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 2);
        drop(held);
        fs_err::remove_file(dir.path().join("stranger")).unwrap();
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
    }
}
