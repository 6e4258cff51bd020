use std::io::{Cursor, Error};
use std::sync::Arc;

use firebuild_rootfs::diff::diff;
use firebuild_rootfs::dump::{layer_to_text, parse_layer, parse_tree, tree_to_text};
use firebuild_rootfs::layer::{Change, Layer};
use firebuild_rootfs::path::{MAX_NAME, clean_strict, components};
use firebuild_rootfs::tar::{
    Limits, Output, ReadOptions, TarErrorKind, Whiteouts, WriteOptions, read_layer, write_layer,
};
use firebuild_rootfs::tree::{Content, Contents, Inode, Kind, Meta, Opened, Source, Tree};

const BLOCK: usize = 512;
/// Content that is copied at most; a sparse file of a few bytes may be as large as it likes.
const MAX_COPIED: u64 = 64 << 10;

/// Any bytes are an archive or an error; its entries stay in the root and in the blob; what can be applied can be told as
/// text, as a difference and as an archive again.
pub fn tar(bytes: &[u8]) {
    let bytes = sealed(bytes);
    let options = |whiteouts| ReadOptions {
        limits: Limits {
            entries: 64,
            extended: 4096,
        },
        whiteouts,
    };
    let _ = read_layer(Cursor::new(&bytes), [0; 32], &options(Whiteouts::Keep));
    let Ok(layer) = read_layer(Cursor::new(&bytes), [0; 32], &options(Whiteouts::Apply)) else {
        return;
    };
    check_entries(&layer, bytes.len() as u64);
    let text = layer_to_text(&layer);
    assert!(parse_layer(&text).unwrap() == layer, "the text of a layer");
    let blob = Blob(Arc::new(bytes));
    for base in [Tree::new(), base()] {
        let mut tree = base.clone();
        if tree.apply(&layer).is_err() {
            continue;
        }
        let text = tree_to_text(&tree);
        assert!(parse_tree(&text).unwrap() == tree, "the text of a tree");
        let difference = diff(&base, &tree);
        let mut again = base.clone();
        again.apply(&difference).unwrap();
        assert!(again == tree, "the difference leads there");
        if copied(&difference) <= MAX_COPIED {
            let mut archive = Vec::new();
            let output = Output::Stream(&mut archive);
            let written = match write_layer(&difference, &blob, output, &WriteOptions::default()) {
                Ok(written) => written,
                // A foreign archive may have a directory of such a name; a layer cannot say it.
                Err(error) if matches!(error.kind(), TarErrorKind::Reserved) => continue,
                Err(error) => panic!("{error}"),
            };
            let read = read_layer(
                Cursor::new(&archive),
                written.diff_id,
                &ReadOptions::default(),
            )
            .unwrap();
            assert!(read == written.layer, "the archive of a layer");
        }
    }
}

/// With checksums that are right, so that the fuzzer need not find them.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK) {
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    bytes
}

fn check_entries(layer: &Layer, size: u64) {
    assert!(layer.entries.len() <= 64);
    for entry in &layer.entries {
        check_path(&entry.path);
        match &entry.change {
            Change::Node(inode) => {
                if let Kind::File(content) = &inode.kind {
                    check_content(content, size);
                }
            }
            Change::HardLink(target) => check_path(target),
            Change::Whiteout | Change::Opaque => {}
        }
    }
}

fn check_path(path: &[u8]) {
    assert_eq!(clean_strict(path).unwrap(), path, "a clean path");
    assert!(components(path).all(|name| name.len() <= MAX_NAME));
}

fn check_content(content: &Content, size: u64) {
    match &content.source {
        Source::Blob { offset, .. } => {
            assert!(offset.checked_add(content.size).unwrap() <= size);
        }
        Source::SparseBlob { segments, .. } => {
            let mut end = 0;
            for segment in segments.iter() {
                assert!(segment.position >= end, "ascending");
                end = segment.position.checked_add(segment.len).unwrap();
                assert!(segment.offset.checked_add(segment.len).unwrap() <= size);
            }
            assert!(end <= content.size);
        }
        Source::Bytes(bytes) => assert_eq!(bytes.len() as u64, content.size),
        Source::Path(_) => panic!("an archive has no files of the host"),
    }
}

fn copied(layer: &Layer) -> u64 {
    let sizes = layer.entries.iter().map(|entry| match &entry.change {
        Change::Node(inode) => match &inode.kind {
            Kind::File(content) => content.size,
            _ => 0,
        },
        _ => 0,
    });
    sizes.fold(0, u64::saturating_add)
}

/// Something for a layer to meet.
fn base() -> Tree {
    let mut layer = Layer::default();
    let mut node = |path: &str, kind: Kind| {
        layer.push(path, Change::Node(Inode::new(Meta::default(), kind)));
    };
    node("a", Kind::Dir(Default::default()));
    node("a/b", Kind::Dir(Default::default()));
    node("a/b/c", Kind::File(Content::from_bytes(*b"c")));
    node("b", Kind::Symlink((*b"a/b").into()));
    node("c", Kind::Symlink((*b"/d").into()));
    node("d", Kind::File(Content::from_bytes(*b"d")));
    layer.push("e", Change::HardLink(b"d".to_vec()));
    let mut tree = Tree::new();
    tree.apply(&layer).unwrap();
    tree
}

/// The archive's own bytes.
struct Blob(Arc<Vec<u8>>);

impl Contents for Blob {
    fn open(&self, content: &Content) -> std::io::Result<Opened> {
        let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
        let mut copy = |position: u64, offset: u64, len: u64| {
            let [to, from, len] = [position, offset, len].map(|n| usize::try_from(n).unwrap());
            bytes[to..to + len].copy_from_slice(&self.0[from..from + len]);
        };
        match &content.source {
            Source::Blob { offset, .. } => copy(0, *offset, content.size),
            Source::SparseBlob { segments, .. } => segments
                .iter()
                .for_each(|part| copy(part.position, part.offset, part.len)),
            Source::Bytes(bytes) => return Ok(Opened::Bytes(Arc::clone(bytes))),
            Source::Path(_) => return Err(Error::other("no file")),
        }
        Ok(Opened::Bytes(bytes.into()))
    }
}
