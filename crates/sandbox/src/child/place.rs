//! Finding the places of mounts in a step's root, and making those that are missing.
//!
//! Paths are resolved by hand, component by component, as they would be inside of the root: a link that is absolute or
//! climbs stays in it. Whatever had to be made is remembered, together with the time of the directory it was made in, so
//! that it can leave no trace.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, fstat, openat2, readlinkat, statat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Result;
use crate::job::{Failure, FailureKind};

/// As many links as the kernel follows (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// What a place is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Directory,
    File,
}

/// Something that was made for a mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stub {
    /// Path from the root.
    pub(super) path: Vec<u8>,
    pub(super) directory: bool,
    /// Time of the directory it is in, before and after it was made.
    pub(super) before: Moment,
    pub(super) after: Moment,
}

/// Seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moment(pub(super) i64, pub(super) i64);

impl Moment {
    pub(super) fn of(directory: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let stat = fstat(directory)?;
        Ok(Self(
            stat.st_mtime,
            i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ))
    }

    pub(super) fn timespec(self) -> Timespec {
        Timespec {
            tv_sec: self.0,
            tv_nsec: self.1,
        }
    }
}

/// Opens what is at `path` in `root`, all links followed inside of it. `None` when there is nothing.
pub(super) fn find(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<Option<OwnedFd>> {
    let path = relative(path);
    match openat2(
        root,
        &path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    ) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A path without the leading slash, and `.` for the root.
fn relative(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        path.to_owned()
    }
}

/// Opens (`O_PATH`) what is at `path` in `root` and makes it when it is missing, with the directories on the way.
pub(super) fn make(
    root: BorrowedFd<'_>,
    path: &Path,
    want: Want,
    stubs: &mut Vec<Stub>,
) -> Result<OwnedFd> {
    let fail = |message: &str, error: Errno| {
        Failure::caused(
            FailureKind::Step,
            format!("cannot mount at {}: {message}", path.display()),
            &error,
        )
    };
    // The rest of the way, last component first; `at` is where we are, never through a link.
    let mut todo: Vec<Vec<u8>> = components(path.as_os_str().as_bytes());
    let mut at: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            at.pop();
            continue;
        }
        let here = at.last().map_or(root, |(_, fd)| fd.as_fd());
        let last = todo.is_empty();
        match statat(here, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(fail("too many symbolic links", Errno::LOOP));
                }
                let target = readlinkat(here, name.as_slice(), Vec::new())
                    .map_err(|error| fail("cannot read a symbolic link", error))?;
                if target.as_bytes().starts_with(b"/") {
                    at.clear();
                }
                todo.extend(components(target.as_bytes()));
                continue;
            }
            Ok(_) => {}
            Err(Errno::NOENT) => {
                let before = Moment::of(here)
                    .map_err(|error| fail("cannot look at its directory", error))?;
                let directory = !last || want == Want::Directory;
                if directory {
                    rustix::fs::mkdirat(here, name.as_slice(), Mode::from_raw_mode(0o755))
                } else {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    rustix::fs::openat(here, name.as_slice(), flags, Mode::from_raw_mode(0o644))
                        .map(drop)
                }
                .map_err(|error| fail("cannot make a place for it", error))?;
                let after = Moment::of(here)
                    .map_err(|error| fail("cannot look at its directory", error))?;
                let path = at
                    .iter()
                    .map(|(name, _)| name)
                    .chain([&name])
                    .fold(Vec::new(), joined);
                stubs.push(Stub {
                    path,
                    directory,
                    before,
                    after,
                });
            }
            Err(error) => return Err(fail("cannot look at the way to it", error)),
        }
        let mut flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if !last {
            flags |= OFlags::DIRECTORY;
        }
        let fd = rustix::fs::openat(here, name.as_slice(), flags, Mode::empty())
            .map_err(|error| fail("cannot open the way to it", error))?;
        at.push((name, fd));
    }
    match at.pop() {
        Some((_, fd)) => Ok(fd),
        None => rustix::fs::openat(root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| fail("cannot open the root", error)),
    }
}

fn joined(mut path: Vec<u8>, name: &Vec<u8>) -> Vec<u8> {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(name);
    path
}

/// The names of a path, last first, without `.` and what is empty.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .rev()
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

/// Removes what was made for mounts from a step's upper directory, where it is still what was made: an empty directory
/// or file. A directory whose time nobody has changed since gets the time back that it had.
///
/// The tree belongs to whatever ran in the step, so no link is followed. What cannot be removed stays: it is then
/// something that the step has moved or filled.
pub(super) fn remove_stubs(upper: BorrowedFd<'_>, stubs: &[Stub]) {
    for stub in stubs.iter().rev() {
        let path = Path::new(OsStr::from_bytes(&stub.path));
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            continue;
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let Ok(directory) = openat2(upper, relative(parent), flags, Mode::empty(), resolve) else {
            continue;
        };
        let untouched = Moment::of(directory.as_fd()).is_ok_and(|time| time == stub.after);
        let removed = if stub.directory {
            rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR)
        } else {
            match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat)
                    if stat.st_size == 0
                        && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile =>
                {
                    rustix::fs::unlinkat(&directory, name, AtFlags::empty())
                }
                _ => continue,
            }
        };
        if removed.is_ok() && untouched {
            let omit = Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_OMIT,
            };
            let times = rustix::fs::Timestamps {
                last_access: omit,
                last_modification: stub.before.timespec(),
            };
            let _ = rustix::fs::futimens(&directory, &times);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;

    use rustix::fs::OFlags;

    use super::{Want, find, make, remove_stubs};

    fn setup() -> (tempfile::TempDir, std::fs::File) {
        let directory = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(directory.path()).unwrap();
        (directory, root)
    }

    #[test]
    fn links_stay_inside_and_stubs_go_again() {
        let (directory, root) = setup();
        let path = directory.path();
        fs_err::create_dir_all(path.join("etc")).unwrap();
        std::os::unix::fs::symlink(
            "/../../run/systemd/resolv.conf",
            path.join("etc/resolv.conf"),
        )
        .unwrap();
        std::os::unix::fs::symlink("etc", path.join("e")).unwrap();
        let before = fs_err::metadata(path).unwrap().modified().unwrap();

        let mut stubs = Vec::new();
        make(
            root.as_fd(),
            Path::new("/e/resolv.conf"),
            Want::File,
            &mut stubs,
        )
        .unwrap();
        assert!(path.join("run/systemd/resolv.conf").is_file());
        assert_eq!(stubs.len(), 3);
        make(
            root.as_fd(),
            Path::new("/e/resolv.conf"),
            Want::File,
            &mut stubs,
        )
        .unwrap();
        assert_eq!(stubs.len(), 3, "what is there is not made again");
        assert!(
            find(root.as_fd(), Path::new("/e/resolv.conf"), OFlags::PATH)
                .unwrap()
                .is_some()
        );
        assert!(
            find(root.as_fd(), Path::new("/e/nothing"), OFlags::PATH)
                .unwrap()
                .is_none()
        );

        remove_stubs(root.as_fd(), &stubs);
        assert!(!path.join("run").exists());
        assert_eq!(fs_err::metadata(path).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn what_a_step_has_used_stays() {
        let (directory, root) = setup();
        let path = directory.path();
        let mut stubs = Vec::new();
        make(
            root.as_fd(),
            Path::new("/a/b/c"),
            Want::Directory,
            &mut stubs,
        )
        .unwrap();
        make(root.as_fd(), Path::new("/a/f"), Want::File, &mut stubs).unwrap();
        fs_err::write(path.join("a/f"), "x").unwrap();
        remove_stubs(root.as_fd(), &stubs);
        assert!(!path.join("a/b").exists());
        assert_eq!(fs_err::read(path.join("a/f")).unwrap(), b"x");
    }

    #[test]
    fn a_link_that_a_step_left_is_not_followed() {
        let (directory, root) = setup();
        let outside = tempfile::tempdir().unwrap();
        fs_err::write(outside.path().join("hosts"), "").unwrap();
        let mut stubs = Vec::new();
        make(
            root.as_fd(),
            Path::new("/etc/hosts"),
            Want::File,
            &mut stubs,
        )
        .unwrap();
        fs_err::rename(directory.path().join("etc"), directory.path().join("old")).unwrap();
        std::os::unix::fs::symlink(outside.path(), directory.path().join("etc")).unwrap();
        remove_stubs(root.as_fd(), &stubs);
        assert!(outside.path().join("hosts").exists());
    }

    #[test]
    fn loops_and_files_on_the_way_are_refused() {
        let (directory, root) = setup();
        std::os::unix::fs::symlink("loop", directory.path().join("loop")).unwrap();
        fs_err::write(directory.path().join("file"), "").unwrap();
        let mut stubs = Vec::new();
        assert!(
            make(
                root.as_fd(),
                Path::new("/loop/x"),
                Want::Directory,
                &mut stubs
            )
            .is_err()
        );
        assert!(
            make(
                root.as_fd(),
                Path::new("/file/x"),
                Want::Directory,
                &mut stubs
            )
            .is_err()
        );
        assert!(stubs.is_empty());
    }
}
