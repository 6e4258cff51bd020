//! What has to hold for every tree: each text and binary form gives the tree back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Cursor, Error};
use std::sync::Arc;

use firebuild_rootfs::diff::{diff, snapshot_layer};
use firebuild_rootfs::dump::{layer_to_text, parse_layer, parse_tree, tree_to_text};
use firebuild_rootfs::layer::Layer;
use firebuild_rootfs::tar::{Output, ReadOptions, WriteOptions, read_layer, write_layer};
use firebuild_rootfs::tree::{
    Content, Contents, Device, Inode, InodeId, Kind, Meta, Opened, Source, Time, Tree,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

/// Content is in memory, or in the one blob that was written.
struct Blob(Arc<Vec<u8>>);

impl Contents for Blob {
    fn open(&self, content: &Content) -> std::io::Result<Opened> {
        let Source::Blob { offset, .. } = content.source else {
            return Err(Error::other("no blob"));
        };
        let from = usize::try_from(offset).unwrap();
        let to = from + usize::try_from(content.size).unwrap();
        Ok(Opened::Bytes(self.0[from..to].into()))
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    // Few names, so that trees meet; and odd ones.
    prop_oneof![
        8 => prop_oneof![Just(b"a".to_vec()), Just(b"b".to_vec()), Just(b"a-b".to_vec()), Just(b"c".to_vec())],
        1 => vec(any::<u8>().prop_filter("no separator", |b| *b != b'/' && *b != 0), 1..=255),
    ]
    .prop_filter("a name", |n| n != b"." && n != b".." && !n.starts_with(b".wh."))
}

fn meta() -> impl Strategy<Value = Meta> {
    let id = || prop_oneof![4 => Just(0u32), 1 => any::<u32>()];
    let time = (
        prop_oneof![4 => Just(0i64), 1 => -1i64 << 40..1 << 40],
        prop_oneof![4 => Just(0u32), 1 => 0..1_000_000_000u32],
    );
    let xattrs = prop_oneof![
        3 => Just(Default::default()),
        1 => btree_map(vec(1..=255u8, 1..40).prop_map(Into::into), vec(any::<u8>(), 0..200).prop_map(Into::into), 0..3),
    ];
    (0..0o10000u16, id(), id(), time, xattrs).prop_map(|(mode, uid, gid, (secs, nanos), xattrs)| {
        Meta {
            mode,
            uid,
            gid,
            mtime: Time { secs, nanos },
            xattrs,
        }
    })
}

/// `None` stands for one more name of an earlier file.
fn kind() -> impl Strategy<Value = Option<Kind>> {
    let device = (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Device { major, minor });
    prop_oneof![
        4 => Just(Some(Kind::Dir(Default::default()))),
        4 => vec(any::<u8>(), 0..1500).prop_map(|bytes| Some(Kind::File(Content::from_bytes(bytes)))),
        2 => Just(None),
        1 => vec(1..=255u8, 1..300).prop_map(|target| Some(Kind::Symlink(target.into()))),
        1 => device.clone().prop_map(|d| Some(Kind::CharDevice(d))),
        1 => device.prop_map(|d| Some(Kind::BlockDevice(d))),
        1 => Just(Some(Kind::Fifo)),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    (meta(), vec((any::<usize>(), name(), meta(), kind()), 0..25)).prop_map(|(root, steps)| {
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

/// The tree with the bytes of its files in place of where they are.
fn loaded(mut tree: Tree, contents: &dyn Contents) -> Tree {
    let ids: Vec<_> = tree.walk().map(|(_, id)| id).collect();
    for id in ids {
        let Some(content) = tree.content_mut(id) else {
            continue;
        };
        if matches!(content.source, Source::Bytes(_)) {
            continue;
        }
        let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
        contents
            .open(content)
            .unwrap()
            .read_exact_at(&mut bytes, 0)
            .unwrap();
        *content = Content::from_bytes(bytes);
    }
    tree
}

proptest! {
    #[test]
    fn text_gives_the_tree_back(tree in tree()) {
        let text = tree_to_text(&tree);
        let back = parse_tree(&text).unwrap();
        prop_assert_eq!(tree_to_text(&back), text);
        prop_assert!(back == tree);
    }

    #[test]
    fn tar_gives_the_tree_back(tree in tree()) {
        let mut bytes = Vec::new();
        let layer = Layer::of_tree(&tree);
        let written = write_layer(&layer, &Blob(Arc::default()), Output::Stream(&mut bytes), &WriteOptions::default()).unwrap();
        let read = read_layer(Cursor::new(&bytes), written.diff_id, &ReadOptions::default()).unwrap();
        prop_assert!(read == written.layer);
        let mut back = Tree::new();
        back.apply(&read).unwrap();
        let back = loaded(back, &Blob(Arc::new(bytes)));
        prop_assert_eq!(tree_to_text(&back), tree_to_text(&tree));
    }

    #[test]
    fn a_difference_leads_from_one_to_the_other(a in tree(), b in tree()) {
        let layer = diff(&a, &b);
        prop_assert!(parse_layer(&layer_to_text(&layer)).unwrap() == layer);
        let mut changed = a.clone();
        changed.apply(&layer).unwrap();
        prop_assert_eq!(tree_to_text(&changed), tree_to_text(&b));
        prop_assert!(changed == b);
        let mut changed = a.clone();
        changed.apply(&snapshot_layer(&a, &b)).unwrap();
        prop_assert!(changed == b);
        prop_assert!(diff(&b, &b).entries.is_empty());
        // And through an archive, where the order is another one.
        let mut bytes = Vec::new();
        let written = write_layer(&layer, &Blob(Arc::default()), Output::Stream(&mut bytes), &WriteOptions::default()).unwrap();
        let mut changed = a.clone();
        changed.apply(&written.layer).unwrap();
        prop_assert_eq!(tree_to_text(&loaded(changed, &Blob(Arc::new(bytes)))), tree_to_text(&b));
    }

    #[test]
    fn any_bytes_are_an_archive_or_an_error(mut bytes in vec(any::<u8>(), 0..4096), at in any::<usize>(), tree in tree()) {
        let _ = read_layer(Cursor::new(&bytes), [0; 32], &ReadOptions::default());
        // A real archive with a few bytes changed.
        let mut archive = Vec::new();
        write_layer(&Layer::of_tree(&tree), &Blob(Arc::default()), Output::Stream(&mut archive), &WriteOptions::default()).unwrap();
        bytes.truncate(8);
        for (i, byte) in bytes.iter().enumerate() {
            let place = at.wrapping_mul(i + 1) % archive.len();
            archive[place] = *byte;
        }
        if let Ok(layer) = read_layer(Cursor::new(&archive), [0; 32], &ReadOptions::default()) {
            let _ = Tree::new().apply(&layer);
        }
    }
}
