//! Layouts: what we write others read, what others write we read.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test program"
)]

mod harness;

use std::error::Error as _;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use firebuild_oci::layout::{Layout, LayoutErrorKind, LayoutWriter};
use firebuild_oci::{Descriptor, Digest, Index, Platform};
use harness::{Image, Shared, have, image, layer, layout, noise, run};

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn two_layers() -> Image {
    image(
        "linux/amd64",
        &[layer("a", b"hello"), layer("b", &noise(100_000, 1))],
    )
}

/// Loads an image and gives the bytes of its layers as they are stored.
fn contents(layout: &Layout, name: Option<&str>) -> (Digest, Vec<Vec<u8>>) {
    let loaded = layout.load(layout.find(name).unwrap(), &amd64()).unwrap();
    let layers = loaded.layers.iter().map(|layer| {
        let mut bytes = Vec::new();
        layout
            .open_layer(layer)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    });
    (Digest::of(&loaded.config_bytes), layers.collect())
}

fn wanted(image: &Image) -> (Digest, Vec<Vec<u8>>) {
    let layers = image.blobs.len() - 2;
    (
        image.blobs[layers].0.digest,
        image.blobs[..layers]
            .iter()
            .map(|(_, bytes)| bytes.clone())
            .collect(),
    )
}

fn archive(image: &Image, tag: &str) -> Vec<u8> {
    let out = Shared::default();
    harness::write(
        LayoutWriter::archive(Box::new(out.clone())).unwrap(),
        &[("linux/amd64", image)],
        tag,
    );
    out.0.lock().unwrap().clone()
}

#[test]
fn directories_and_archives_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let image = two_layers();
    let path = layout(directory.path(), &image, "org/n:1");
    let tar = directory.path().join("image.tar");
    std::fs::write(&tar, archive(&image, "org/n:1")).unwrap();
    for path in [&path, &tar] {
        let layout = Layout::open(path).unwrap();
        assert_eq!(layout.images().len(), 1);
        for name in [None, Some("org/n:1"), Some("docker.io/org/n:1")] {
            assert_eq!(contents(&layout, name), wanted(&image));
        }
        let error = layout.find(Some("other")).unwrap_err();
        assert_eq!(error.kind(), LayoutErrorKind::NoImage);
        assert!(error.to_string().contains("org/n:1"), "{error}");
        let arm: Platform = "linux/arm64".parse().unwrap();
        let error = layout.load(&layout.images()[0], &arm).unwrap_err();
        assert_eq!(error.kind(), LayoutErrorKind::Platform);
    }
}

#[test]
fn the_same_image_gives_the_same_archive() {
    let image = two_layers();
    assert_eq!(archive(&image, "x"), archive(&image, "x"));
}

#[test]
fn a_layout_is_added_to() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (two_layers(), image("linux/amd64", &[layer("c", b"c")]));
    let path = layout(directory.path(), &first, "one");
    layout(directory.path(), &second, "two");
    let layout_now = Layout::open(&path).unwrap();
    assert_eq!(contents(&layout_now, Some("one")), wanted(&first));
    assert_eq!(contents(&layout_now, Some("two")), wanted(&second));
    assert_eq!(
        layout_now.find(None).unwrap_err().kind(),
        LayoutErrorKind::NoImage
    );
    layout(directory.path(), &second, "one");
    let layout_now = Layout::open(&path).unwrap();
    assert_eq!(layout_now.images().len(), 2);
    assert_eq!(contents(&layout_now, Some("one")), wanted(&second));
    let leftovers = walk(&path)
        .into_iter()
        .filter(|name| name.contains(".part"))
        .count();
    assert_eq!(leftovers, 0);
}

fn walk(path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        out.push(entry.path().display().to_string());
        if entry.file_type().unwrap().is_dir() {
            out.extend(walk(&entry.path()));
        }
    }
    out
}

#[test]
fn the_writer_refuses_a_lie() {
    let directory = tempfile::tempdir().unwrap();
    for (size, digest) in [
        (5, Digest::of("other")),
        (4, Digest::of("hello")),
        (6, Digest::of("hello")),
    ] {
        let mut writer = LayoutWriter::directory(directory.path()).unwrap();
        let descriptor = Descriptor::new("", digest, size);
        writer.blob(&descriptor, &mut &b"hello"[..]).unwrap_err();
    }
    assert!(
        std::fs::read_dir(directory.path().join("blobs/sha256"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn skopeo_and_umoci_read_what_we_write() {
    const TEST: &str = "skopeo_and_umoci_read_what_we_write";
    let directory = tempfile::tempdir().unwrap();
    let image = two_layers();
    let path = layout(directory.path(), &image, "v1");
    let tar = directory.path().join("image.tar");
    std::fs::write(&tar, archive(&image, "v1")).unwrap();
    if have(TEST, "skopeo") {
        for from in [
            format!("oci:{}:v1", path.display()),
            format!("oci-archive:{}:v1", tar.display()),
        ] {
            let raw = run(Command::new("skopeo").args(["inspect", "--raw", &from]));
            assert_eq!(Digest::of(raw), image.manifest.digest, "{from}");
            let copy = directory.path().join("copy");
            run(Command::new("skopeo").args([
                "copy",
                "--quiet",
                &from,
                &format!("dir:{}", copy.display()),
            ]));
        }
    }
    if have(TEST, "umoci") {
        let bundle = directory.path().join("bundle");
        let image = format!("{}:v1", path.display());
        run(Command::new("umoci")
            .args(["unpack", "--rootless", "--image", &image])
            .arg(&bundle));
        assert_eq!(std::fs::read(bundle.join("rootfs/a")).unwrap(), b"hello");
    }
}

#[test]
fn docker_archives_of_skopeo_are_read() {
    const TEST: &str = "docker_archives_of_skopeo_are_read";
    if !have(TEST, "skopeo") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = two_layers();
    let path = layout(directory.path(), &image, "v1");
    let saved = directory.path().join("saved.tar");
    let to = format!("docker-archive:{}:org/n:1", saved.display());
    run(Command::new("skopeo").args([
        "copy",
        "--quiet",
        &format!("oci:{}:v1", path.display()),
        &to,
    ]));
    let layout = Layout::open(&saved).unwrap();
    assert_eq!(layout.images()[0].names, ["docker.io/org/n:1"]);
    let (_, layers) = contents(&layout, Some("org/n:1"));
    assert_eq!(layers, wanted(&image).1);
}

/// A tar by hand: names with contents, or with a link target.
fn tar(members: &[(&str, Result<&[u8], &str>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match content {
            Ok(bytes) => {
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, name, *bytes).unwrap();
            }
            Err(target) => {
                header.set_size(0);
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, name, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

#[test]
fn old_docker_archives_with_links() {
    let directory = tempfile::tempdir().unwrap();
    let one = layer("a", b"1");
    let image = image("linux/amd64", &[one.clone(), one.clone()]);
    let config = &image.blobs[2].1;
    let manifest =
        br#"[{"Config":"c.json","RepoTags":["a:b"],"Layers":["x/layer.tar","y/layer.tar"]}]"#;
    let path = directory.path().join("saved.tar");
    let bytes = tar(&[
        ("y/layer.tar", Err("../x/layer.tar")),
        ("./x/layer.tar", Ok(&one)),
        ("c.json", Ok(config)),
        ("manifest.json", Ok(manifest)),
    ]);
    std::fs::write(&path, bytes).unwrap();
    let layout = Layout::open(&path).unwrap();
    assert_eq!(contents(&layout, Some("a:b")).1, [one.clone(), one]);
}

#[test]
fn what_is_wrong_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let image = two_layers();
    let one = &image.blobs[0].1;
    let config = &image.blobs[2].1;
    let check = |bytes: &[u8], kind: LayoutErrorKind, says: &str| {
        let path = directory.path().join("bad.tar");
        std::fs::write(&path, bytes).unwrap();
        let result = Layout::open(&path).and_then(|layout| {
            let loaded = layout.load(layout.find(None)?, &amd64())?;
            for layer in &loaded.layers {
                let mut bytes = Vec::new();
                layout
                    .open_layer(layer)?
                    .read_to_end(&mut bytes)
                    .map_err(|_| layout.find(Some("cut")).unwrap_err())?;
            }
            Ok(())
        });
        let error = result.unwrap_err();
        let text = format!("{error}: {:?}", error.source().map(ToString::to_string));
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(says), "{text}");
    };
    use LayoutErrorKind as Kind;
    check(b"", Kind::NotALayout, "no index.json");
    check(&[0x1f, 0x8b, 8, 0, 0, 0], Kind::NotALayout, "decompress");
    check(&noise(4096, 3), Kind::NotALayout, "no tar");
    check(&tar(&[("x", Ok(b"y"))]), Kind::NotALayout, "no index.json");
    check(
        &tar(&[("index.json", Ok(b"{"))]),
        Kind::Corrupt,
        "index.json",
    );
    check(
        &tar(&[("index.json", Ok(br#"{"schemaVersion":2,"manifests":[]}"#))]),
        Kind::NoImage,
        "no image",
    );
    let index = Index::new(vec![image.manifest.clone()]).to_bytes();
    check(
        &tar(&[("index.json", Ok(&index))]),
        Kind::Corrupt,
        "is missing",
    );
    let name = format!("blobs/sha256/{}", image.manifest.digest.to_hex());
    check(
        &tar(&[("index.json", Ok(&index)), (&name, Ok(b"{}"))]),
        Kind::Corrupt,
        "content that its name says",
    );
    let manifest =
        |layers: &str, config: &str| format!(r#"[{{"Config":"{config}","Layers":{layers}}}]"#);
    for (layers, config_name, says) in [
        (r#"["x","y"]"#, "none", "none in"),
        (r#"["x"]"#, "c", "another number"),
        (r#"["x","../../etc/passwd"]"#, "c", "is missing"),
        (r#"["x","/etc/passwd"]"#, "c", "is missing"),
        (r#"["x","loop"]"#, "c", "is missing"),
        (r#"["x","out"]"#, "c", "is missing"),
    ] {
        let text = manifest(layers, config_name);
        let bytes = tar(&[
            ("x", Ok(one)),
            ("c", Ok(config)),
            ("loop", Err("loop")),
            ("out", Err("../../etc/passwd")),
            ("manifest.json", Ok(text.as_bytes())),
        ]);
        check(&bytes, Kind::Corrupt, says);
    }
    let missing = Layout::open(directory.path().join("nowhere")).unwrap_err();
    assert_eq!(missing.kind(), Kind::Io);
    let empty = Layout::open(directory.path()).unwrap_err();
    assert_eq!(empty.kind(), Kind::NotALayout);
}

#[test]
fn a_pipe_in_a_layout_does_not_block() {
    let directory = tempfile::tempdir().unwrap();
    let image = two_layers();
    let path = layout(directory.path(), &image, "v1");
    let blob = path
        .join("blobs/sha256")
        .join(image.manifest.digest.to_hex());
    std::fs::remove_file(&blob).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &blob,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let layout = Layout::open(&path).unwrap();
    let error = layout
        .load(layout.find(None).unwrap(), &amd64())
        .unwrap_err();
    assert_eq!(error.kind(), LayoutErrorKind::Corrupt);
}
