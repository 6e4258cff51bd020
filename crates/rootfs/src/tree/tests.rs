use super::*;

fn file(bytes: &[u8]) -> Inode {
    Inode::new(
        Meta {
            mode: 0o644,
            ..Meta::default()
        },
        Kind::File(Content::from_bytes(bytes)),
    )
}

fn symlink(target: &[u8]) -> Inode {
    Inode::new(
        Meta {
            mode: 0o777,
            ..Meta::default()
        },
        Kind::Symlink(target.into()),
    )
}

/// /a/b/f, /a/abs -> /a/b, /a/up -> ../../../a/b/f, /loop -> loop, /dangling -> /new/x
fn sample() -> Tree {
    let mut tree = Tree::new();
    let a = tree.insert(InodeId::ROOT, b"a", Inode::dir(0o755)).unwrap();
    let b = tree.insert(a, b"b", Inode::dir(0o755)).unwrap();
    tree.insert(b, b"f", file(b"x")).unwrap();
    tree.insert(a, b"abs", symlink(b"/a/b")).unwrap();
    tree.insert(a, b"up", symlink(b"../../../a/b/f")).unwrap();
    tree.insert(InodeId::ROOT, b"loop", symlink(b"loop"))
        .unwrap();
    tree.insert(InodeId::ROOT, b"dangling", symlink(b"/new/x"))
        .unwrap();
    tree
}

#[test]
fn walk_is_depth_first_in_byte_order() {
    let paths: Vec<String> = sample()
        .walk()
        .map(|(p, _)| String::from_utf8(p).unwrap())
        .collect();
    assert_eq!(
        paths,
        ["", "a", "a/abs", "a/b", "a/b/f", "a/up", "dangling", "loop"]
    );
}

#[test]
fn links_are_followed_inside_the_root() {
    let tree = sample();
    let f = tree.lookup(b"a/b/f", Follow::All).unwrap();
    assert_eq!(tree.lookup(b"/a/abs/f", Follow::All).unwrap(), f);
    assert_eq!(tree.lookup(b"a/up", Follow::All).unwrap(), f);
    assert_ne!(tree.lookup(b"a/up", Follow::ButLast).unwrap(), f);
    assert_eq!(tree.lookup(b"../a/b/../abs/f", Follow::All).unwrap(), f);
    assert_eq!(
        tree.lookup(b"loop", Follow::All).unwrap_err().kind(),
        TreeErrorKind::TooManyLinks
    );
    assert_eq!(
        tree.lookup(b"a/b/f/g", Follow::All).unwrap_err().kind(),
        TreeErrorKind::NotADirectory
    );
    assert_eq!(
        tree.lookup(b"a/zz", Follow::All).unwrap_err().kind(),
        TreeErrorKind::NotFound
    );
}

#[test]
fn a_place_can_be_missing() {
    let tree = sample();
    let place = tree.resolve(b"dangling/y/../z", Follow::All).unwrap();
    assert_eq!(place.path, b"new/x/z");
    assert_eq!(place.id, None);
    assert_eq!(place.dir, InodeId::ROOT);
    assert_eq!(place.missing.len(), 3);
    let root = tree.resolve(b"/", Follow::All).unwrap();
    assert_eq!((root.id, root.dir), (Some(InodeId::ROOT), InodeId::ROOT));
}

#[test]
fn parents_of_paths() {
    let tree = sample();
    let (dir, name) = tree.lookup_parent(b"a/abs/new").unwrap();
    assert_eq!(dir, tree.lookup(b"a/b", Follow::All).unwrap());
    assert_eq!(&*name, b"new");
    assert_eq!(
        tree.lookup_parent(b"/").unwrap_err().kind(),
        TreeErrorKind::BadName
    );
    assert_eq!(
        tree.lookup_parent(b"a/b/f/g").unwrap_err().kind(),
        TreeErrorKind::NotADirectory
    );
}

#[test]
fn make_dirs_follows_dangling_links() {
    let mut tree = sample();
    let dir = tree.make_dirs(b"dangling/y", &Inode::dir(0o700)).unwrap();
    assert_eq!(tree.lookup(b"new/x/y", Follow::All).unwrap(), dir);
    assert_eq!(
        tree.make_dirs(b"a/b/f/q", &Inode::dir(0o700))
            .unwrap_err()
            .kind(),
        TreeErrorKind::NotADirectory
    );
}

#[test]
fn hard_links_live_until_the_last_name_goes() {
    let mut tree = sample();
    let f = tree.lookup(b"a/b/f", Follow::All).unwrap();
    tree.link(InodeId::ROOT, b"g", f).unwrap();
    assert_eq!(tree[f].names, 2);
    let before = tree.len();
    tree.remove(InodeId::ROOT, b"a").unwrap();
    assert_eq!(tree[f].names, 1);
    assert_eq!(tree.len(), before - 4);
    tree.remove(InodeId::ROOT, b"g").unwrap();
    assert!(tree.get(f).is_none());
    assert_eq!(
        tree.link(InodeId::ROOT, b"h", InodeId::ROOT)
            .unwrap_err()
            .kind(),
        TreeErrorKind::IsADirectory
    );
}

#[test]
fn bad_names_and_limits_are_refused() {
    let mut tree = Tree::new();
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
        let error = tree.insert(InodeId::ROOT, name, file(b"")).unwrap_err();
        assert_eq!(error.kind(), TreeErrorKind::BadName);
    }
    tree.set_max_inodes(2);
    tree.insert(InodeId::ROOT, b"a", file(b"")).unwrap();
    assert_eq!(
        tree.insert(InodeId::ROOT, b"a", file(b""))
            .unwrap_err()
            .kind(),
        TreeErrorKind::Exists
    );
    assert_eq!(
        tree.insert(InodeId::ROOT, b"b", file(b""))
            .unwrap_err()
            .kind(),
        TreeErrorKind::TooManyInodes
    );
    assert_eq!(
        tree.insert(InodeId(1), b"b", file(b"")).unwrap_err().kind(),
        TreeErrorKind::NotADirectory
    );
}

#[test]
fn depth_is_limited_and_deep_trees_are_removed_without_recursion() {
    let mut tree = Tree::new();
    let mut dir = InodeId::ROOT;
    for _ in 0..1024 {
        dir = tree.insert(dir, b"d", Inode::dir(0o755)).unwrap();
    }
    assert_eq!(
        tree.insert(dir, b"d", Inode::dir(0o755))
            .unwrap_err()
            .kind(),
        TreeErrorKind::TooDeep
    );
    assert_eq!(tree.walk().count(), 1025);
    tree.remove(InodeId::ROOT, b"d").unwrap();
    assert!(tree.is_empty());
}

#[test]
fn equality_sees_hard_links_and_not_numbers() {
    let build = |linked: bool, swap: bool| {
        let mut tree = Tree::new();
        if swap {
            tree.insert(InodeId::ROOT, b"zz", file(b"")).unwrap();
            tree.remove(InodeId::ROOT, b"zz").unwrap();
        }
        let a = tree.insert(InodeId::ROOT, b"a", file(b"1")).unwrap();
        if linked {
            tree.link(InodeId::ROOT, b"b", a).unwrap();
        } else {
            tree.insert(InodeId::ROOT, b"b", file(b"1")).unwrap();
        }
        tree
    };
    assert_eq!(build(true, false), build(true, true));
    assert_eq!(build(false, false), build(false, true));
    assert_ne!(build(true, false), build(false, false));
}

#[test]
fn counts_and_replace() {
    let mut tree = sample();
    let counts = tree.counts();
    assert_eq!(
        (
            counts.dirs,
            counts.files,
            counts.symlinks,
            counts.names,
            counts.bytes
        ),
        (3, 1, 4, 7, 1)
    );
    tree.replace(InodeId::ROOT, b"a", file(b"22")).unwrap();
    assert_eq!(tree.counts().bytes, 2);
    tree.clear(InodeId::ROOT).unwrap();
    assert!(tree.is_empty());
}

#[test]
fn segments_read_as_a_sparse_file() {
    let mut temp = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut temp, b"..abcd.efg").unwrap();
    let segments: Arc<[Segment]> = Arc::from([
        Segment {
            position: 2,
            offset: 2,
            len: 4,
        },
        Segment {
            position: 10,
            offset: 7,
            len: 3,
        },
    ]);
    let opened = Opened::Segments {
        file: Arc::new(temp),
        segments,
    };
    let mut buf = [9; 14];
    opened.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"\0\0abcd\0\0\0\0efg\0");
    let mut part = [9; 3];
    opened.read_exact_at(&mut part, 4).unwrap();
    assert_eq!(&part, b"cd\0");
    assert_eq!(
        opened.extents(12).unwrap()[1],
        Extent {
            position: 10,
            len: 2
        }
    );
}

#[test]
fn holes_of_files_are_found() {
    let temp = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&temp, &[1; 4096], 1 << 20).unwrap();
    temp.set_len(2 << 20).unwrap();
    let opened = Opened::File {
        file: Arc::new(temp),
        offset: 0,
    };
    let extents = opened.extents(2 << 20).unwrap();
    assert!(
        extents
            .iter()
            .any(|e| e.position <= 1 << 20 && e.position + e.len >= (1 << 20) + 4096)
    );
}
