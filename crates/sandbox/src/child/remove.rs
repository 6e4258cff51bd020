//! Removing trees of any shape: no recursion, no path longer than a name, no link followed.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::Errno;

/// How many directories are open at the same time. Deeper ones are first moved up.
const MAX_OPEN: usize = 64;

/// Removes whatever is at `path`; nothing there is fine.
pub fn tree(path: &Path) -> io::Result<()> {
    match rustix::fs::openat(CWD, path, flags(), Mode::empty()) {
        Ok(directory) => {
            empty(&directory)?;
            ignore_gone(rustix::fs::rmdir(path))
        }
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => ignore_gone(rustix::fs::unlink(path)),
        Err(error) => Err(error.into()),
    }
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn ignore_gone(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::NOENT) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes everything in a directory.
fn empty(top: &OwnedFd) -> io::Result<()> {
    // The open directories from the top down, each with its name in the one before.
    let mut stack: Vec<(Vec<u8>, OwnedFd)> = Vec::new();
    let mut moved = 0u64;
    loop {
        let here = stack.last().map_or(top.as_fd(), |(_, fd)| fd.as_fd());
        match first_directory(here)? {
            Some(name) if stack.len() < MAX_OPEN => {
                let next = rustix::fs::openat(here, name.as_slice(), flags(), Mode::empty())?;
                stack.push((name, next));
            }
            Some(name) => {
                let to = format!(".removed-{moved}");
                moved += 1;
                match rustix::fs::renameat_with(
                    here,
                    name.as_slice(),
                    top,
                    to.as_str(),
                    RenameFlags::NOREPLACE,
                ) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            None => {
                let Some((name, _)) = stack.pop() else {
                    return Ok(());
                };
                let parent = stack.last().map_or(top.as_fd(), |(_, fd)| fd.as_fd());
                ignore_gone(rustix::fs::unlinkat(
                    parent,
                    name.as_slice(),
                    AtFlags::REMOVEDIR,
                ))?;
            }
        }
    }
}

/// Unlinks what is no directory and removes directories that are empty, until one is found that is not; that one's name.
fn first_directory(directory: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    // A position from before does not survive removals.
    rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 8192];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            _ => false,
        };
        if is_directory {
            match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_vec())),
                Err(error) => return Err(error.into()),
            }
        } else {
            ignore_gone(rustix::fs::unlinkat(directory, name, AtFlags::empty()))?;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{CWD, Mode};

    use super::tree;

    #[test]
    fn deep_and_wide_trees_go() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        fs_err::create_dir(&top).unwrap();
        let mut at: OwnedFd = rustix::fs::openat(CWD, &top, super::flags(), Mode::empty()).unwrap();
        // Far longer than a path may be.
        for level in 0..3000 {
            rustix::fs::mkdirat(at.as_fd(), "deep-directory", Mode::from_raw_mode(0o700)).unwrap();
            if level % 500 == 0 {
                rustix::fs::symlinkat("/etc", at.as_fd(), "link").unwrap();
            }
            at = rustix::fs::openat(at.as_fd(), "deep-directory", super::flags(), Mode::empty())
                .unwrap();
        }
        for number in 0..2000 {
            fs_err::write(top.join(format!("file-{number}")), "").unwrap();
            fs_err::create_dir(top.join(format!("dir-{number}"))).unwrap();
        }
        tree(&top).unwrap();
        assert!(!top.exists());
        assert!(std::path::Path::new("/etc/passwd").exists());
        tree(&top).unwrap();
        fs_err::write(&top, "").unwrap();
        tree(&top).unwrap();
        assert!(!top.exists());
    }
}
