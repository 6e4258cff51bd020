//! Without root: shapes that a source directory seldom has, what is refused, and any small tree.

use std::io;

use firebuild_rootfs::dump::tree_to_text;
use firebuild_rootfs::ext4::{self, Ext4ErrorKind, Journal, Options};
use firebuild_rootfs::tree::{
    Content, Contents, Device, Inode, InodeId, Kind, Meta, Opened, Source, Time, Tree,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use crate::common::needs;
use crate::images::{Blob, create, debugfs, fsck, make, memory, try_make};

const TOOLS: &[&str] = &["tool:e2fsck", "tool:debugfs"];

fn file(bytes: Vec<u8>) -> Inode {
    Inode::new(Meta::default(), Kind::File(Content::from_bytes(bytes)))
}

/// The tree that an image holds, with the bytes of its files.
fn read_back(path: &std::path::Path) -> Tree {
    let image = std::sync::Arc::new(std::fs::File::open(path).unwrap());
    let tree = ext4::read_tree(&image, [9; 32]).unwrap();
    loaded(tree, &Blob(image))
}

fn loaded(mut tree: Tree, contents: &dyn Contents) -> Tree {
    let ids: Vec<InodeId> = tree.walk().map(|(_, id)| id).collect();
    for id in ids {
        if let Some(content) = tree.content_mut(id) {
            let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
            let opened = contents.open(content).unwrap();
            opened.read_exact_at(&mut bytes, 0).unwrap();
            *content = Content::from_bytes(bytes);
        }
    }
    tree
}

#[test]
fn extent_trees_have_any_depth() {
    if !needs("extent_trees_have_any_depth", TOOLS) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("a.img");
    let mut tree = Tree::new();
    // Every other block is a hole, so each block is an extent: in the inode, one leaf, four leaves, two levels.
    for extents in [4usize, 5, 340, 341, 1360, 1361, 3000] {
        let mut bytes = vec![0; extents * 8192 - 100];
        for (n, block) in bytes.chunks_mut(8192).enumerate() {
            block[..4].copy_from_slice(&u32::try_from(n + 1).unwrap().to_le_bytes());
        }
        tree.insert(InodeId::ROOT, extents.to_string().as_bytes(), file(bytes))
            .unwrap();
    }
    make(&tree, &memory(), &image, &Options::default());
    fsck(&image);
    let expect = |path: &str, depth: u32| {
        let text = debugfs(&image, &format!("extents /{path}"));
        let levels = text
            .lines()
            .nth(1)
            .and_then(|l| l.split('/').nth(1))
            .map(str::trim);
        let found: u32 = levels
            .and_then(|l| l.split_whitespace().next())
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(found, depth, "{path}: {text}");
    };
    expect("4", 0);
    expect("5", 1);
    expect("1360", 1);
    expect("1361", 2);
    expect("3000", 2);
    assert!(read_back(&image) == tree);
}

#[test]
fn directories_have_one_or_two_levels() {
    if !needs("directories_have_one_or_two_levels", TOOLS) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("a.img");
    for (count, levels) in [(400, 0), (60_000, 0), (300_000, 1)] {
        let mut tree = Tree::new();
        for n in 0..count {
            let name = format!("n{n}");
            let inode = Inode::new(Meta::default(), Kind::Fifo);
            tree.insert(InodeId::ROOT, name.as_bytes(), inode).unwrap();
        }
        make(&tree, &memory(), &image, &Options::default());
        fsck(&image);
        let text = debugfs(&image, "htree_dump /");
        assert!(
            text.contains(&format!("Indirect levels: {levels}")),
            "{count}"
        );
        // That each leaf has the names of its hashes is what e2fsck has checked.
        assert!(debugfs(&image, &format!("stat /n{}", count - 1)).contains("Type: FIFO"));
        assert!(ext4::read_tree(&std::fs::File::open(&image).unwrap(), [0; 32]).unwrap() == tree);
    }
}

#[test]
fn sizes_are_what_was_asked_for() {
    if !needs("sizes_are_what_was_asked_for", TOOLS) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("a.img");
    let mut tree = Tree::new();
    tree.insert(InodeId::ROOT, b"f", file(vec![1; 5_000_000]))
        .unwrap();
    let gib = 1u64 << 30;
    let sizes = [
        20 << 20,
        (128 << 20) + 4096,
        gib,
        8 * gib + 1,
        100 * gib,
        5 << 40,
    ];
    for size in sizes {
        for journal in [Journal::Auto, Journal::None, Journal::Bytes(300 << 20)] {
            let options = Options {
                min_size: Some(size),
                journal,
                ..Options::default()
            };
            let summary = make(&tree, &memory(), &image, &options);
            let least = if journal == Journal::Bytes(300 << 20) {
                300 << 20
            } else {
                0
            };
            assert!(summary.size >= size.max(least));
            assert!(
                summary.size < size + (2 << 20) || summary.size < 400 << 20,
                "{summary:?}"
            );
            assert!(ext4::size_bound(&tree, &options).unwrap() >= summary.size);
            // Checking terabytes takes long.
            if size <= 8 * gib + 1 {
                fsck(&image);
            }
        }
    }
    // Zeros cost nothing, wherever they are.
    let small = make(&tree, &memory(), &image, &Options::default());
    tree.insert(InodeId::ROOT, b"zeros", file(vec![0; 50_000_000]))
        .unwrap();
    let same = make(&tree, &memory(), &image, &Options::default());
    assert_eq!(small.size, same.size);
    assert_ne!(small.uuid, same.uuid);
    fsck(&image);
}

#[test]
fn options_show_in_the_superblock() {
    if !needs("options_show_in_the_superblock", TOOLS) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("a.img");
    let mut tree = Tree::new();
    let mut inode = file(b"x".to_vec());
    inode.meta.mtime = Time {
        secs: 2_000_000_000,
        nanos: 7,
    };
    tree.insert(InodeId::ROOT, b"f", inode).unwrap();
    let options = Options {
        label: b"root fs".to_vec(),
        lost_found: true,
        clamp_mtime: Some(1_000_000_000),
        ..Options::default()
    };
    make(&tree, &memory(), &image, &options);
    fsck(&image);
    let text = debugfs(&image, "show_super_stats -h");
    assert!(text.contains("Filesystem volume name:   root fs"), "{text}");
    assert!(text.contains("Sep  9 01:46:40 2001"), "{text}");
    let read = read_back(&image);
    assert_eq!(
        read[read.find(b"f").unwrap()].meta.mtime,
        Time {
            secs: 1_000_000_000,
            nanos: 0
        }
    );
    assert!(debugfs(&image, "stat /lost+found").contains("Inode: 11   Type: directory"));
    let options = Options {
        label: vec![b'x'; 17],
        ..Options::default()
    };
    let error = try_make(&tree, &memory(), &image, &options).unwrap_err();
    assert_eq!(error.kind(), Ext4ErrorKind::Option);
}

/// Gives other bytes than the tree says.
struct Liar(Opened);

impl Contents for Liar {
    fn open(&self, _: &Content) -> io::Result<Opened> {
        Ok(self.0.clone())
    }
}

#[test]
fn content_of_another_length_is_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("a.img");
    let data = temp.path().join("data");
    fs_err::write(&data, [1; 100]).unwrap();
    let opened = || Opened::File {
        file: std::sync::Arc::new(std::fs::File::open(&data).unwrap()),
        offset: 0,
    };
    let path = || Source::Path(std::sync::Arc::from(std::path::Path::new("data")));
    let blob = Source::Blob {
        id: [0; 32],
        offset: 0,
    };
    let bytes = Opened::Bytes(vec![1; 100].into());
    for (source, size, liar, text) in [
        (path(), 99, opened(), "has 100 bytes, not 99"),
        (path(), 101, opened(), "has 100 bytes, not 101"),
        (blob.clone(), 101, opened(), "ends before its 101 bytes"),
        (blob, 101, bytes.clone(), "has 100 bytes, not 101"),
        (path(), 50, bytes, "has 100 bytes, not 50"),
    ] {
        let mut tree = Tree::new();
        let dir = tree
            .insert(InodeId::ROOT, b"etc", Inode::dir(0o755))
            .unwrap();
        let content = Content { source, size };
        tree.insert(dir, b"it", Inode::new(Meta::default(), Kind::File(content)))
            .unwrap();
        let error = try_make(&tree, &Liar(liar), &image, &Options::default()).unwrap_err();
        assert_eq!(error.kind(), Ext4ErrorKind::Content);
        assert!(
            error.to_string().contains(text) && error.to_string().starts_with("/etc/it: "),
            "{error}"
        );
    }
}

#[test]
fn what_ext4_cannot_hold_is_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("a.img");
    let large = Device {
        major: 5000,
        minor: 1,
    };
    let huge = Content {
        source: Source::Blob {
            id: [0; 32],
            offset: 0,
        },
        size: 1 << 45,
    };
    for kind in [
        Kind::CharDevice(large),
        Kind::Symlink(vec![b'x'; 4096].into()),
        Kind::File(huge),
    ] {
        let mut tree = Tree::new();
        tree.insert(InodeId::ROOT, b"it", Inode::new(Meta::default(), kind))
            .unwrap();
        let error = try_make(&tree, &memory(), &image, &Options::default()).unwrap_err();
        assert_eq!(error.kind(), Ext4ErrorKind::Unrepresentable);
        assert_eq!(error.path(), Some(&b"it"[..]));
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(
        any::<u8>().prop_filter("no separator", |b| *b != b'/' && *b != 0),
        1..=255,
    )
    .prop_filter("a name", |n| n != b"." && n != b"..")
}

fn meta() -> impl Strategy<Value = Meta> {
    // Between 2310 and 2378 e2fsck takes a time for a mistake of old kernels; the kernel reads it right.
    let secs = prop_oneof![
        Just(0i64),
        -(1i64 << 33)..10_000_000_000,
        13_000_000_000..1i64 << 36
    ];
    let attr = prop_oneof![Just("user."), Just("trusted."), Just("security.x")];
    let attr = (attr, vec(1..=255u8, 1..100))
        .prop_map(|(prefix, rest)| [prefix.as_bytes(), &rest].concat().into());
    let value = prop_oneof![4 => vec(any::<u8>(), 0..100), 1 => vec(any::<u8>(), 0..10_000)];
    let xattrs = prop_oneof![
        2 => Just(Default::default()),
        1 => btree_map(attr, value.prop_map(Into::into), 0..6),
    ];
    (
        0..0o10000u16,
        any::<u32>(),
        any::<u32>(),
        secs,
        0..1_000_000_000u32,
        xattrs,
    )
        .prop_map(|(mode, uid, gid, secs, nanos, xattrs)| Meta {
            mode,
            uid,
            gid,
            mtime: Time { secs, nanos },
            xattrs,
        })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    // Runs of zeros and of others, over block boundaries.
    let run = (any::<u8>(), any::<bool>(), 0usize..20_000);
    vec(run, 0..6).prop_map(|runs| {
        runs.iter()
            .flat_map(|(byte, zero, len)| vec![if *zero { 0 } else { *byte }; *len])
            .collect()
    })
}

fn kind() -> impl Strategy<Value = Option<Kind>> {
    let device = (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Device { major, minor });
    prop_oneof![
        4 => Just(Some(Kind::Dir(Default::default()))),
        4 => bytes().prop_map(|bytes| Some(Kind::File(Content::from_bytes(bytes)))),
        2 => Just(None),
        1 => vec(1..=255u8, 1..=4095).prop_map(|target| Some(Kind::Symlink(target.into()))),
        1 => device.clone().prop_map(|d| Some(Kind::CharDevice(d))),
        1 => device.prop_map(|d| Some(Kind::BlockDevice(d))),
        1 => Just(Some(Kind::Fifo)),
        1 => Just(Some(Kind::Socket)),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    (meta(), vec((any::<usize>(), name(), meta(), kind()), 0..60)).prop_map(|(root, steps)| {
        let mut tree = Tree::new();
        *tree.meta_mut(InodeId::ROOT) = root;
        let (mut dirs, mut files) = (vec![InodeId::ROOT], Vec::new());
        for (choice, name, meta, kind) in steps {
            let dir = dirs[choice % dirs.len()];
            match kind {
                Some(kind) => {
                    let inode = Inode::new(meta, kind);
                    let is_dir = inode.is_dir();
                    if let Ok(id) = tree.insert(dir, &name, inode) {
                        if is_dir { &mut dirs } else { &mut files }.push(id);
                    }
                }
                None if !files.is_empty() => {
                    let _taken = tree.link(dir, &name, files[choice % files.len()]);
                }
                None => {}
            }
        }
        tree
    })
}

/// The times that an image can hold.
fn clamped(mut tree: Tree) -> Tree {
    let ids: Vec<InodeId> = tree.walk().map(|(_, id)| id).collect();
    for id in ids {
        let time = &mut tree.meta_mut(id).mtime;
        let secs = time.secs.clamp(-(1 << 31), (1 << 34) - (1 << 31) - 1);
        if secs != time.secs {
            *time = Time { secs, nanos: 0 };
        }
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_tree_is_sound_and_comes_back(tree in tree()) {
        if needs("any_tree_is_sound_and_comes_back", TOOLS) {
            let temp = tempfile::tempdir().unwrap();
            let image = temp.path().join("a.img");
            make(&tree, &memory(), &image, &Options::default());
            fsck(&image);
            assert_eq!(tree_to_text(&read_back(&image)), tree_to_text(&clamped(tree)));
        }
    }

    #[test]
    fn a_damaged_image_is_read_or_refused(tree in tree(), places in vec((any::<usize>(), any::<u8>()), 1..20)) {
        let temp = tempfile::tempdir().unwrap();
        let image = temp.path().join("a.img");
        let options = Options { journal: Journal::None, free_bytes: 0, ..Options::default() };
        make(&tree, &memory(), &image, &options);
        let mut bytes = fs_err::read(&image).unwrap();
        for (place, byte) in places {
            let at = place % bytes.len();
            bytes[at] ^= byte;
        }
        fs_err::write(&image, &bytes).unwrap();
        let _ = ext4::read_tree(&std::fs::File::open(&image).unwrap(), [0; 32]);
        let _ = create(&image);
    }
}
