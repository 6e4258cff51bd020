//! The store as its users see it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test program"
)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use firebuild_oci::{Descriptor, Digest, ImageConfig, Manifest, Platform, Reference, media_type};
use firebuild_store::{Kind, RefRecord, Store, StoreErrorKind};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    (directory, store)
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
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
        annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
    };
    store.set_ref(&record).unwrap();
    record
}

#[test]
fn blobs_are_found_by_their_digest() {
    let (_directory, store) = store();
    let mut writer = store.blob_writer().unwrap();
    let zeros = vec![0; 1 << 20];
    writer.write_all(b"begin").unwrap();
    writer.write_all(&zeros).unwrap();
    writer.write_all(b"end").unwrap();
    writer.write_all(&zeros).unwrap();
    assert_eq!(writer.size(), 8 + (2 << 20));
    let mut whole = b"begin".to_vec();
    whole.extend_from_slice(&zeros);
    whole.extend_from_slice(b"end");
    whole.extend_from_slice(&zeros);
    let digest = writer.commit(Some(&Digest::of(&whole))).unwrap();
    assert_eq!(digest, Digest::of(&whole));
    assert_eq!(store.blob_size(&digest).unwrap(), whole.len() as u64);
    assert_eq!(store.read_blob(&digest, 3 << 20).unwrap(), whole);
    assert!(
        std::fs::metadata(store.blob_path(&digest))
            .unwrap()
            .blocks()
            * 512
            < 1 << 20,
        "zeros are holes"
    );
    let mut end = [0; 3];
    store
        .open_blob(&digest)
        .unwrap()
        .read_exact_at(&mut end, 5 + (1 << 20))
        .unwrap();
    assert_eq!(&end, b"end");
    let mut bytes = Vec::new();
    store
        .read_blob_file(&digest)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    assert_eq!(bytes, whole);
    assert_eq!(store.put_blob(&whole).unwrap(), digest);
    assert!(names(&store.root().join("tmp")).is_empty());
}

#[test]
fn what_is_wrong_gets_no_name() {
    let (_directory, store) = store();
    let mut writer = store.blob_writer().unwrap();
    writer.write_all(b"x").unwrap();
    let error = writer.commit(Some(&Digest::of("y"))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    let mut dropped = store.blob_writer().unwrap();
    dropped.write_all(b"x").unwrap();
    drop(dropped);
    assert!(names(&store.root().join("tmp")).is_empty());
    assert!(names(&store.root().join("blobs/sha256")).is_empty());
    assert_eq!(
        store.open_blob(&Digest::of("x")).unwrap_err().kind(),
        StoreErrorKind::NotFound
    );
    let digest = store.put_blob(b"hello").unwrap();
    assert_eq!(
        store.read_blob(&digest, 4).unwrap_err().kind(),
        StoreErrorKind::Corrupt
    );
    std::fs::write(store.blob_path(&digest), b"jello").unwrap();
    let error = store.read_blob(&digest, 100).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains(&digest.to_string()), "{error}");
}

#[test]
fn many_blobs_share_few_descriptors() {
    let (_directory, store) = store();
    let digests: Vec<Digest> = (0..300u32)
        .map(|n| store.put_blob(&n.to_le_bytes()).unwrap())
        .collect();
    for round in 0..2 {
        for (n, digest) in digests.iter().enumerate() {
            let mut bytes = [0; 4];
            store
                .open_blob(digest)
                .unwrap()
                .read_exact_at(&mut bytes, 0)
                .unwrap();
            assert_eq!(u32::from_le_bytes(bytes) as usize, n, "{round}");
        }
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 200, "{open}");
}

#[test]
fn references_are_an_image_layout() {
    let (_directory, store) = store();
    let one = publish(&store, "org/one:1", b"one");
    let two = publish(&store, "two", b"two");
    assert_eq!(store.list_refs().unwrap(), [two.clone(), one.clone()]);
    assert_eq!(
        store.get_ref(&"org/one:1".parse().unwrap()).unwrap(),
        Some(one.clone())
    );
    assert_eq!(store.get_ref(&"org/one:2".parse().unwrap()).unwrap(), None);
    let layout = firebuild_oci::layout::Layout::open(store.root()).unwrap();
    let image = layout.find(Some("org/one:1")).unwrap();
    assert_eq!(
        layout
            .load(image, &Platform::linux("amd64"))
            .unwrap()
            .manifest_digest,
        Some(one.manifest)
    );
    if Command::new("skopeo").arg("--version").output().is_ok() {
        let output = Command::new("skopeo")
            .args([
                "inspect",
                "--raw",
                &format!("oci:{}:docker.io/org/one:1", store.root().display()),
            ])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(Digest::of(output.stdout), one.manifest);
    } else {
        eprintln!("SKIP references_are_an_image_layout: skopeo is not installed");
    }
    // The same again does not even touch the file.
    let index = store.root().join("index.json");
    let before = std::fs::metadata(&index).unwrap().ino();
    store.set_ref(&one).unwrap();
    assert_eq!(std::fs::metadata(&index).unwrap().ino(), before);
    assert!(store.remove_ref(&"org/one:1".parse().unwrap()).unwrap());
    assert!(!store.remove_ref(&"org/one:1".parse().unwrap()).unwrap());
    assert_eq!(store.list_refs().unwrap(), [two]);
}

#[test]
fn many_writers_lose_no_reference() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let root = &root;
            scope.spawn(move || {
                let store = Store::open(root).unwrap();
                for n in 0..5 {
                    publish(&store, &format!("o/w{worker}:{n}"), b"same");
                }
            });
        }
    });
    assert_eq!(store.list_refs().unwrap().len(), 40);
    assert!(names(&root.join("tmp")).is_empty());
    assert!(names(&root.join("locks")).is_empty());
}

#[test]
fn a_newer_store_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(Store::open(directory.path()).unwrap());
    let meta = directory.path().join("meta.json");
    for text in [
        r#"{"version":2,"features":[]}"#,
        r#"{"version":1,"features":["x"]}"#,
    ] {
        std::fs::write(&meta, text).unwrap();
        let error = Store::open(directory.path()).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::TooNew);
    }
    std::fs::write(&meta, "").unwrap();
    assert_eq!(
        Store::open(directory.path()).unwrap_err().kind(),
        StoreErrorKind::Corrupt
    );
}

#[test]
fn one_computes_and_the_others_wait() {
    let (_directory, store) = store();
    let other = Store::open(store.root()).unwrap();
    let held = store.lock("step", &|| false).unwrap().unwrap();
    assert!(other.try_lock("step").unwrap().is_none());
    assert!(other.try_lock("another").unwrap().is_some());
    // A wait that is cancelled.
    assert!(other.lock("step", &|| true).unwrap().is_none());
    let (got, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let lock = other.lock("step", &|| stop.load(Ordering::SeqCst)).unwrap();
            got.store(lock.is_some(), Ordering::SeqCst);
        });
        std::thread::sleep(Duration::from_millis(100));
        assert!(!got.load(Ordering::SeqCst));
        drop(held);
    });
    assert!(got.load(Ordering::SeqCst));
    for bad in ["", "a/b", ".."] {
        assert!(store.try_lock(bad).is_err());
    }
}

#[test]
fn a_contended_lock_is_held_by_one_at_a_time() {
    let (_directory, store) = store();
    let (inside, root) = (AtomicBool::new(false), store.root().to_owned());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let store = Store::open(&root).unwrap();
                for _ in 0..20 {
                    let lock = loop {
                        if let Some(lock) = store.try_lock("x").unwrap() {
                            break lock;
                        }
                    };
                    assert!(!inside.swap(true, Ordering::SeqCst));
                    std::thread::yield_now();
                    assert!(inside.swap(false, Ordering::SeqCst));
                    drop(lock);
                }
            });
        }
    });
}

#[test]
fn cache_records_snapshots_and_artifacts() {
    let (_directory, store) = store();
    let key = [7; 32];
    assert_eq!(store.cache_get::<Vec<u32>>(&key), None);
    store.cache_put(&key, &vec![1u32, 2]).unwrap();
    assert_eq!(store.cache_get::<Vec<u32>>(&key), Some(vec![1, 2]));
    assert_eq!(store.cache_get::<String>(&key), None);

    let layer = Digest::of("layer");
    assert_eq!(store.snapshot(&layer), None);
    let active = store.prepare_snapshot().unwrap();
    std::fs::write(active.path().join("file"), b"x").unwrap();
    assert_eq!(store.commit_snapshot(active.path(), &layer).unwrap(), None);
    assert_eq!(
        std::fs::read(store.snapshot(&layer).unwrap().join("file")).unwrap(),
        b"x"
    );
    let slower = store.prepare_snapshot().unwrap();
    assert_eq!(
        store
            .commit_snapshot(slower.path(), &layer)
            .unwrap()
            .as_deref(),
        Some(slower.path())
    );

    assert_eq!(store.artifact("ext4", &key), None);
    let file = store.temporary().unwrap();
    std::fs::write(&file, b"disk").unwrap();
    let path = store.adopt_artifact("ext4", &key, &file).unwrap();
    assert_eq!(store.artifact("ext4", &key), Some(path.clone()));
    let file = store.temporary().unwrap();
    std::fs::write(&file, b"another").unwrap();
    assert_eq!(store.adopt_artifact("ext4", &key, &file).unwrap(), path);
    assert_eq!(std::fs::read(&path).unwrap(), b"disk");

    store.settle().unwrap();
    let items = store.inventory().unwrap();
    let count = |kind: Kind| items.iter().filter(|item| item.kind == kind).count();
    assert_eq!((count(Kind::Record), count(Kind::Artifact)), (1, 1));
    // One is whole, the other still being made.
    assert_eq!((count(Kind::Snapshot), count(Kind::Temporary)), (1, 1));
}

#[test]
fn a_settled_session_announces_nothing() {
    let (_directory, store) = store();
    let sessions = store.root().join("sessions");
    let content = |name: &str| std::fs::read_to_string(sessions.join(name)).unwrap();
    store.put_blob(b"x").unwrap();
    let mine = names(&sessions);
    assert_eq!(mine.len(), 1);
    assert_eq!(
        content(&mine[0]),
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap()
            .trim()
    );
    store.settle().unwrap();
    assert_eq!(content(&mine[0]), "");
    store.put_blob(b"y").unwrap();
    assert_ne!(content(&mine[0]), "");
    store.settle().unwrap();
    drop(store);
    assert!(names(&sessions).is_empty());
}

/// A session that ended without waiting for the disk stays announced: to the next boot, and for a while to this one.
#[test]
fn an_unsettled_session_is_announced_after_its_end() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    let sessions = root.join("sessions");
    let torn = store.put_blob(b"torn").unwrap();
    let manifest = store.put_blob(b"no manifest, but it can be torn").unwrap();
    let record = RefRecord {
        name: "docker.io/me/torn:1".to_owned(),
        manifest,
        size: 31,
        annotations: Default::default(),
    };
    store.set_ref(&record).unwrap();
    drop(store);
    let ended = names(&sessions);
    assert!(
        matches!(&ended[..], [name] if name.ends_with(".ended")),
        "{ended:?}"
    );
    // Of this boot and young: left alone.
    let store = Store::open(&root).unwrap();
    assert_eq!(names(&sessions), ended);
    assert_eq!(store.list_refs().unwrap(), [record]);
    drop(store);
    // Of another boot: looked at. What is torn goes, and the name of what is torn.
    std::fs::write(sessions.join(&ended[0]), "another boot").unwrap();
    for digest in [torn, manifest] {
        std::fs::write(root.join("blobs/sha256").join(digest.to_hex()), b"").unwrap();
    }
    let store = Store::open(&root).unwrap();
    assert!(!store.has_blob(&torn));
    assert_eq!(store.list_refs().unwrap(), []);
    drop(store);
    assert_eq!(names(&sessions), Vec::<String>::new());
}

/// What an earlier process left to be settled is settled with what this one wrote, or a build that finds everything in the
/// store would be durable in name only. A session that lives keeps its mark.
#[test]
fn settling_covers_what_others_named() {
    let (_directory, earlier) = store();
    let root = earlier.root().to_owned();
    let sessions = root.join("sessions");
    earlier.put_blob(b"found by the next build").unwrap();
    drop(earlier);
    let living = Store::open(&root).unwrap();
    living.put_blob(b"of a build beside it").unwrap();
    assert_eq!(names(&sessions).len(), 2);
    let store = Store::open(&root).unwrap();
    store.settle().unwrap();
    let left = names(&sessions);
    assert!(
        matches!(&left[..], [name] if !name.ends_with(".ended")),
        "{left:?}"
    );
    assert_ne!(std::fs::read(sessions.join(&left[0])).unwrap(), b"");
    living.settle().unwrap();
    assert_eq!(std::fs::read(sessions.join(&left[0])).unwrap(), b"");
}

/// What a power cut leaves: a session of another boot, and content that is not what it should be.
#[test]
fn torn_content_is_found() {
    for (age, torn_survives) in [(60i64, false), (-60, true)] {
        let (_directory, store) = store();
        let root = store.root().to_owned();
        let (good, torn) = (
            store.put_blob(b"good").unwrap(),
            store.put_blob(b"torn").unwrap(),
        );
        let layer = Digest::of("layer");
        let active = store.prepare_snapshot().unwrap();
        store.commit_snapshot(active.path(), &layer).unwrap();
        let file = store.temporary().unwrap();
        std::fs::write(&file, b"disk").unwrap();
        store.adopt_artifact("ext4", &[1; 32], &file).unwrap();
        drop(store);
        std::fs::write(root.join("blobs/sha256").join(torn.to_hex()), b"").unwrap();
        let session = root.join("sessions/1-0123456789abcdef");
        std::fs::write(&session, "another boot").unwrap();
        let now = SystemTime::now();
        let time = if age > 0 {
            now - Duration::from_secs(60)
        } else {
            now + Duration::from_secs(60)
        };
        std::fs::File::open(&session)
            .unwrap()
            .set_modified(time)
            .unwrap();
        let store = Store::open(&root).unwrap();
        assert!(store.has_blob(&good));
        assert_eq!(store.has_blob(&torn), torn_survives);
        assert_eq!(store.snapshot(&layer).is_some(), torn_survives);
        assert_eq!(store.artifact("ext4", &[1; 32]).is_some(), torn_survives);
        assert!(!session.exists());
        assert!(store.stale_snapshots().unwrap().is_empty());
    }
}

#[test]
fn what_the_dead_left_goes_and_what_the_living_have_stays() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    let mut mine = store.blob_writer().unwrap();
    mine.write_all(b"half").unwrap();
    let active = store.prepare_snapshot().unwrap();
    std::fs::write(root.join("sessions/1-00000000deadbeef"), "").unwrap();
    for name in ["tmp/1-00000000deadbeef.0", "tmp/1-00000000deadbeef.1"] {
        std::fs::write(root.join(name), b"x").unwrap();
    }
    std::fs::create_dir_all(root.join("snapshots/active-1-00000000deadbeef.2/etc")).unwrap();
    // Nobody's session: it could not be removed when its session was.
    let stale = root.join("snapshots/active-2-00000000deadbeef.0");
    std::fs::create_dir(&stale).unwrap();
    let other = Store::open(&root).unwrap();
    assert_eq!(names(&root.join("tmp")).len(), 1);
    assert_eq!(names(&root.join("snapshots")).len(), 2);
    assert_eq!(other.stale_snapshots().unwrap(), [stale]);
    assert!(active.path().exists());
    mine.commit(None).unwrap();
}
