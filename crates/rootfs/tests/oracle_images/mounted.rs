//! With a loop mount: what the kernel makes of an image.

use std::process::Command;

use firebuild_rootfs::ext4::{self, Ext4ErrorKind, Journal, Options};
use firebuild_rootfs::tar::{Output, ReadOptions, WriteOptions, read_layer, write_tree};
use firebuild_rootfs::tree::{Content, Inode, InodeId, Kind, Meta, Tree};

use crate::common::{needs, sh};
use crate::compare::differences;
use crate::images::{
    Blob, Mounted, TORTURE_NEEDS, create, debugfs, fsck, image_of, make, memory, scan, torture,
    try_make,
};

fn mounts() -> Vec<&'static str> {
    [TORTURE_NEEDS, &["loop", "tool:debugfs", "tool:resize2fs"]].concat()
}

#[test]
fn a_mount_shows_the_source_tree() {
    if !needs("a_mount_shows_the_source_tree", &mounts()) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (dir, image, again) = (
        temp.path().join("d"),
        temp.path().join("a.img"),
        temp.path().join("b.img"),
    );
    torture(&dir);
    let summary = image_of(&dir, &image, &Options::default());
    fsck(&image);

    let mounted = Mounted::new(&image, &temp.path().join("m"), "ro");
    assert_eq!(differences(&dir, &mounted.at), Vec::<String>::new());
    mounted.unmount();
    assert_eq!(image_of(&dir, &again, &Options::default()), summary);
    sh(temp.path(), "cmp a.img b.img");

    // Spot checks of what a mount does not show.
    assert!(debugfs(&image, "htree_dump /many").contains("Number of entries (count):"));
    assert!(debugfs(&image, "stat /many").contains("Flags: 0x81000"));
    let stat = debugfs(&image, "stat /segments");
    assert!(
        stat.contains("(ETB0)"),
        "more extents than the inode holds: {stat}"
    );
    assert!(debugfs(&image, "stat /links/59").contains("Fast link dest"));
    assert!(!debugfs(&image, "stat /links/60").contains("Fast link dest"));
    assert!(debugfs(&image, "show_super_stats -h").contains("Journal inode:            8"));

    // Again from an archive: the same tree, the same bytes.
    let (mut tree, contents) = scan(&dir);
    let left_out: Vec<Vec<u8>> = tree
        .walk()
        .filter(|(path, id)| {
            // No archive has sockets; and a digest over 5 GiB of zeros takes long.
            matches!(tree[*id].kind, Kind::Socket) || path == b"huge-hole"
        })
        .map(|(path, _)| path)
        .collect();
    for path in left_out {
        let (parent, name) = tree.lookup_parent(&path).unwrap();
        tree.remove(parent, &name).unwrap();
    }
    let archive = create(&temp.path().join("a.tar"));
    write_tree(
        &tree,
        &contents,
        Output::File(&archive),
        &WriteOptions::default(),
    )
    .unwrap();
    let layer = read_layer(&archive, [7; 32], &ReadOptions::default()).unwrap();
    let mut read = Tree::new();
    read.apply(&layer).unwrap();
    make(&tree, &contents, &image, &Options::default());
    make(&read, &Blob(archive.into()), &again, &Options::default());
    sh(temp.path(), "cmp a.img b.img");
}

/// What a guest might do to a file system.
const CHURN: &str = r#"
cd m
for i in $(seq 3000); do echo $i > many/new-$i; done
seq -f 'many/file number %g' 1 2 20000 | tr '\n' '\0' | xargs -0 rm
rm -r deep dirs d; mkdir d; cp -r many copies; mv random moved; ln -s somewhere sym2
dd if=/dev/zero of=zeros bs=1M count=20 status=none; dd if=/dev/urandom of=noise bs=1M count=20 status=none
setfattr -n user.added -v $(head -c 2000 /dev/zero | tr '\0' z) noise
for i in $(seq 10); do echo more >> segments; truncate -s 2M segments; truncate -s 64M segments; done
"#;

#[test]
fn what_is_written_later_keeps_it_sound() {
    if !needs("what_is_written_later_keeps_it_sound", &mounts()) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d");
    torture(&dir);
    for (name, journal) in [("a.img", Journal::Auto), ("b.img", Journal::None)] {
        // A name each: a loop device may outlive its mount, and would remember the other image.
        let image = temp.path().join(name);
        let options = Options {
            free_bytes: 200 << 20,
            journal,
            ..Options::default()
        };
        image_of(&dir, &image, &options);
        let mounted = Mounted::new(&image, &temp.path().join("m"), "rw");
        sh(temp.path(), CHURN);
        mounted.unmount();
        fsck(&image);
    }
}

#[test]
fn it_grows_and_shrinks() {
    if !needs("it_grows_and_shrinks", &mounts()) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (dir, image) = (temp.path().join("d"), temp.path().join("a.img"));
    torture(&dir);
    image_of(&dir, &image, &Options::default());
    for size in ["1G", "40G"] {
        sh(
            temp.path(),
            &format!("truncate -s {size} a.img && resize2fs a.img"),
        );
        fsck(&image);
    }
    sh(temp.path(), "resize2fs -M a.img");
    fsck(&image);
    let mounted = Mounted::new(&image, &temp.path().join("m"), "ro");
    assert_eq!(differences(&dir, &mounted.at), Vec::<String>::new());
    mounted.unmount();
    // Growing while mounted needs a right that not every root has.
    let image = temp.path().join("b.img");
    image_of(&dir, &image, &Options::default());
    sh(temp.path(), "truncate -s 20G b.img");
    let mounted = Mounted::new(&image, &temp.path().join("m"), "rw");
    let device = sh(temp.path(), "findmnt -no SOURCE m");
    let device = String::from_utf8(device.stdout).unwrap();
    let grown = Command::new("resize2fs")
        .arg(device.trim())
        .output()
        .unwrap();
    if grown.status.success() {
        sh(temp.path(), "echo x > m/after-growing");
    } else {
        let text = String::from_utf8_lossy(&grown.stderr).into_owned();
        assert!(text.contains("Permission denied"), "{text}");
    }
    mounted.unmount();
    fsck(&image);
}

#[test]
fn large_attributes_are_read_by_the_kernel() {
    if !needs("large_attributes_are_read_by_the_kernel", &mounts()) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("a.img");
    let mut tree = Tree::new();
    let mut inode = Inode::new(
        Meta::default(),
        Kind::File(Content::from_bytes(b"x".to_vec())),
    );
    for (n, len) in [10usize, 3000, 3500, 4500, 65_536].into_iter().enumerate() {
        let name = format!("user.{n}");
        inode
            .meta
            .xattrs
            .insert(name.into_bytes().into(), vec![n as u8 + 1; len].into());
    }
    tree.insert(InodeId::ROOT, b"f", inode.clone()).unwrap();
    tree.insert(InodeId::ROOT, b"g", inode.clone()).unwrap();
    make(&tree, &memory(), &image, &Options::default());
    fsck(&image);
    let mounted = Mounted::new(&image, &temp.path().join("m"), "rw");
    for (name, value) in &inode.meta.xattrs {
        let mut read = vec![0; 70_000];
        let len = rustix::fs::lgetxattr(mounted.at.join("f"), &**name, &mut read[..]).unwrap();
        assert!(read[..len] == **value, "{name:?}");
    }
    sh(
        temp.path(),
        "setfattr -n user.4 -v small m/f; setfattr -x user.3 m/f; rm m/g",
    );
    mounted.unmount();
    fsck(&image);
}

#[test]
fn a_full_disk_is_an_error_of_its_own() {
    if !needs("a_full_disk_is_an_error_of_its_own", &["root"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    sh(temp.path(), "mkdir m; mount -t tmpfs -o size=4m none m");
    let mut tree = Tree::new();
    let content = Content::from_bytes(vec![1; 8 << 20]);
    tree.insert(
        InodeId::ROOT,
        b"f",
        Inode::new(Meta::default(), Kind::File(content)),
    )
    .unwrap();
    let image = temp.path().join("m/a.img");
    let result = try_make(&tree, &memory(), &image, &Options::default());
    sh(temp.path(), "umount m");
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Ext4ErrorKind::NoSpace);
    assert_eq!(error.to_string(), "cannot write the ext4 image");
}

#[test]
fn a_scratch_disk_is_ready_at_once() {
    if !needs(
        "a_scratch_disk_is_ready_at_once",
        &["root", "loop", "tool:e2fsck"],
    ) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    for size in [8u64 << 20, 100 << 20, 10 << 30, 1 << 40] {
        // A name each, as above.
        let image = temp.path().join(format!("{size}.img"));
        let summary = ext4::write_empty(&create(&image), size, "scratch", b"one").unwrap();
        assert_eq!(summary.size, size);
        // The copies of the descriptors grow with the size.
        assert!(summary.written < (1 << 20) + size / 50_000, "{summary:?}");
        fsck(&image);
        let other = ext4::write_empty(&create(&temp.path().join("b")), size, "scratch", b"two");
        assert_ne!(other.unwrap().uuid, summary.uuid);
        let mounted = Mounted::new(&image, &temp.path().join("m"), "rw");
        sh(
            temp.path(),
            "cd m; mkdir upper work; for i in $(seq 500); do echo $i > upper/$i; done; head -c 3M /dev/urandom > upper/big; rm upper/1*",
        );
        mounted.unmount();
        fsck(&image);
    }
}
