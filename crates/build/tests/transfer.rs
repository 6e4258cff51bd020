//! Images into the store: pulled from Debian's `docker-registry`, and imported from layouts that skopeo made.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test program"
)]

#[path = "../../oci/tests/harness/mod.rs"]
mod harness;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use firebuild_build::cancel::Cancel;
use firebuild_build::event::Event;
use firebuild_build::export::ImageRecord;
use firebuild_build::transfer::{
    ImportOptions, Limits, TransferError, TransferErrorKind as Kind, import_layout, pull,
};
use firebuild_oci::registry::{Credentials, Options, Registry};
use firebuild_oci::{Descriptor, Digest, ImageConfig, Manifest, Platform, Reference, media_type};
use firebuild_store::Store;
use harness::{Image, RealRegistry, have, image, layer, layout, noise, run};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

fn client() -> Registry {
    Registry::new(Options {
        credentials: Credentials::Anonymous,
        ..Options::default()
    })
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn pull_it(store: &Store, reference: &Reference) -> Result<ImageRecord, TransferError> {
    let cancel = Cancel::new().unwrap();
    pull(
        store,
        &client(),
        reference,
        &amd64(),
        &Limits::default(),
        &|_| {},
        &cancel,
    )
}

fn import_it(store: &Store, path: &Path, limits: Limits) -> Result<ImageRecord, TransferError> {
    let options = ImportOptions {
        name: None,
        platform: amd64(),
        limits,
        named: true,
    };
    let reference = "org/imported:1".parse().unwrap();
    import_layout(
        store,
        path,
        &reference,
        &options,
        &|_| {},
        &Cancel::new().unwrap(),
    )
}

fn check(store: &Store, found: &ImageRecord, image: &Image) {
    let layers: Vec<Digest> = found
        .chain
        .layers()
        .iter()
        .map(|layer| layer.diff_id)
        .collect();
    assert_eq!(layers, image.config.rootfs.diff_ids);
    for (descriptor, bytes) in &image.blobs[..layers.len()] {
        assert_eq!(
            &store.read_blob(&descriptor.digest, 64 << 20).unwrap(),
            bytes
        );
    }
    assert_eq!(found.config.config.cmd, image.config.config.cmd);
    let tree = found.chain.tree(store).unwrap();
    drop(tree);
    assert!(
        std::fs::read_dir(store.root().join("tmp"))
            .unwrap()
            .next()
            .is_none()
    );
}

fn causes(error: &TransferError) -> String {
    let mut text = error.to_string();
    let mut at = std::error::Error::source(error);
    while let Some(cause) = at {
        text.push_str(&format!(": {cause}"));
        at = cause.source();
    }
    text
}

#[test]
fn an_image_is_pulled_and_its_layers_are_fetched_once() {
    const TEST: &str = "an_image_is_pulled_and_its_layers_are_fetched_once";
    let (Some(server), true) = (RealRegistry::start(TEST), have(TEST, "skopeo")) else {
        return;
    };
    // The same layer twice, and more layers than threads.
    let mut layers: Vec<Vec<u8>> = (0..6)
        .map(|seed| layer(&format!("f{seed}"), &noise(400_000, seed * 2 + 1)))
        .collect();
    layers.push(layers[0].clone());
    let pushed = image("linux/amd64", &layers);
    let path = layout(server.directory.path(), &pushed, "v1");
    let (_directory, store) = store();
    for (name, compression) in [("o/gzip:1", "gzip"), ("o/zstd:1", "zstd")] {
        server.skopeo(
            &format!("oci:{}:v1", path.display()),
            name,
            &["--dest-compress-format", compression],
        );
        let reference: Reference = format!("{}/{name}", server.address).parse().unwrap();
        let events = Mutex::new(Vec::new());
        let found = pull(
            &store,
            &client(),
            &reference,
            &amd64(),
            &Limits::default(),
            &|event| events.lock().unwrap().push(event),
            &Cancel::new().unwrap(),
        )
        .unwrap();
        check(&store, &found, &pushed);
        assert_eq!(found.name, reference.canonical());
        let done = events
            .into_inner()
            .unwrap()
            .iter()
            .filter(|event| matches!(event, Event::Progress { done: true, current, total: Some(total), .. } if current == total))
            .count();
        assert_eq!(done, 7);
        // By digest as well, and the digest is the registry's.
        let pinned = reference.with_digest(found.source.unwrap());
        assert_eq!(
            pull_it(&store, &pinned).unwrap().config_digest,
            found.config_digest
        );
    }
    assert_eq!(store.list_refs().unwrap().len(), 4);
}

#[test]
fn what_the_store_has_is_not_asked_for() {
    let Some(server) = RealRegistry::start("what_the_store_has_is_not_asked_for") else {
        return;
    };
    let pushed = image(
        "linux/amd64",
        &[layer("a", b"x"), layer("b", &noise(10_000, 1))],
    );
    let reference: Reference = format!("{}/o/n:1", server.address).parse().unwrap();
    push(&reference, &pushed);
    let (_directory, store) = store();
    let found = pull_it(&store, &reference).unwrap();
    check(&store, &found, &pushed);
    // The configuration keeps its bytes.
    assert_eq!(found.config_digest, Digest::of(pushed.config.to_bytes()));
    assert_eq!(found.source, Some(pushed.manifest.digest));
    // The registry forgets the layers, and it does not matter.
    for (descriptor, _) in &pushed.blobs[..2] {
        let hex = descriptor.digest.to_hex();
        let path = server
            .directory
            .path()
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex);
        std::fs::remove_dir_all(path).unwrap();
    }
    check(&store, &pull_it(&store, &reference).unwrap(), &pushed);
}

fn push(reference: &Reference, image: &Image) {
    let registry = client();
    for (descriptor, bytes) in &image.blobs {
        if descriptor.media_type == media_type::OCI_MANIFEST {
            continue;
        }
        let content = bytes.clone();
        let open = move || {
            Ok(Box::new(std::io::Cursor::new(content.clone())) as Box<dyn std::io::Read + Send>)
        };
        registry
            .push_blob(reference, descriptor, &open, &(Arc::new(|_| {}) as _))
            .unwrap();
    }
    registry
        .push_manifest(reference, media_type::OCI_MANIFEST, &image.manifest_bytes)
        .unwrap();
}

/// An image whose layer blobs are these bytes, while the configuration names others.
fn dressed(blobs: &[(&str, Vec<u8>)], diff_ids: &[Digest]) -> Image {
    let mut config = ImageConfig::new(amd64());
    config.rootfs.diff_ids = diff_ids.to_vec();
    let config_bytes = config.to_bytes();
    let mut all: Vec<(Descriptor, Vec<u8>)> = blobs
        .iter()
        .map(|(kind, bytes)| (Descriptor::of(*kind, bytes), bytes.clone()))
        .collect();
    let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config_bytes);
    let manifest = Manifest::new(
        config_descriptor.clone(),
        all.iter().map(|(d, _)| d.clone()).collect(),
    );
    all.push((config_descriptor, config_bytes));
    let manifest_bytes = manifest.to_bytes();
    let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &manifest_bytes);
    all.push((descriptor.clone(), manifest_bytes.clone()));
    Image {
        blobs: all,
        manifest: descriptor,
        manifest_bytes,
        config,
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn layers_that_are_not_what_they_should_be() {
    let Some(server) = RealRegistry::start("layers_that_are_not_what_they_should_be") else {
        return;
    };
    let good = layer("a", b"hello");
    let mut cut = gzip(&noise(100_000, 3));
    cut.truncate(50_000);
    let mut broken = gzip(&noise(100_000, 3));
    broken[60_000] ^= 0xff;
    for (name, kind, bytes, diff_id, wanted, says) in [
        (
            "other",
            media_type::OCI_LAYER,
            good.clone(),
            Digest::of("else"),
            Kind::Corrupt,
            "not the one that the image config",
        ),
        (
            "cut",
            media_type::OCI_LAYER_GZIP,
            cut,
            Digest::of(noise(100_000, 3)),
            Kind::Corrupt,
            "cannot be decompressed",
        ),
        (
            "broken",
            media_type::OCI_LAYER_GZIP,
            broken,
            Digest::of(noise(100_000, 3)),
            Kind::Corrupt,
            "",
        ),
        (
            "type",
            "application/vnd.acme.layer+encrypted",
            good.clone(),
            Digest::of(&good),
            Kind::Corrupt,
            "encrypted",
        ),
    ] {
        let reference: Reference = format!("{}/o/{name}:1", server.address).parse().unwrap();
        let pushed = dressed(&[(kind, bytes)], &[diff_id]);
        push(&reference, &pushed);
        let (_directory, store) = store();
        let error = pull_it(&store, &reference).unwrap_err();
        let text = causes(&error);
        assert_eq!(error.kind(), wanted, "{text}");
        assert!(text.contains(says), "{text}");
        assert!(
            text.contains(&pushed.blobs[0].0.digest.short())
                || text.contains(&pushed.blobs[0].0.digest.to_string()),
            "{text}"
        );
        assert!(store.list_refs().unwrap().is_empty());
        assert_eq!(
            std::fs::read_dir(store.root().join("tmp")).unwrap().count(),
            0
        );
        assert_eq!(
            std::fs::read_dir(store.root().join("blobs/sha256"))
                .unwrap()
                .count(),
            0
        );
    }
    let reference: Reference = format!("{}/no/such:1", server.address).parse().unwrap();
    let (_directory, store) = store();
    let error = pull_it(&store, &reference).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("no/such:1"), "{error}");
}

#[test]
fn two_pulls_at_once_fetch_each_layer_once() {
    let Some(server) = RealRegistry::start("two_pulls_at_once_fetch_each_layer_once") else {
        return;
    };
    let layers: Vec<Vec<u8>> = (0..4)
        .map(|seed| layer("f", &noise(3 << 20, seed * 2 + 1)))
        .collect();
    let pushed = image("linux/amd64", &layers);
    let reference: Reference = format!("{}/o/n:1", server.address).parse().unwrap();
    push(&reference, &pushed);
    let (directory, store) = store();
    let fetched = Mutex::new(0u64);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // As another process would: a store of its own.
                let store = Store::open(directory.path()).unwrap();
                let last = Mutex::new(std::collections::HashMap::new());
                let sink = |event: Event| {
                    if let Event::Progress {
                        item,
                        current,
                        done: false,
                        ..
                    } = event
                    {
                        last.lock().unwrap().insert(item, current);
                    }
                };
                let cancel = Cancel::new().unwrap();
                pull(
                    &store,
                    &client(),
                    &reference,
                    &amd64(),
                    &Limits::default(),
                    &sink,
                    &cancel,
                )
                .unwrap();
                *fetched.lock().unwrap() += last.into_inner().unwrap().values().sum::<u64>();
            });
        }
    });
    let total: u64 = layers.iter().map(|layer| layer.len() as u64).sum();
    assert_eq!(*fetched.lock().unwrap(), total);
    check(&store, &pull_it(&store, &reference).unwrap(), &pushed);
}

#[test]
fn a_pull_stops_when_asked() {
    let Some(server) = RealRegistry::start("a_pull_stops_when_asked") else {
        return;
    };
    let pushed = image("linux/amd64", &[layer("a", &noise(8 << 20, 5))]);
    let reference: Reference = format!("{}/o/n:1", server.address).parse().unwrap();
    push(&reference, &pushed);
    let (_directory, store) = store();
    let cancel = Cancel::new().unwrap();
    let sink = |event: Event| {
        if matches!(event, Event::Progress { current: 1.., .. }) {
            cancel.raise();
        }
    };
    let error = pull(
        &store,
        &client(),
        &reference,
        &amd64(),
        &Limits::default(),
        &sink,
        &cancel,
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled, "{}", causes(&error));
    assert_eq!(
        std::fs::read_dir(store.root().join("tmp")).unwrap().count(),
        0
    );
    assert!(store.list_refs().unwrap().is_empty());
    check(&store, &pull_it(&store, &reference).unwrap(), &pushed);
}

#[test]
fn layouts_and_archives_are_imported() {
    const TEST: &str = "layouts_and_archives_are_imported";
    let directory = tempfile::tempdir().unwrap();
    let wanted = image(
        "linux/amd64",
        &[layer("a", b"hello"), layer("b", &noise(200_000, 1))],
    );
    let path = layout(directory.path(), &wanted, "v1");
    let mut sources = vec![path.clone()];
    if have(TEST, "skopeo") {
        for (kind, file) in [("oci-archive", "oci.tar"), ("docker-archive", "docker.tar")] {
            let to = directory.path().join(file);
            let (from, target) = (
                format!("oci:{}:v1", path.display()),
                format!("{kind}:{}:o/n:1", to.display()),
            );
            run(Command::new("skopeo").args(["copy", "--quiet", &from, &target]));
            sources.push(to);
        }
    }
    for source in sources {
        let (_directory, store) = store();
        let found = import_it(&store, &source, Limits::default()).unwrap();
        check(&store, &found, &wanted);
        assert_eq!(found.name, "docker.io/org/imported:1");
    }
}

#[test]
fn every_kind_of_compression_is_read() {
    let content = layer("a", &noise(300_000, 9));
    let (one, two) = content.split_at(100_000);
    let mut members = gzip(one);
    members.extend(gzip(two));
    let mut frames = zstd::encode_all(one, 3).unwrap();
    frames.extend(zstd::encode_all(two, 3).unwrap());
    for (kind, bytes) in [
        (media_type::OCI_LAYER, content.clone()),
        (media_type::OCI_LAYER_GZIP, members.clone()),
        (media_type::OCI_LAYER_ZSTD, frames),
        // The bytes decide, not the name.
        (media_type::OCI_LAYER_GZIP, content.clone()),
        (media_type::DOCKER_LAYER, members),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = layout(
            directory.path(),
            &dressed(&[(kind, bytes)], &[Digest::of(&content)]),
            "v1",
        );
        let (_directory, store) = store();
        import_it(&store, &path, Limits::default()).unwrap();
        let mut stored = Vec::new();
        store
            .read_blob_file(&Digest::of(&content))
            .unwrap()
            .read_to_end(&mut stored)
            .unwrap();
        assert_eq!(stored, content, "{kind}");
    }
    // A layer of no bytes at all is a valid, if strange, tar.
    let directory = tempfile::tempdir().unwrap();
    let empty = dressed(&[(media_type::OCI_LAYER, Vec::new())], &[Digest::of("")]);
    let path = layout(directory.path(), &empty, "v1");
    let (_directory, store) = store();
    import_it(&store, &path, Limits::default()).unwrap();
}

#[test]
fn a_layer_that_unpacks_to_too_much_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let zeros = vec![0u8; 20 << 20];
    for (name, kind, bytes) in [
        ("gzip", media_type::OCI_LAYER_GZIP, gzip(&zeros)),
        (
            "zstd",
            media_type::OCI_LAYER_ZSTD,
            zstd::encode_all(&zeros[..], 3).unwrap(),
        ),
    ] {
        let path = directory.path().join(name);
        std::fs::create_dir(&path).unwrap();
        let path = layout(
            &path,
            &dressed(&[(kind, bytes)], &[Digest::of(&zeros)]),
            "v1",
        );
        let (_directory, store) = store();
        let limits = Limits {
            max_layer: 10 << 20,
            ..Limits::default()
        };
        let error = import_it(&store, &path, limits).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge, "{}", causes(&error));
        assert!(
            causes(&error).contains(&(10u64 << 20).to_string()),
            "{}",
            causes(&error)
        );
        assert_eq!(
            std::fs::read_dir(store.root().join("tmp")).unwrap().count(),
            0
        );
    }
}

#[test]
fn a_damaged_layout_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = image("linux/amd64", &[layer("a", b"hello")]);
    let path = layout(directory.path(), &wanted, "v1");
    let digest = wanted.blobs[0].0.digest;
    let blob = path.join("blobs/sha256").join(digest.to_hex());
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[600] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let (_directory, store) = store();
    let error = import_it(&store, &path, Limits::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(
        causes(&error).contains(&digest.to_string()),
        "{}",
        causes(&error)
    );
    std::fs::remove_file(&blob).unwrap();
    let error = import_it(&store, &path, Limits::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    let error = import_it(&store, Path::new("/nowhere"), Limits::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert!(causes(&error).contains("/nowhere"), "{}", causes(&error));
}
