//! The EROFS writer: what `fsck.erofs`, `dump.erofs` and the kernel make of its images.

use std::path::Path;
use std::process::Command;

use firebuild_rootfs::erofs::{self, ErofsErrorKind, Options, Summary};
use firebuild_rootfs::tar::{Output, ReadOptions, WriteOptions, read_layer, write_tree};
use firebuild_rootfs::tree::{
    Content, Contents, Device, Inode, InodeId, Kind, Meta, Source, Time, Tree,
};

use crate::common::{needs, sh};
use crate::compare::differences;
use crate::images::{Blob, Mounted, TORTURE_NEEDS, create, memory, scan, torture};

fn make(tree: &Tree, contents: &dyn Contents, image: &Path, options: &Options) -> Summary {
    let summary = erofs::write(tree, contents, &create(image), options).unwrap();
    assert_eq!(fs_err::metadata(image).unwrap().len(), summary.size);
    summary
}

/// Expects that `fsck.erofs` reads all of it and has nothing to say.
fn fsck(image: &Path) {
    let output = Command::new("fsck.erofs")
        .args(["-d3", "--extract"])
        .arg(image)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success() && text.contains("No errors found"),
        "{}: {text}",
        image.display()
    );
}

fn dump(image: &Path, arguments: &[&str]) -> String {
    let output = Command::new("dump.erofs")
        .args(arguments)
        .arg(image)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn kernel_has_erofs() -> bool {
    fs_err::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("\terofs"))
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn an_erofs_mount_shows_the_source_tree() {
    let needed = [TORTURE_NEEDS, &["loop", "tool:fsck.erofs"]].concat();
    if !needs("an_erofs_mount_shows_the_source_tree", &needed) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (dir, image, again) = (
        temp.path().join("d"),
        temp.path().join("a.img"),
        temp.path().join("b.img"),
    );
    torture(&dir);
    // Reading 5 GiB of zeros through a mount would take long; chunks of several blocks are what matters here.
    sh(
        &dir,
        "truncate -s 200000000 huge-hole; printf x | dd of=huge-hole bs=1 seek=199999999 conv=notrunc status=none",
    );
    let (tree, contents) = scan(&dir);
    let summary = make(&tree, &contents, &image, &Options::default());
    fsck(&image);
    let text = dump(&image, &["-s"]);
    assert!(
        text.contains("sb_csum") && text.contains("chunked_file"),
        "{text}"
    );

    if kernel_has_erofs() {
        let mounted = Mounted::of("erofs", &image, &temp.path().join("m"), "ro");
        // The kernel counts the blocks of a file from its size. What counts is that holes take no room in the image.
        let mut found = differences(&dir, &mounted.at);
        found.retain(|line| !line.contains(" blocks and "));
        assert_eq!(found, Vec::<String>::new());
        assert!(summary.size < 16 << 20, "{summary:?}");
        sh(
            temp.path(),
            "find m/many | wc -l | grep -qx 20001; test -f 'm/many/file number 12345'",
        );
        sh(
            temp.path(),
            "test $(stat -c %i m) -gt 0; test ! -e m/many/nothing; ! touch m/x 2>/dev/null",
        );
        mounted.unmount();
    } else {
        eprintln!(
            "SKIP an_erofs_mount_shows_the_source_tree: the kernel has no EROFS (fsck.erofs ran)"
        );
    }
    assert_eq!(make(&tree, &contents, &again, &Options::default()), summary);
    sh(temp.path(), "cmp a.img b.img");

    // Again from an archive, which knows no holes: the same tree, the same bytes.
    let mut tree = tree;
    let left_out: Vec<Vec<u8>> = tree
        .walk()
        .filter(|(_, id)| matches!(tree[*id].kind, Kind::Socket))
        .map(|(path, _)| path)
        .collect();
    for path in left_out {
        let (parent, name) = tree.lookup_parent(&path).unwrap();
        tree.remove(parent, &name).unwrap();
    }
    let archive = create(&temp.path().join("a.tar"));
    let options = WriteOptions::default();
    write_tree(&tree, &contents, Output::File(&archive), &options).unwrap();
    let layer = read_layer(&archive, [7; 32], &ReadOptions::default()).unwrap();
    let mut read = Tree::new();
    read.apply(&layer).unwrap();
    make(&tree, &contents, &image, &Options::default());
    make(&read, &Blob(archive.into()), &again, &Options::default());
    sh(temp.path(), "cmp a.img b.img");
}

fn file(content: Content) -> Inode {
    Inode::new(Meta::default(), Kind::File(content))
}

#[test]
fn sizes_around_a_block_and_attributes_of_all_sizes() {
    if !needs(
        "sizes_around_a_block_and_attributes_of_all_sizes",
        &["tool:fsck.erofs"],
    ) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    let sizes = [
        0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 12_000, 70_000,
    ];
    for size in sizes {
        for (what, byte) in [("data", 7u8), ("zeros", 0)] {
            let inode = file(Content::from_bytes(vec![byte; size]));
            let name = format!("{what}-{size}");
            tree.insert(InodeId::ROOT, name.as_bytes(), inode).unwrap();
        }
    }
    for len in [1usize, 100, 3000, 4000, 4100, 20_000, 65_535] {
        let mut inode = file(Content::from_bytes(vec![b'x'; 50]));
        let value = vec![b'v'; len].into();
        inode.meta.xattrs.insert(b"user.a".as_slice().into(), value);
        let name = format!("attribute-{len}");
        tree.insert(InodeId::ROOT, name.as_bytes(), inode).unwrap();
    }
    let image = temp.path().join("a.img");
    let options = Options {
        label: b"firebuild".to_vec(),
        epoch: Some(1_600_000_000),
        ..Options::default()
    };
    make(&tree, &memory(), &image, &options);
    fsck(&image);
    assert!(
        dump(&image, &["-s"]).contains("Filesystem created:                           Sun Sep 13")
    );
    sh(temp.path(), "fsck.erofs --extract=out a.img");
    for size in sizes {
        let read =
            |what: &str| fs_err::read(temp.path().join(format!("out/{what}-{size}"))).unwrap();
        assert!(read("data") == vec![7; size], "{size}");
        // erofs-utils 1.5 leaves out a hole at the end of what it extracts; the kernel is asked below.
        assert!(read("zeros").iter().all(|byte| *byte == 0), "{size}");
    }
    if needs("attributes_of_all_sizes", &["root", "loop"]) && kernel_has_erofs() {
        let mounted = Mounted::of("erofs", &image, &temp.path().join("m"), "ro");
        for (path, id) in tree.walk() {
            let path = mounted.at.join(String::from_utf8(path).unwrap());
            let mut value = vec![0; 70_000];
            for (name, wanted) in &tree[id].meta.xattrs {
                let len = rustix::fs::lgetxattr(&path, &**name, &mut value[..]).unwrap();
                assert!(value[..len] == **wanted, "{}", path.display());
            }
            if let Kind::File(Content {
                source: Source::Bytes(bytes),
                ..
            }) = &tree[id].kind
            {
                assert!(
                    fs_err::read(&path).unwrap() == **bytes,
                    "{}",
                    path.display()
                );
            }
        }
        mounted.unmount();
    }
}

#[test]
fn times_are_clamped_and_what_does_not_fit_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("a.img");
    let mut tree = Tree::new();
    let late = Time {
        secs: 2_000_000_000,
        nanos: 5,
    };
    let mut inode = file(Content::from_bytes(b"x".to_vec()));
    inode.meta.mtime = late;
    let id = tree.insert(InodeId::ROOT, b"f", inode).unwrap();
    let options = Options {
        clamp_mtime: Some(1_000_000_000),
        ..Options::default()
    };
    let clamped = make(&tree, &memory(), &image, &options);
    let bytes = fs_err::read(&image).unwrap();
    tree.meta_mut(id).mtime.secs += 1;
    assert_eq!(make(&tree, &memory(), &image, &options), clamped);
    assert_eq!(fs_err::read(&image).unwrap(), bytes);
    assert_ne!(
        make(&tree, &memory(), &image, &Options::default()).uuid,
        clamped.uuid
    );

    let device = Kind::CharDevice(Device {
        major: 5000,
        minor: 1,
    });
    tree.insert(InodeId::ROOT, b"d", Inode::new(Meta::default(), device))
        .unwrap();
    let error = erofs::write(&tree, &memory(), &create(&image), &options).unwrap_err();
    assert_eq!(error.kind(), ErofsErrorKind::Unrepresentable);
    assert!(
        error
            .to_string()
            .starts_with("/d: the device number 5000:1"),
        "{error}"
    );
    let options = Options {
        label: vec![b'x'; 16],
        ..Options::default()
    };
    let error = erofs::write(&tree, &memory(), &create(&image), &options).unwrap_err();
    assert_eq!(error.kind(), ErofsErrorKind::Option);
}
