//! An image that was made out of an earlier one has the bytes of one that was made from nothing, whatever changed between.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use firebuild_rootfs::ext4::{self, Ledger, Options, Summary};
use firebuild_rootfs::tree::{
    Content, Contents, Inode, InodeId, Kind, Meta, Opened, Segment, Source, Tree,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::common::needs;
use crate::images::{create, fsck};

const BLOCK: u64 = 4096;

/// Blobs by name, with the same pattern of blocks: noise, and zeros where the pattern has them.
struct Blobs(HashMap<[u8; 32], Arc<File>>);

impl Blobs {
    fn new(directory: &Path, sizes: &[u64]) -> Self {
        let mut blobs = HashMap::new();
        for (name, blocks) in (0u8..).zip(sizes.iter().copied()) {
            let path = directory.join(format!("blob-{name}"));
            let mut file = File::options()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            let mut state = u64::from(name) + 1;
            let mut block = [0; BLOCK as usize];
            for number in 0..blocks {
                // The last quarter alternates, so that files there need extent trees.
                let zeros = number % 17 == 3 || (number > blocks / 4 * 3 && number % 2 == 0);
                block.chunks_exact_mut(8).for_each(|word| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005) ^ (state >> 29) ^ 1;
                    word.copy_from_slice(&(if zeros { 0 } else { state | 1 }).to_le_bytes());
                });
                file.write_all(&block).unwrap();
            }
            blobs.insert([name; 32], Arc::new(file));
        }
        Self(blobs)
    }
}

impl Contents for Blobs {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        let blob = content.blob().and_then(|id| self.0.get(&id));
        match blob {
            Some(blob) => content.opened_in(blob),
            None => content.opened_in(&Arc::new(File::open("/dev/null")?)),
        }
        .ok_or_else(|| io::Error::other("not in a blob"))
    }
}

/// What a build does to a tree.
#[derive(Clone, Debug)]
enum Step {
    /// A layer on top, with so many files of these sizes.
    Push(Vec<u32>),
    /// The top layer goes, and what is in it.
    Pop,
    /// A file of any layer is removed.
    Remove(usize),
    /// A file gets another owner, in place.
    Change(usize),
    /// A file in memory.
    Memory(u16),
    /// A file in two parts of the top layer.
    Sparse(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => vec(0..1_200_000u32, 1..10).prop_map(Step::Push),
        4 => vec(0..20_000u32, 1..40).prop_map(Step::Push),
        3 => Just(Step::Pop),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => any::<usize>().prop_map(Step::Change),
        1 => any::<u16>().prop_map(Step::Memory),
        1 => any::<u16>().prop_map(Step::Sparse),
    ]
}

/// The state of a build: layers, and the files that are seen.
#[derive(Default)]
struct Build {
    layers: Vec<[u8; 32]>,
    /// By name; the layer's place, the content, the owner.
    files: BTreeMap<String, (usize, Content, u32)>,
    count: u32,
    /// What a blob has.
    blob_bytes: u64,
}

const BLOBS: u8 = 6;
const BLOB_BLOCKS: u64 = 2500;

impl Build {
    fn add(&mut self, content: Content) {
        self.count += 1;
        // Not in the order of the layers.
        let name = format!("{:03x}", self.count.wrapping_mul(2_654_435_761) % 4096);
        let layer = self.layers.len();
        self.files.insert(name, (layer, content, 0));
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Push(sizes) => {
                // Names repeat after a while, as for a layer that is made again and one that lies there twice.
                let id = [(self.count % u32::from(BLOBS)) as u8; 32];
                self.layers.push(id);
                let mut offset = 512 * u64::from(self.count % 3);
                for size in sizes {
                    let size = u64::from(*size);
                    if offset + size > self.blob_bytes {
                        break;
                    }
                    let source = Source::Blob { id, offset };
                    self.add(Content { size, source });
                    offset = (offset + size).next_multiple_of(512) + 512;
                }
            }
            Step::Pop => {
                let top = self.layers.len();
                self.layers.pop();
                self.files.retain(|_, (layer, ..)| *layer < top);
            }
            Step::Remove(which) => {
                let name = self
                    .files
                    .keys()
                    .nth(which % self.files.len().max(1))
                    .cloned();
                name.map(|name| self.files.remove(&name));
            }
            Step::Change(which) => {
                let count = self.files.len().max(1);
                if let Some((.., owner)) = self.files.values_mut().nth(which % count) {
                    *owner += 1;
                }
            }
            Step::Memory(size) => self.add(Content::from_bytes(vec![7; usize::from(*size)])),
            Step::Sparse(place) => {
                let Some(id) = self.layers.last().copied() else {
                    return;
                };
                let (place, len) = (u64::from(*place), 3 * BLOCK);
                let segment = |position, offset| Segment {
                    position,
                    offset,
                    len,
                };
                let segments = [segment(place, 512), segment(place + (9 << 20), 512 + len)];
                let size = (9 << 20) + place + len + 5;
                let segments = Arc::from(segments);
                self.add(Content {
                    size,
                    source: Source::SparseBlob { id, segments },
                });
            }
        }
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        for (name, (_, content, owner)) in &self.files {
            let meta = Meta {
                mode: 0o644,
                uid: *owner,
                ..Meta::default()
            };
            tree.insert(
                InodeId::ROOT,
                name.as_bytes(),
                Inode::new(meta, Kind::File(content.clone())),
            )
            .unwrap();
        }
        tree
    }

    fn options(&self, name: u8) -> Options {
        Options {
            layers: self.layers.clone(),
            content: Some([name; 32]),
            ..Options::default()
        }
    }
}

fn same_bytes(one: &Path, other: &Path) {
    let (one, other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let size = one.metadata().unwrap().len();
    assert_eq!(size, other.metadata().unwrap().len());
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in (0..size).step_by(1 << 20) {
        let len = usize::try_from((size - at).min(1 << 20)).unwrap();
        one.read_exact_at(&mut a[..len], at).unwrap();
        other.read_exact_at(&mut b[..len], at).unwrap();
        let differs = (0..len).find(|byte| a[*byte] != b[*byte]);
        assert!(
            differs.is_none(),
            "block {}",
            (at + differs.unwrap_or(0) as u64) / BLOCK
        );
    }
}

/// Makes `kept` out of what it was, and another one from nothing.
fn both(
    build: &Build,
    name: u8,
    blobs: &Blobs,
    kept: &Path,
    before: Option<&Ledger>,
) -> (Summary, Ledger) {
    let (tree, options) = (build.tree(), build.options(name));
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(kept)
        .unwrap();
    let (summary, ledger) = ext4::write_noted(&tree, blobs, &file, &options, before).unwrap();
    let fresh = kept.with_extension("fresh");
    let (whole, noted) = ext4::write_noted(&tree, blobs, &create(&fresh), &options, None).unwrap();
    same_bytes(kept, &fresh);
    assert_eq!(ledger, noted);
    assert_eq!((summary.uuid, summary.size), (whole.uuid, whole.size));
    assert!(summary.written <= whole.written);
    let plain = ext4::write(&tree, blobs, &create(&fresh), &options).unwrap();
    same_bytes(kept, &fresh);
    assert_eq!(plain, whole);
    let ledger = Ledger::parse(&ledger.to_bytes()).unwrap();
    assert_eq!(ledger, noted);
    (summary, ledger)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_gives_the_same_bytes(steps in vec(vec(step(), 1..4), 2..6)) {
        if !needs("any_history_gives_the_same_bytes", &["tool:e2fsck"]) {
            return Ok(());
        }
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(directory.path(), &[BLOB_BLOCKS; BLOBS as usize]);
        let kept = directory.path().join("kept");
        let mut build = Build { blob_bytes: BLOB_BLOCKS * BLOCK, ..Build::default() };
        let mut before = None;
        for (name, steps) in (0..).zip(&steps) {
            steps.iter().for_each(|step| build.apply(step));
            let (_, ledger) = both(&build, name, &blobs, &kept, before.as_ref());
            fsck(&kept);
            before = Some(ledger);
        }
    }
}

/// Files of many pieces, and one that goes over copies of the superblock, stay; the rest is cut off.
#[test]
fn what_stays_is_not_written_again() {
    if !needs("what_stays_is_not_written_again", &["tool:e2fsck"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let blobs = Blobs::new(directory.path(), &[48_000, 1000, 1000, 1000, 1000, 1000]);
    let kept = directory.path().join("kept");
    let mut build = Build {
        blob_bytes: 48_000 * BLOCK,
        ..Build::default()
    };
    build.apply(&Step::Push(vec![190_000_000, 100]));
    build.apply(&Step::Push(vec![1_000_000, 2_000_000]));
    let (first, ledger) = both(&build, 0, &blobs, &kept, None);
    assert!(first.written > 128 << 20);
    // Another layer on top, a file fewer below, another name.
    build.apply(&Step::Pop);
    build.apply(&Step::Change(0));
    build.apply(&Step::Push(vec![700_000]));
    let (second, ledger) = both(&build, 1, &blobs, &kept, Some(&ledger));
    fsck(&kept);
    assert!(second.written < 4 << 20, "{}", second.written);
    // What the image is not long enough for is no image: all of it is written.
    File::options()
        .write(true)
        .open(&kept)
        .unwrap()
        .set_len(100 << 20)
        .unwrap();
    let (third, ledger) = both(&build, 2, &blobs, &kept, Some(&ledger));
    assert!(third.written > 128 << 20);
    // The large file goes, and with it all that lies behind it.
    let large = build
        .files
        .iter()
        .find(|(_, (_, content, _))| content.size == 190_000_000);
    let large = large.unwrap().0.clone();
    build.files.remove(&large);
    let (last, _) = both(&build, 3, &blobs, &kept, Some(&ledger));
    assert!(last.size < 32 << 20);
    fsck(&kept);
}
