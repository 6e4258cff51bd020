//! Processes that die at any moment, and disks that are full: the store stays whole.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test program"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use firebuild_oci::{
    Descriptor, Digest, Document, ImageConfig, Manifest, Platform, Reference, media_type,
};
use firebuild_store::{Policy, RefRecord, Store, StoreErrorKind};

const ROOT: &str = "FIREBUILD_TEST_STORE";

/// What the victims do until they are killed: everything that a build does to a store.
fn work(root: &Path) {
    let mut state = u64::from(std::process::id());
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    println!("started");
    loop {
        let store = Store::open(root).unwrap();
        for _ in 0..4 {
            let number = next() % 50;
            let content =
                vec![u8::try_from(number).unwrap(); 10_000 + usize::try_from(number).unwrap()];
            let lock = store
                .lock(&format!("step-{number}"), &|| false)
                .unwrap()
                .unwrap();
            let mut writer = store.blob_writer().unwrap();
            for piece in content.chunks(1000) {
                writer.write_all(piece).unwrap();
            }
            let layer = writer.commit(None).unwrap();
            store
                .cache_put(
                    Digest::of([u8::try_from(number).unwrap()]).as_bytes(),
                    &layer,
                )
                .unwrap();
            drop(lock);
            let mut config = ImageConfig::new(Platform::linux("amd64"));
            config.rootfs.diff_ids.push(layer);
            let config = config.to_bytes();
            store.put_blob(&config).unwrap();
            let layers = vec![Descriptor::of(media_type::OCI_LAYER, &content)];
            let manifest =
                Manifest::new(Descriptor::of(media_type::OCI_CONFIG, &config), layers).to_bytes();
            let record = RefRecord {
                name: format!("o/n:{number}")
                    .parse::<Reference>()
                    .unwrap()
                    .canonical(),
                manifest: store.put_blob(&manifest).unwrap(),
                size: manifest.len() as u64,
                annotations: BTreeMap::new(),
            };
            store.set_ref(&record).unwrap();
            let active = store.prepare_snapshot().unwrap();
            std::fs::create_dir(active.path().join("etc")).unwrap();
            std::fs::write(active.path().join("etc/number"), number.to_string()).unwrap();
            let snapshot = Digest::of(number.to_le_bytes());
            if let Some(loser) = store.commit_snapshot(active.path(), &snapshot).unwrap() {
                std::fs::remove_dir_all(loser).unwrap();
            }
            if number % 9 == 0 {
                prune(&store);
            }
            if number % 7 == 0 {
                store
                    .remove_ref(&format!("o/n:{number}").parse().unwrap())
                    .unwrap();
            }
        }
    }
}

/// Makes room beside the others, which may be killed in the middle of it as well.
fn prune(store: &Store) {
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
}

/// Everything that has a name is what its name says, and nothing else is left.
fn check(root: &Path) -> usize {
    let store = Store::open(root).unwrap();
    let list = |name: &str| -> Vec<PathBuf> {
        std::fs::read_dir(root.join(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    for path in list("blobs/sha256") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(Digest::of(std::fs::read(&path).unwrap()).to_hex(), name);
    }
    for path in list("snapshots") {
        let number: u64 = std::fs::read_to_string(path.join("etc/number"))
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            path.ends_with(Digest::of(number.to_le_bytes()).to_hex()),
            "{}",
            path.display()
        );
    }
    assert_eq!(list("tmp"), Vec::<PathBuf>::new());
    // Our own, if the store had to be made anew.
    let mine = format!("{}-", std::process::id());
    let mut sessions = list("sessions");
    sessions.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        // Those that ended by themselves are announced until they are settled.
        !name.starts_with(&mine) && !name.ends_with(".ended")
    });
    assert_eq!(sessions, Vec::<PathBuf>::new());
    let refs = store.list_refs().unwrap();
    for record in &refs {
        let bytes = store.read_blob(&record.manifest, 1 << 20).unwrap();
        let Document::Manifest(manifest) = Document::parse(&bytes, "").unwrap() else {
            panic!("an index")
        };
        assert!(store.has_blob(&manifest.config.digest));
        assert!(
            manifest
                .layers
                .iter()
                .all(|layer| store.has_blob(&layer.digest))
        );
    }
    for number in 0..50u8 {
        if let Some(layer) = store.cache_get::<Digest>(Digest::of([number]).as_bytes()) {
            assert!(store.has_blob(&layer));
        }
        // No dead process holds a lock.
        assert!(store.try_lock(&format!("step-{number}")).unwrap().is_some());
    }
    refs.len()
}

#[test]
fn killed_at_any_moment() {
    if let Some(root) = std::env::var_os(ROOT) {
        work(Path::new(&root));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    let mut most = 0;
    for round in 0..30u64 {
        let mut victims: Vec<_> = (0..3)
            .map(|_| {
                Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "killed_at_any_moment", "--nocapture"])
                    .env(ROOT, &root)
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for victim in &mut victims {
            // Its first lines are the test harness's own.
            let lines = BufReader::new(victim.stdout.as_mut().unwrap()).lines();
            for line in lines {
                if line.unwrap().contains("started") {
                    break;
                }
            }
        }
        std::thread::sleep(Duration::from_micros(700 * round * round % 60_000));
        for victim in &mut victims {
            victim.kill().unwrap();
            victim.wait().unwrap();
        }
        most = most.max(check(&root));
    }
    assert!(
        most > 5,
        "the victims lived long enough to do something: {most}"
    );
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_no_mess() {
    const TEST: &str = "a_full_disk_is_said_and_leaves_no_mess";
    let directory = tempfile::tempdir().unwrap();
    let mounted = rustix::process::geteuid().is_root()
        && Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=700", "none"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    if !mounted {
        let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|need| need == "root"),
            "{TEST} needs root"
        );
        eprintln!("SKIP {TEST}: cannot mount a small disk, which needs root");
        return;
    }
    let mounted = Mounted(directory.path().to_owned());
    let store = Store::open(&mounted.0).unwrap();
    let kept = store.put_blob(&[1; 100_000]).unwrap();
    let large = vec![7; 2 << 20];
    let error = store.put_blob(&large).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NoSpace, "{error}");
    let mut writer = store.blob_writer().unwrap();
    let error = writer.write_all(&large).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    drop(writer);
    assert_eq!(std::fs::read_dir(mounted.0.join("tmp")).unwrap().count(), 0);
    // There is room again, and what was there is still there.
    store.put_blob(&[2; 500_000]).unwrap();
    assert!(store.has_blob(&kept));
    store.settle().unwrap();
}
