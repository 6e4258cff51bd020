//! What the tests share: source trees, images of them, and e2fsck.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use firebuild_rootfs::ext4::{self, Ext4Error, Options, Summary};
use firebuild_rootfs::tree::{Content, Contents, Opened, Tree};
use firebuild_rootfs::walk::{DirContents, WalkOptions, open_root, walk};

use crate::common::{TORTURE, sh};

/// What the shared torture tree does not have: large directories, all lengths of symbolic links, more sparse files,
/// more devices, larger numbers.
const MORE: &str = r#"
import os, socket
os.mkdir("many")
for i in range(1, 20001):
    os.close(os.open(f"many/file number {i}", os.O_CREAT | os.O_WRONLY))
os.mkdir("dirs")
for i in range(300):
    os.mkdir(f"dirs/{i}")
os.mkdir("links")
for n in (1, 58, 59, 60, 61, 255, 1000, 4093, 4094):
    os.symlink("t" * n, f"links/{n}")
for name, n in (("short", 1), ("long", 1000)):
    os.link(f"links/{n}", f"links/hard-{name}", follow_symlinks=False)
with open("huge-hole", "wb") as f:
    f.truncate(5 << 30)
    f.seek(5368709000)
    f.write(b"x")
with open("segments", "wb") as f:
    f.truncate(64 << 20)
    for i in range(512):
        f.seek(i * 131072 + i)
        f.write(b"segment %d" % i)
for name, kind, major, minor in (("whiteout", 0o20000, 0, 0), ("large", 0o60000, 4095, 1048575), ("old", 0o20000, 255, 255)):
    os.mknod(name, kind | 0o644, os.makedev(major, minor))
socket.socket(socket.AF_UNIX).bind("socket")
os.chown("large", 100000, 2000000000)
open("o", "w").close()
os.chmod("o", 0o6755)
for name, time in (("o", -500000000), ("huge-hole", 2**31 * 10**9 + 999999999), ("segments", 2**32 * 10**9),
                   ("large", (2**34 - 2**31 - 1) * 10**9), ("old", -(2**31) * 10**9)):
    os.utime(name, ns=(time, time))
os.setxattr("dirs", "trusted.overlay.opaque", b"y")
os.setxattr("links/1000", "trusted.t", b"u", follow_symlinks=False)
for i in range(1, 31):
    open(f"attrs-{i}", "w").close()
    for j in range(1, i + 1):
        os.setxattr(f"attrs-{i}", f"user.name-{j}", b"v" * j * 3)
"#;

pub(crate) fn torture(dir: &Path) {
    fs_err::create_dir_all(dir).unwrap();
    sh(dir, TORTURE);
    let script = dir.with_extension("py");
    fs_err::write(&script, MORE).unwrap();
    sh(dir, "python3 ../*.py");
}

pub(crate) const TORTURE_NEEDS: &[&str] = &[
    "root",
    "tool:e2fsck",
    "tool:python3",
    "tool:setfattr",
    "tool:setfacl",
    "tool:setcap",
];

/// The content of a blob, or of nothing but memory.
pub(crate) struct Blob(pub(crate) Arc<File>);

impl Contents for Blob {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        content
            .opened_in(&self.0)
            .ok_or_else(|| io::Error::other("not in the blob"))
    }
}

/// For trees whose content is in memory.
pub(crate) fn memory() -> Blob {
    Blob(Arc::new(File::open("/dev/null").unwrap()))
}

pub(crate) fn scan(dir: &Path) -> (Tree, DirContents) {
    let root = open_root(dir).unwrap();
    let tree = walk(root.as_fd(), WalkOptions::default()).unwrap();
    (tree, DirContents::new(root))
}

pub(crate) fn create(path: &Path) -> File {
    File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

pub(crate) fn try_make(
    tree: &Tree,
    contents: &dyn Contents,
    path: &Path,
    options: &Options,
) -> Result<Summary, Ext4Error> {
    ext4::write(tree, contents, &create(path), options)
}

pub(crate) fn make(
    tree: &Tree,
    contents: &dyn Contents,
    path: &Path,
    options: &Options,
) -> Summary {
    let summary = try_make(tree, contents, path, options).unwrap();
    assert_eq!(fs_err::metadata(path).unwrap().len(), summary.size);
    summary
}

/// An image of a directory.
pub(crate) fn image_of(dir: &Path, path: &Path, options: &Options) -> Summary {
    let (tree, contents) = scan(dir);
    make(&tree, &contents, path, options)
}

/// Expects that `e2fsck -fn` has nothing to say.
pub(crate) fn fsck(image: &Path) {
    let output = Command::new("e2fsck")
        .arg("-fn")
        .arg(image)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // The passes and the line of figures; anything else is a complaint.
    let complaints: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("Pass ") && !line.contains("non-contiguous"))
        .collect();
    assert!(
        output.status.success() && complaints.is_empty(),
        "{}: {text}{}",
        image.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What debugfs answers.
pub(crate) fn debugfs(image: &Path, request: &str) -> String {
    let output = Command::new("debugfs")
        .args(["-R", request])
        .arg(image)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A loop mount that ends with its scope.
pub(crate) struct Mounted {
    pub(crate) at: PathBuf,
}

impl Mounted {
    pub(crate) fn new(image: &Path, at: &Path, options: &str) -> Self {
        Self::of("ext4", image, at, options)
    }

    pub(crate) fn of(kind: &str, image: &Path, at: &Path, options: &str) -> Self {
        fs_err::create_dir_all(at).unwrap();
        let status = Command::new("mount")
            .args(["-t", kind, "-o", &format!("loop,{options}")])
            .args([image, at])
            .status()
            .unwrap();
        assert!(status.success(), "mount {}", image.display());
        Self { at: at.into() }
    }

    pub(crate) fn unmount(self) {}
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.at).status();
        assert!(status.is_ok_and(|s| s.success()) || std::thread::panicking());
    }
}
