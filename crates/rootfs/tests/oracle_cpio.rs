//! GNU cpio reads what is written here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::fd::AsFd;

use common::{needs, sh};
use firebuild_rootfs::cpio::Writer;
use firebuild_rootfs::tree::Kind;
use firebuild_rootfs::walk::{DirContents, WalkOptions, open_root, walk};

#[test]
fn cpio_unpacks_two_archives_in_one_file() {
    if !needs(
        "cpio_unpacks_two_archives_in_one_file",
        &["root", "tool:cpio"],
    ) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    fs_err::create_dir(&from).unwrap();
    fs_err::create_dir(&to).unwrap();
    sh(
        &from,
        "mkdir -p a/b; echo hello > a/b/f; ln a/b/f a/g; ln a/b/f z; ln -s ../x a/l; mkfifo p; mknod c c 1 3
         head -c 300001 /dev/urandom > big; chmod 4711 big; chown 12:34 big; touch -d @1000000000 big a/b/f a",
    );
    let root = open_root(&from).unwrap();
    let tree = walk(root.as_fd(), WalkOptions::default()).unwrap();
    let contents = DirContents::new(root);

    let mut first = Writer::new(Vec::new());
    first.tree(&tree, &contents).unwrap();
    let (bytes, skipped) = first.finish().unwrap();
    assert!(skipped.entries.is_empty());
    let length = bytes.len();
    let mut second = Writer::new(bytes);
    second.file(b"config.json", 0o600, b"{}").unwrap();
    let (bytes, _) = second.finish().unwrap();
    fs_err::write(temp.path().join("initrd"), &bytes).unwrap();

    // cpio stops at the first trailer, as one archive ends there; the kernel goes on.
    sh(&to, "cpio -idm --quiet < ../initrd");
    sh(
        &to,
        &format!("tail -c +{} ../initrd | cpio -idm --quiet", length + 1),
    );
    assert_eq!(fs_err::read(to.join("config.json")).unwrap(), b"{}");
    fs_err::remove_file(to.join("config.json")).unwrap();
    sh(
        temp.path(),
        "differing=$(diff -r --no-dereference from to 2>&1 | grep -Ev 'is a (fifo|character)' || true); [ -z \"$differing\" ]",
    );
    let back = walk(open_root(&to).unwrap().as_fd(), WalkOptions::default()).unwrap();
    for (path, id) in tree.walk().skip(1) {
        let other = back.find(&path).unwrap();
        let (a, b) = (&tree[id], &back[other]);
        assert_eq!(
            (a.meta.mode, a.meta.uid, a.meta.gid, a.names),
            (b.meta.mode, b.meta.uid, b.meta.gid, b.names)
        );
        assert_eq!(a.kind.word(), b.kind.word());
        if matches!(a.kind, Kind::File(_)) {
            assert_eq!(a.meta.mtime.secs, b.meta.mtime.secs, "{path:?}");
        }
    }
    assert_eq!(back[back.find(b"z").unwrap()].names, 3);
}
