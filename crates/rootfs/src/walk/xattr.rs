//! Extended attributes of files by directory and name.
//!
//! There is no `llistxattrat` before Linux 6.13, so the path goes through `/proc/self/fd`: the directory is the one that is
//! open, whatever its path leads to by now, and the last component is not followed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::tree::Xattrs;

/// The path of an open directory in `/proc`.
pub(crate) struct ProcPath(Vec<u8>);

impl ProcPath {
    pub(crate) fn new(dir: BorrowedFd<'_>) -> Self {
        Self(format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes())
    }

    pub(crate) fn entry(&self, name: &[u8]) -> Vec<u8> {
        [self.0.as_slice(), name].concat()
    }
}

/// Whether an attribute is content of the file (see the module [`crate::walk`]).
fn is_content(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || matches!(
            name,
            b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
        )
}

pub(super) fn of_fd(fd: BorrowedFd<'_>) -> io::Result<Xattrs> {
    collect(
        |buffer| rustix::fs::flistxattr(fd, buffer),
        |name, buffer| rustix::fs::fgetxattr(fd, name, buffer),
    )
}

pub(super) fn of_entry(dir: &ProcPath, name: &[u8]) -> io::Result<Xattrs> {
    let path = dir.entry(name);
    let path = path.as_slice();
    collect(
        |buffer| rustix::fs::llistxattr(path, buffer),
        |name, buffer| rustix::fs::lgetxattr(path, name, buffer),
    )
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Xattrs> {
    let mut out = Xattrs::new();
    let mut small = [0; 512];
    let names = match list(&mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(out),
        Ok(n) => small[..n].to_vec(),
        Err(Errno::RANGE) => grow(&list)?,
        Err(error) => return Err(error.into()),
    };
    for name in names.split(|&b| b == 0).filter(|n| is_content(n)) {
        let mut small = [0; 512];
        let value = match get(name, &mut small) {
            Ok(n) => small[..n].to_vec(),
            Err(Errno::RANGE) => grow(|buffer: &mut [u8]| get(name, buffer))?,
            // Removed meanwhile, or listed but not to be read (an ACL where the file system has none).
            Err(Errno::NODATA | Errno::OPNOTSUPP) => continue,
            Err(error) => return Err(error.into()),
        };
        out.insert(name.into(), value.into());
    }
    Ok(out)
}

/// Reads with the largest buffer that the kernel ever fills (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
fn grow(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let n = read(&mut buffer)?;
    buffer.truncate(n);
    Ok(buffer)
}
