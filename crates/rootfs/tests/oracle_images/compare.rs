//! Two directories side by side: everything that `lstat`, `listxattr`, `readlink` and `read` tell, without our own
//! walker.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// All differences, but for the sizes of directories.
pub(crate) fn differences(a: &Path, b: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut links = [BTreeMap::new(), BTreeMap::new()];
    let mut todo = vec![PathBuf::new()];
    while let Some(at) = todo.pop() {
        let (x, y) = (a.join(&at), b.join(&at));
        let (p, q) = (x.symlink_metadata().unwrap(), y.symlink_metadata().unwrap());
        let mut differ = |what: &str, x: String, y: String| {
            if x != y {
                found.push(format!("{}: {what} {x} and {y}", at.display()));
            }
        };
        differ("stat", stat(&p), stat(&q));
        differ("attributes", attributes(&x), attributes(&y));
        if !p.is_dir() {
            differ(
                "first name",
                first(&mut links[0], &p, &at),
                first(&mut links[1], &q, &at),
            );
        }
        if p.is_symlink() && q.is_symlink() {
            let target = |path: &Path| format!("{:?}", fs_err::read_link(path).unwrap());
            differ("target", target(&x), target(&y));
        } else if p.is_file() && q.is_file() {
            if let Some(position) = content(&x, &y) {
                found.push(format!("{}: content at {position}", at.display()));
            }
            // What was sparse is not larger.
            if q.blocks() > p.blocks().next_multiple_of(8) + 8 * 4 {
                found.push(format!(
                    "{}: {} blocks and {}",
                    at.display(),
                    p.blocks(),
                    q.blocks()
                ));
            }
        } else if p.is_dir() && q.is_dir() {
            let (names, others) = (names(&x), names(&y));
            for name in names.difference(&others) {
                found.push(format!("{}: only in the first", at.join(name).display()));
            }
            for name in others.difference(&names) {
                found.push(format!("{}: only in the second", at.join(name).display()));
            }
            todo.extend(names.intersection(&others).map(|name| at.join(name)));
        }
    }
    found
}

fn stat(meta: &Metadata) -> String {
    let size = if meta.is_dir() { 0 } else { meta.size() };
    let device = if meta.file_type().is_block_device() || meta.file_type().is_char_device() {
        meta.rdev()
    } else {
        0
    };
    // The kernel's own rule for a directory is 2 and one for each directory in it; not every file system follows it.
    let links = if meta.is_dir() { 0 } else { meta.nlink() };
    format!(
        "mode {:o} owner {}:{} links {links} size {size} device {device:x} time {}.{:09}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    )
}

fn first(known: &mut BTreeMap<u64, PathBuf>, meta: &Metadata, at: &Path) -> String {
    known
        .entry(meta.ino())
        .or_insert_with(|| at.into())
        .display()
        .to_string()
}

fn names(dir: &Path) -> std::collections::BTreeSet<OsString> {
    fs_err::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect()
}

fn attributes(path: &Path) -> String {
    let mut list = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let mut out = BTreeMap::new();
    for name in list[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0; 65536];
        let len = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
        value.truncate(len);
        out.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    format!("{out:x?}")
}

/// Where two files differ. What is a hole in both is not read.
fn content(a: &Path, b: &Path) -> Option<u64> {
    const CHUNK: u64 = 1 << 20;
    let (a, b) = (File::open(a).unwrap(), File::open(b).unwrap());
    let mut position = 0;
    let end = a.metadata().unwrap().len();
    while let Some(data) = next_data(&a, position)
        .into_iter()
        .chain(next_data(&b, position))
        .min()
    {
        let len = usize::try_from(CHUNK.min(end - data)).unwrap();
        let (mut x, mut y) = (vec![0; len], vec![0; len]);
        a.read_exact_at(&mut x, data).unwrap();
        b.read_exact_at(&mut y, data).unwrap();
        if x != y {
            return Some(data);
        }
        position = data + len as u64;
    }
    None
}

/// Where the next data is, not before `from`.
fn next_data(file: &File, from: u64) -> Option<u64> {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Data(from)).ok()
}
