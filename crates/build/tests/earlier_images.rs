//! ext4 images that are made of earlier ones: the same bytes, nothing taken that somebody needs, whole at any moment.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test program"
)]

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use firebuild_build::cancel::Cancel;
use firebuild_build::chain::{Chain, ChainLayer};
use firebuild_build::content::store_layer;
use firebuild_build::export::{InUse, disk, disk_key, publish};
use firebuild_oci::{ImageConfig, Platform};
use firebuild_rootfs::layer::{Change, Layer};
use firebuild_rootfs::tree::{Content, Contents, Inode, Kind, Meta, Opened};
use firebuild_store::{Policy, Store};

const ROOT: &str = "FIREBUILD_TEST_IMAGES";
/// Bytes of the layer that all images have.
const BASE: usize = 12 << 20;

struct Memory;

impl Contents for Memory {
    fn open(&self, content: &Content) -> std::io::Result<Opened> {
        let nothing = Arc::new(File::open("/dev/null")?);
        content
            .opened_in(&nothing)
            .ok_or_else(|| std::io::Error::other("not in memory"))
    }
}

/// A layer of one file.
fn layer(store: &Store, name: &str, bytes: usize, seed: u8) -> ChainLayer {
    let mut state = u64::from(seed) + 1;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as u8
    })
    .take(bytes)
    .collect();
    let meta = Meta {
        mode: 0o644,
        ..Meta::default()
    };
    let mut layer = Layer::default();
    layer.push(
        name,
        Change::Node(Inode::new(meta, Kind::File(Content::from_bytes(content)))),
    );
    let stored = store_layer(store, &layer, &Memory).unwrap();
    ChainLayer {
        diff_id: stored.diff_id,
        created: None,
    }
}

/// The image of a number: what all have, and a bit of its own.
fn chain(store: &Store, number: u8) -> Arc<Chain> {
    Chain::scratch()
        .push(layer(store, "base", BASE, 0))
        .push(layer(
            store,
            "own",
            10_000 + usize::from(number) * 3000,
            number,
        ))
}

fn tag(store: &Store, name: &str, chain: &Chain) {
    let config = ImageConfig::new(Platform::linux("amd64"));
    publish(store, chain, &config, &[name.parse().unwrap()], None).unwrap();
}

fn image_beside(store: &Store, chain: &Chain, in_use: &dyn Fn(&Path) -> bool) -> PathBuf {
    let cancel = Cancel::new().unwrap();
    disk(store, chain, None, InUse::of(in_use), &cancel).unwrap()
}

fn image(store: &Store, chain: &Chain) -> PathBuf {
    image_beside(store, chain, &|_| false)
}

/// The bytes of the image of a number, made from nothing in a store of its own.
fn fresh(number: u8) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    std::fs::read(image(&store, &chain(&store, number))).unwrap()
}

fn images(root: &Path) -> usize {
    let list = std::fs::read_dir(root.join("artifacts/ext4")).unwrap();
    list.filter(|entry| entry.as_ref().unwrap().path().extension().is_none())
        .count()
}

/// Whether files are cloned here, so that no image has to be taken for the next one.
fn clones(directory: &Path) -> bool {
    let (one, other) = (directory.join("one"), directory.join("other"));
    std::fs::write(&one, [1; 4096]).unwrap();
    let (one, other) = (File::open(&one).unwrap(), File::create(&other).unwrap());
    rustix::fs::ioctl_ficlone(other, one).is_ok()
}

#[test]
fn a_row_of_builds_keeps_two_images_and_their_bytes_are_right() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let mut inodes = std::collections::BTreeSet::new();
    for number in 0..6 {
        // Each build is a process of its own.
        let store = Store::open(root).unwrap();
        let chain = chain(&store, number);
        let path = image(&store, &chain);
        tag(&store, "t/x:1", &chain);
        assert_eq!(std::fs::read(&path).unwrap(), fresh(number));
        inodes.insert(std::os::unix::fs::MetadataExt::ino(
            &std::fs::metadata(&path).unwrap(),
        ));
        if !clones(root) {
            // While it is made the name is the earlier one's, which stays.
            assert_eq!(images(root), usize::from(number).min(1) + 1);
            assert!(inodes.len() <= 2, "{inodes:?}");
        }
    }
    let store = Store::open(root).unwrap();
    let policy = Policy {
        all: true,
        unused_for: Duration::ZERO,
        kinds: Vec::new(),
        keep_bytes: None,
        dry_run: false,
        remove_tree: &|path| std::fs::remove_dir_all(path),
    };
    store
        .prune(&store.inventory().unwrap(), &policy, &|| false)
        .unwrap();
    assert_eq!(
        std::fs::read_dir(root.join("artifacts/ext4"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn what_is_used_is_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let make = |number| {
        let store = Store::open(root).unwrap();
        image(&store, &chain(&store, number))
    };
    let whole = |path: &Path, number| assert_eq!(std::fs::read(path).unwrap(), fresh(number));
    let first = make(0);
    // Open, as a VM has it: no lease says so.
    let open = File::open(&first).unwrap();
    let second = make(1);
    whole(&first, 0);
    drop(open);
    // Leased by another process that is alive.
    let other = Store::open(root).unwrap();
    assert!(other.hold(&first) && other.hold(&second));
    let third = make(2);
    whole(&first, 0);
    whole(&second, 1);
    drop(other);
    // Under another name besides.
    let link = root.join("link");
    for (path, name) in [(&first, "1"), (&second, "2"), (&third, "3")] {
        std::fs::hard_link(path, link.with_extension(name)).unwrap();
    }
    make(3);
    whole(&link.with_extension("1"), 0);
    whole(&link.with_extension("2"), 1);
    whole(&link.with_extension("3"), 2);
    assert_eq!(images(root), 4);
    for name in ["1", "2", "3"] {
        std::fs::remove_file(link.with_extension(name)).unwrap();
    }
    if clones(root) {
        return;
    }
    // Nothing is in the way any more. What has lost its note, or has a torn one, is left alone.
    std::fs::remove_file(second.with_extension("note")).unwrap();
    let note = third.with_extension("note");
    let torn = std::fs::read(&note).unwrap();
    std::fs::write(&note, &torn[..torn.len() - 1]).unwrap();
    // Nor what a machine has that is not running.
    let store = Store::open(root).unwrap();
    image_beside(&store, &chain(&store, 5), &|_| true);
    drop(store);
    whole(&first, 0);
    let fifth = make(4);
    whole(&fifth, 4);
    whole(&second, 1);
    whole(&third, 2);
    assert_eq!(images(root), 5);
    assert!(!first.exists());
}

/// Makes images until somebody ends it.
fn work(root: &Path) {
    println!("started");
    let mut state = u64::from(std::process::id());
    loop {
        let store = Store::open(root).unwrap();
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let number = ((state >> 33) % 7) as u8;
        let chain = chain(&store, number);
        image(&store, &chain);
        tag(&store, "t/x:1", &chain);
    }
}

#[test]
fn whole_though_killed_at_any_moment() {
    if let Some(root) = std::env::var_os(ROOT) {
        work(Path::new(&root));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    let expected: Vec<Vec<u8>> = (0..7).map(fresh).collect();
    let mut seen = 0;
    for round in 0..20u64 {
        let mut victims: Vec<_> = (0..2)
            .map(|_| {
                Command::new(std::env::current_exe().unwrap())
                    .args([
                        "--exact",
                        "whole_though_killed_at_any_moment",
                        "--nocapture",
                    ])
                    .env(ROOT, &root)
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for victim in &mut victims {
            let mut lines = BufReader::new(victim.stdout.as_mut().unwrap()).lines();
            lines
                .find(|line| line.as_ref().unwrap().contains("started"))
                .unwrap()
                .unwrap();
        }
        std::thread::sleep(Duration::from_millis(300 + round * 37 % 500));
        for victim in &mut victims {
            victim.kill().unwrap();
            victim.wait().unwrap();
        }
        let store = Store::open(&root).unwrap();
        assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0);
        for (number, expected) in (0..).zip(&expected) {
            let chain = chain(&store, number);
            let path = store.artifact_path("ext4", &disk_key(&chain, None).0);
            if path.exists() {
                assert!(&std::fs::read(&path).unwrap() == expected, "{number}");
                seen += 1;
            }
        }
    }
    assert!(
        seen > 5,
        "the victims lived long enough to do something: {seen}"
    );
}
