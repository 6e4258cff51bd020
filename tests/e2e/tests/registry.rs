//! A registry on the loopback address: pulling over plain HTTP, digests, and what is wrong with an image or its name.

#![expect(
    clippy::unwrap_used,
    reason = "what a test prepares must succeed, also outside of its function"
)]

use firebuild_e2e::{Home, missing, run, skip, static_program};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `docker-registry` on a free port, with its storage in a home.
struct Registry {
    process: Child,
    port: u16,
    storage: PathBuf,
}

impl Registry {
    fn start(home: &Home) -> Self {
        let storage = home.path().join("registry");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = home.path().join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            storage.display()
        );
        fs_err::write(&config, text).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "the registry does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            process,
            port,
            storage,
        }
    }

    fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    /// Pushes an archive that firebuild wrote.
    fn push(&self, archive: &Path, name: &str, more: &[&str]) {
        let mut command = Command::new("skopeo");
        command
            .args(["copy", "-q", "--dest-tls-verify=false"])
            .args(more);
        command
            .arg(format!("oci-archive:{}", archive.display()))
            .arg(format!("docker://{}", self.name(name)));
        let _ = run(&mut command, Duration::from_secs(60)).ok();
    }

    /// Digests of the manifest and of the layers, as the registry has them.
    fn inspect(&self, name: &str) -> (String, Vec<String>) {
        let mut command = Command::new("skopeo");
        command
            .args(["inspect", "--tls-verify=false"])
            .arg(format!("docker://{}", self.name(name)));
        let text = run(&mut command, Duration::from_secs(60)).ok().stdout;
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let layers = value["Layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer.as_str().unwrap().to_owned());
        (
            value["Digest"].as_str().unwrap().to_owned(),
            layers.collect(),
        )
    }

    /// Where the bytes of a blob lie.
    fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.storage
            .join("docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A registry, and an archive of an image with a shell.
fn start(test: &str, home: &Home) -> Option<(Registry, PathBuf)> {
    if let Some(program) = missing(&["docker-registry", "skopeo"]) {
        skip(test, "registry", &format!("{program} is not installed"));
        return None;
    }
    let Some(busybox) = static_program() else {
        skip(test, "tool:busybox", "no static busybox");
        return None;
    };
    let dockerfile = b"FROM scratch\nCOPY --chmod=0755 busybox /bin/sh\nCOPY file /file\nENV FROM_REGISTRY=yes\n";
    let context = home.context(
        "image",
        &[
            ("Dockerfile", dockerfile),
            ("busybox", &busybox),
            ("file", b"pushed\n"),
        ],
    );
    let archive = home.path().join("image.tar");
    let spec = format!("type=oci,dest={}", archive.display());
    let _ = home
        .fb([
            "build",
            "-q",
            "--output",
            &spec,
            &context.display().to_string(),
        ])
        .ok();
    Some((Registry::start(home), archive))
}

/// Builds on top of an image in a home that has nothing yet.
fn build_from(name: &str) -> (Home, firebuild_e2e::Done) {
    let fresh = Home::new();
    let dockerfile =
        format!("FROM {name}\nRUN read line < /file; test \"$line$FROM_REGISTRY\" = pushedyes\n");
    let context = fresh.context("ctx", &[("Dockerfile", dockerfile.as_bytes())]);
    let done = fresh.build("t/pulled:1", &context);
    (fresh, done)
}

#[test]
fn images_are_pulled_by_tag_and_by_digest() {
    let home = Home::new();
    let Some((registry, archive)) = start("images_are_pulled_by_tag_and_by_digest", &home) else {
        return;
    };
    registry.push(&archive, "t/oci:1", &[]);
    registry.push(&archive, "t/docker:1", &["--format", "v2s2"]);
    let zstd = home.path().join("zstd.tar");
    let spec = format!("type=oci,compression=zstd,dest={}", zstd.display());
    let _ = home
        .fb([
            "build",
            "-q",
            "--output",
            &spec,
            &home.path().join("image").display().to_string(),
        ])
        .ok();
    registry.push(&zstd, "t/zstd:1", &[]);
    let (digest, layers) = registry.inspect("t/oci:1");
    for name in [
        "t/oci:1",
        "t/docker:1",
        "t/zstd:1",
        &format!("t/oci@{digest}"),
        &format!("t/oci:1@{digest}"),
    ] {
        let (fresh, done) = build_from(&registry.name(name));
        let done = done.ok();
        assert_eq!(
            done.err().matches("layer ").count() / 2,
            layers.len(),
            "{name}: {}",
            done.err()
        );
        // The image is in the store now: nothing is asked of the registry again.
        let again = fresh.build("t/again:1", &fresh.path().join("ctx")).ok();
        assert!(!again.err().contains("layer "), "{name}: {}", again.err());
    }
}

#[test]
fn images_that_cannot_be_had() {
    let home = Home::new();
    let Some((registry, archive)) = start("images_that_cannot_be_had", &home) else {
        return;
    };
    registry.push(&archive, "t/oci:1", &[]);
    let wrong = format!("t/oci@sha256:{}", "5".repeat(64));
    for (name, word) in [
        ("t/absent:1", "404"),
        ("t/oci:absent", "404"),
        (&wrong, "404"),
    ] {
        let (_, done) = build_from(&registry.name(name));
        let text = done.exits(1).err();
        for word in [word, "Dockerfile:1:6", name] {
            assert!(text.contains(word), "{name} should say {word:?}: {text}");
        }
    }
    // Nobody listens there.
    let (_, done) = build_from("127.0.0.1:1/t/oci:1");
    assert!(
        done.exits(1)
            .err()
            .contains("cannot connect to 127.0.0.1:1")
    );
}

#[test]
fn a_blob_that_is_not_what_its_digest_says_is_refused() {
    let home = Home::new();
    let Some((registry, archive)) = start("a_blob_that_is_not_what_its_digest_says", &home) else {
        return;
    };
    registry.push(&archive, "t/oci:1", &[]);
    let (manifest, layers) = registry.inspect("t/oci:1");
    for (digest, name) in [
        (layers.last().unwrap(), "t/oci:1".to_owned()),
        (&manifest, format!("t/oci@{manifest}")),
    ] {
        let path = registry.blob(digest);
        let whole = fs_err::read(&path).unwrap();
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs_err::write(&path, bytes).unwrap();
        let (fresh, done) = build_from(&registry.name(&name));
        let text = done.exits(1).err();
        let hex = &digest["sha256:".len()..];
        assert!(text.contains(hex), "{name} should name {hex}: {text}");
        assert!(text.contains("Dockerfile:1:6"), "{text}");
        assert_eq!(
            fresh.fb(["image", "ls", "-q"]).out(),
            "",
            "nothing is named after a failed pull"
        );
        assert!(
            !fresh
                .path()
                .join("home/store/blobs/sha256")
                .join(hex)
                .exists(),
            "nothing wrong is kept"
        );
        fs_err::write(&path, whole).unwrap();
    }
    // The same home goes on once the registry is right again.
    let (_, done) = build_from(&registry.name("t/oci:1"));
    let _ = done.ok();
}
