//! Making room, beside those who work.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test program"
)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use firebuild_oci::{Descriptor, Digest, ImageConfig, Manifest, Platform, Reference, media_type};
use firebuild_store::{Item, Kind, Policy, Pruned, RefRecord, Store, StoreErrorKind};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    (directory, store)
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    std::fs::remove_dir_all(path)
}

fn policy(all: bool) -> Policy<'static> {
    Policy {
        all,
        unused_for: Duration::ZERO,
        kinds: Vec::new(),
        keep_bytes: None,
        dry_run: false,
        remove_tree: &remove_tree,
    }
}

fn prune(store: &Store, policy: &Policy<'_>) -> Pruned {
    let pruned = store
        .prune(&store.inventory().unwrap(), policy, &|| false)
        .unwrap();
    assert!(pruned.failed.is_empty(), "{:?}", pruned.failed);
    pruned
}

fn kinds(items: &[Item]) -> Vec<&'static str> {
    let mut kinds: Vec<_> = items.iter().map(|item| item.kind.word()).collect();
    kinds.sort_unstable();
    kinds
}

/// An image with one layer, as a build leaves it.
fn publish(store: &Store, name: &str, content: &[u8]) -> RefRecord {
    let layer = store.put_blob(content).unwrap();
    let mut config = ImageConfig::new(Platform::linux("amd64"));
    config.rootfs.diff_ids.push(layer);
    let config = config.to_bytes();
    store.put_blob(&config).unwrap();
    let manifest = Manifest::new(
        Descriptor::of(media_type::OCI_CONFIG, &config),
        vec![Descriptor::of(media_type::OCI_LAYER, content)],
    )
    .to_bytes();
    let record = RefRecord {
        name: name.parse::<Reference>().unwrap().canonical(),
        manifest: store.put_blob(&manifest).unwrap(),
        size: manifest.len() as u64,
        annotations: BTreeMap::new(),
    };
    store.set_ref(&record).unwrap();
    record
}

/// One of everything, made by a process that has ended.
fn fill(root: &Path) {
    let store = Store::open(root).unwrap();
    publish(&store, "keep:1", b"layer");
    let cached = store.put_blob(b"cached").unwrap();
    for (key, layer) in [([1; 32], cached), ([2; 32], Digest::of("layer"))] {
        let record = serde_json::json!({"layer": layer, "name": "RUN make\tall"});
        store.cache_put(&key, &record).unwrap();
    }
    store.put_blob(b"lonely").unwrap();
    let active = store.prepare_snapshot().unwrap();
    store
        .commit_snapshot(active.path(), &Digest::of("cached"))
        .unwrap();
    let file = store.temporary().unwrap();
    std::fs::write(&file, b"disk").unwrap();
    store.adopt_artifact("ext4", &[3; 32], &file).unwrap();
    let mount = root.join(format!("mounts/{}-0", Digest::of("mount").to_hex()));
    store.hold_dir(&mount).unwrap();
    std::fs::write(mount.join("file"), b"x").unwrap();
    let repository = root.join("git").join(Digest::of("repo").to_hex());
    std::fs::create_dir_all(repository).unwrap();
    std::fs::write(root.join("git/known_hosts"), b"host key").unwrap();
    std::fs::create_dir_all(root.join("snapshots/active-9-00000000deadbeef.0/etc")).unwrap();
    std::fs::write(root.join("tmp/9-00000000deadbeef.1"), b"x").unwrap();
}

#[test]
fn everything_is_listed_with_its_reasons() {
    let (_directory, store) = store();
    fill(store.root());
    let items = store.inventory().unwrap();
    assert_eq!(
        kinds(&items),
        [
            "artifact",
            "image",
            "image",
            "layer",
            "layer",
            "layer",
            "mount",
            "record",
            "record",
            "snapshot",
            "source",
            "temporary",
            "temporary"
        ]
    );
    let find = |name: &str| items.iter().find(|item| item.name == name).unwrap();
    let of_image = find(&Digest::of("layer").to_string());
    assert_eq!(of_image.images, ["docker.io/library/keep:1"]);
    assert_eq!(of_image.label.as_deref(), Some("RUN make all"));
    let cached = find(&Digest::of("cached").to_string());
    assert!(cached.images.is_empty());
    assert_eq!(cached.records, [Digest::from_bytes([1; 32]).to_hex()]);
    assert!(cached.users.is_empty());
    // A use is seen, and by whom.
    assert!(store.has_blob(&Digest::of("cached")));
    let items = store.inventory().unwrap();
    let used: Vec<_> = items.iter().filter(|item| !item.users.is_empty()).collect();
    assert_eq!(
        kinds(&used.into_iter().cloned().collect::<Vec<_>>()),
        ["layer", "record"]
    );
}

#[test]
fn what_images_need_stays() {
    let (_directory, store) = store();
    fill(store.root());
    let dry = store
        .prune(
            &store.inventory().unwrap(),
            &Policy {
                dry_run: true,
                ..policy(false)
            },
            &|| false,
        )
        .unwrap();
    let pruned = prune(&store, &policy(false));
    let gone = [
        "artifact",
        "layer",
        "layer",
        "record",
        "snapshot",
        "source",
        "temporary",
        "temporary",
    ];
    assert_eq!(kinds(&pruned.items), gone);
    assert_eq!(kinds(&dry.items), gone);
    assert!(pruned.bytes() > 0);
    let all = prune(&store, &policy(true));
    assert_eq!(kinds(&all.items), ["mount", "record"]);
    assert_eq!(
        kinds(&store.inventory().unwrap()),
        ["image", "image", "layer"]
    );
    store.remove_ref(&"keep:1".parse().unwrap()).unwrap();
    assert_eq!(prune(&store, &policy(false)).items.len(), 3);
    assert!(store.check(&|| false).unwrap().faults.is_empty());
    // Not a cache: whom one believed once is not to be asked again.
    assert!(store.root().join("git/known_hosts").exists());
}

#[test]
fn age_is_that_of_the_last_use() {
    let (_directory, store) = store();
    fill(store.root());
    let path = store.blob_path(&Digest::of("lonely"));
    let day = Duration::from_secs(86_400);
    for path in [&path, &store.blob_path(&Digest::of("cached"))] {
        let file = std::fs::File::open(path).unwrap();
        file.set_modified(SystemTime::now() - day * 2).unwrap();
    }
    let old = Policy {
        unused_for: day,
        kinds: vec![Kind::Layer],
        ..policy(false)
    };
    // A record of it was used lately, and another process uses the other one.
    let user = Store::open(store.root()).unwrap();
    assert!(user.has_blob(&Digest::of("lonely")));
    assert!(prune(&store, &old).items.is_empty());
    drop(user);
    // The use was noted.
    assert!(prune(&store, &old).items.is_empty());
    let file = std::fs::File::open(&path).unwrap();
    file.set_modified(SystemTime::now() - day * 2).unwrap();
    assert_eq!(kinds(&prune(&store, &old).items), ["layer"]);
    assert!(!path.exists());
}

#[test]
fn what_became_of_use_since_the_list_stays() {
    let (_directory, store) = store();
    fill(store.root());
    let items = store.inventory().unwrap();
    let other = Store::open(store.root()).unwrap();
    assert!(other.has_blob(&Digest::of("cached")));
    publish(&other, "new:1", b"lonely");
    drop(other);
    let user = Store::open(store.root()).unwrap();
    assert!(user.snapshot(&Digest::of("cached")).is_some());
    store.prune(&items, &policy(true), &|| false).unwrap();
    assert!(user.snapshot(&Digest::of("cached")).is_some());
    assert!(store.blob_path(&Digest::of("lonely")).exists());
    assert!(store.check(&|| false).unwrap().faults.is_empty());
}

/// A file in the place of the directory of leases stands for a disk without room: no use can be written down.
#[test]
fn room_is_made_where_no_use_can_be_written_down() {
    let (_directory, store) = store();
    fill(store.root());
    let leases = store.root().join("leases");
    let _ = std::fs::remove_dir_all(&leases);
    std::fs::write(&leases, b"").unwrap();
    assert!(store.has_blob(&Digest::of("cached")));
    let items = store.inventory().unwrap();
    let pruned = store.prune(&items, &policy(true), &|| false).unwrap();
    assert!(pruned.failed.is_empty(), "{:?}", pruned.failed);
    assert!(!store.blob_path(&Digest::of("lonely")).exists());
    assert!(
        store.blob_path(&Digest::of("cached")).exists(),
        "it is in use"
    );
    // Others know nothing of that, and keep away.
    let other = Store::open(store.root()).unwrap();
    let began = std::time::Instant::now();
    let busy = other.prune(&items, &policy(true), &|| began.elapsed().as_millis() > 50);
    assert_eq!(busy.unwrap_err().kind(), StoreErrorKind::Busy);
    drop(store);
    let items = other.inventory().unwrap();
    other.prune(&items, &policy(true), &|| false).unwrap();
    assert!(!other.blob_path(&Digest::of("cached")).exists());
}

#[test]
fn nothing_is_removed_from_a_damaged_store() {
    let (_directory, store) = store();
    publish(&store, "keep:1", b"layer");
    let items = store.inventory().unwrap();
    store.put_blob(b"lonely").unwrap();
    std::fs::write(store.root().join("index.json"), b"{").unwrap();
    let error = store.inventory().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    store.prune(&items, &policy(true), &|| false).unwrap();
    assert!(store.has_blob(&Digest::of("lonely")));
}

#[test]
fn damage_is_found() {
    let (_directory, store) = store();
    fill(store.root());
    assert!(store.check(&|| false).unwrap().faults.is_empty());
    std::fs::write(store.blob_path(&Digest::of("lonely")), b"other").unwrap();
    std::fs::remove_file(store.blob_path(&Digest::of("layer"))).unwrap();
    let found = store.check(&|| false).unwrap();
    let mut paths: Vec<PathBuf> = found.faults.into_iter().map(|fault| fault.path).collect();
    paths.sort();
    let mut expected = [Digest::of("lonely"), Digest::of("layer")].map(|it| store.blob_path(&it));
    expected.sort();
    assert_eq!(paths, expected);
}

const ROOT: &str = "FIREBUILD_TEST_STORE";
const TEST: &str = "builds_go_on_beside_a_prune";

/// Finds or makes layers as builds do, and reads them later: what was found once has to be there.
fn build(root: &Path) {
    let mut rounds = 0u32;
    let mut hits = 0;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        rounds += 1;
        let store = Store::open(root).unwrap();
        let mut found = Vec::new();
        for number in 0..6u8 {
            let content = vec![number; 5000];
            let digest = Digest::of(&content);
            let key = *Digest::of([number]).as_bytes();
            let layer: Option<Digest> = store.cache_get(&key);
            match layer {
                Some(layer) if store.has_blob(&layer) => hits += 1,
                _ => {
                    let _lock = store.lock(&format!("step-{number}"), &|| false).unwrap();
                    store.put_blob(&content).unwrap();
                    store.cache_put(&key, &digest).unwrap();
                }
            }
            if store.snapshot(&digest).is_none() {
                let active = store.prepare_snapshot().unwrap();
                std::fs::write(active.path().join("file"), &content).unwrap();
                if let Some(lost) = store.commit_snapshot(active.path(), &digest).unwrap() {
                    std::fs::remove_dir_all(lost).unwrap();
                }
            }
            found.push((digest, content));
        }
        std::thread::sleep(Duration::from_millis(u64::from(rounds % 7)));
        for (digest, content) in found {
            assert_eq!(store.read_blob(&digest, 1 << 20).unwrap(), content);
            let path = store.snapshot_path(&digest);
            assert_eq!(std::fs::read(path.join("file")).unwrap(), content);
        }
        let name = format!("o/n:{}", std::process::id());
        publish(&store, &name, &[9, u8::try_from(rounds % 5).unwrap()]);
    }
    println!("rounds {rounds} hits {hits}");
}

#[test]
fn builds_go_on_beside_a_prune() {
    if let Some(root) = std::env::var_os(ROOT) {
        build(Path::new(&root));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    let store = Store::open(&root).unwrap();
    let mut builds: Vec<Child> = (0..3)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", TEST, "--nocapture"])
                .env(ROOT, &root)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let (mut prunes, mut gone, mut longest) = (0, 0, Duration::ZERO);
    while builds
        .iter_mut()
        .any(|child| child.try_wait().unwrap().is_none())
    {
        let begin = Instant::now();
        gone += prune(&store, &policy(true)).items.len();
        longest = longest.max(begin.elapsed());
        prunes += 1;
    }
    let mut rounds = 0;
    for mut child in builds {
        assert!(child.wait().unwrap().success());
        let mut text = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        let line = text
            .lines()
            .find_map(|line| line.split_once("rounds "))
            .unwrap()
            .1;
        rounds += line.split(' ').next().unwrap().parse::<u32>().unwrap();
    }
    println!(
        "{prunes} prunes removed {gone} things beside {rounds} builds, the longest in {longest:?}"
    );
    assert!(
        prunes > 20 && gone > 20 && rounds > 20,
        "{prunes} {gone} {rounds}"
    );
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    assert!(store.check(&|| false).unwrap().faults.is_empty());
    drop(store);
    let store = Store::open(&root).unwrap();
    prune(&store, &policy(true));
    let left = store.inventory().unwrap();
    assert!(left.iter().all(|item| !item.images.is_empty()), "{left:?}");
}

#[test]
fn a_note_counts_as_its_artifact_and_goes_with_it() {
    let (_directory, store) = store();
    let artifact = |key: u8| {
        let file = store.temporary().unwrap();
        std::fs::write(&file, vec![key; 4096]).unwrap();
        store.adopt_artifact("ext4", &[key; 32], &file).unwrap()
    };
    let (kept, alone) = (artifact(1), artifact(2));
    store.put_note("ext4", &[1; 32], &[7; 8192]);
    // Of an artifact that went in the same moment.
    store.put_note("ext4", &[3; 32], b"lost");
    assert_eq!(store.note("ext4", &[1; 32], 100), Some(vec![7; 100]));
    assert_eq!(store.note("ext4", &[2; 32], 100), None);
    let noted: Vec<_> = store.noted("ext4").into_iter().map(|one| one.key).collect();
    assert_eq!(noted, [[1; 32]]);
    // What we use ourselves is nobody's to take.
    assert!(
        store
            .take_artifact("ext4", &[1; 32], &|_| false)
            .unwrap()
            .is_none()
    );
    let root = store.root().to_owned();
    drop(store);

    let store = Store::open(root).unwrap();
    let items = store.inventory().unwrap();
    let bytes = |path: &Path| items.iter().find(|item| item.path == *path).unwrap().bytes;
    assert_eq!(bytes(&kept) - bytes(&alone), 8192);
    assert_eq!(kinds(&items), ["artifact", "artifact", "temporary"]);
    // Something that only the caller knows of.
    let in_use = |path: &Path| path == alone;
    assert!(
        store
            .take_artifact("ext4", &[2; 32], &in_use)
            .unwrap()
            .is_none()
    );
    let taken = store.take_artifact("ext4", &[2; 32], &|_| false).unwrap();
    let (taken, _file) = taken.unwrap();
    assert_eq!(std::fs::read(taken).unwrap(), vec![2; 4096]);
    assert!(!alone.exists());
    prune(&store, &policy(true));
    let left = std::fs::read_dir(kept.parent().unwrap()).unwrap().count();
    assert_eq!(left, 0);
}
