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
            .args(["inspect", "--no-tags", "--tls-verify=false"])
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
        // A layer is named again when lines of another one stood between.
        let text = done.err();
        let fetched: std::collections::BTreeSet<&str> = text
            .split("layer ")
            .skip(1)
            .filter_map(|rest| rest.split_whitespace().next())
            .collect();
        assert_eq!(fetched.len(), layers.len(), "{name}: {}", done.err());
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

#[test]
fn step_results_come_from_a_registry_and_from_an_image() {
    const TEST: &str = "step_results_come_from_a_registry_and_from_an_image";
    let home = Home::new();
    let Some((registry, archive)) = start(TEST, &home) else {
        return;
    };
    registry.push(&archive, "t/base:1", &[]);
    let dockerfile = format!(
        "FROM {0} AS mid\nRUN echo mid > /mid\nFROM {0}\nCOPY --from=mid /mid /mid\nRUN echo last > /last\n",
        registry.name("t/base:1")
    );
    let context = home.context("steps", &[("Dockerfile", dockerfile.as_bytes())]);
    let path = context.display().to_string();
    let build = |home: &Home, more: &[&str]| -> (u64, String) {
        let mut args = vec!["build", "--progress=json", "-t", "t/x:1"];
        args.extend(more);
        args.push(&path);
        let done = home.fb(args).ok();
        let value: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let config = value["config"].as_str().unwrap().to_owned();
        (value["executed"].as_u64().unwrap(), config)
    };
    let cache = registry.name("t/cache:max");
    let to = format!("type=registry,ref={cache},mode=max");
    let made = build(&home, &["--cache-to", &to]);
    assert_eq!(made.0, 3);
    // The same again from nothing: no step is executed, by the long and by the short form.
    for from in [format!("type=registry,ref={cache}"), cache.clone()] {
        let fresh = Home::new();
        assert_eq!(build(&fresh, &["--cache-from", &from]), (0, made.1.clone()));
    }
    // Any tool takes it for an artifact of the registry.
    let mut inspect = Command::new("skopeo");
    inspect
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{cache}"));
    let manifest = run(&mut inspect, Duration::from_secs(60)).ok().out();
    assert!(manifest.contains("application/vnd.firebuild.cache.v1+json"));

    // An image that carries its own steps. Of the other stage it knows nothing.
    let image = home.path().join("inline.tar");
    let output = format!("type=oci,dest={}", image.display());
    for flags in [
        ["--cache-to", "type=inline"],
        ["--build-arg", "BUILDKIT_INLINE_CACHE=1"],
    ] {
        let _ = build(&home, &[flags[0], flags[1], "--output", &output]);
        registry.push(&image, "t/inline:1", &[]);
        let fresh = Home::new();
        let done = build(&fresh, &["--cache-from", &registry.name("t/inline:1")]);
        // The same image as without the steps in it.
        assert_eq!(done, (1, made.1.clone()));
    }
    let fresh = Home::new();
    let from = registry.name("t/base:1");
    let args = ["build", "--cache-from", &from, &path];
    let plain = fresh.fb(args).ok();
    let why = "it is an image without an inline cache";
    assert!(plain.err().contains(why), "{}", plain.err());
}

#[test]
fn an_image_is_pushed_and_nothing_twice() {
    let home = Home::new();
    let Some((registry, archive)) = start("an_image_is_pushed", &home) else {
        return;
    };
    registry.push(&archive, "t/base:1", &[]);
    let (_, base_layers) = registry.inspect("t/base:1");
    let fresh = Home::new();
    let dockerfile = format!("FROM {}\nCOPY more /more\n", registry.name("t/base:1"));
    let context = fresh.context(
        "ctx",
        &[("Dockerfile", dockerfile.as_bytes()), ("more", b"m\n")],
    );
    let path = context.display().to_string();
    let metadata = fresh.path().join("metadata.json");
    let tag = registry.name("t/pushed:1");
    let build = |more: &[&str]| {
        let mut all = vec!["build", "--progress=plain"];
        all.extend(more);
        all.push(&path);
        fresh.fb(all)
    };
    let done = build(&[
        "-t",
        &tag,
        "--push",
        "--metadata-file",
        &metadata.display().to_string(),
    ])
    .ok();
    let (digest, layers) = registry.inspect("t/pushed:1");
    let written = fs_err::read_to_string(&metadata).unwrap();
    assert!(written.contains(&digest), "{written}");
    // The layers of the base are the registry's own, taken from the other repository and not sent.
    assert_eq!(layers[..base_layers.len()], base_layers);
    assert_eq!(
        done.err().matches("pushing layer").count(),
        1,
        "{}",
        done.err()
    );
    let _ = fresh.fb(["image", "config", &tag]).ok();

    // A second repository takes all layers from the first; docker's types and another compression are the user's choice.
    let second = format!(
        "type=image,push=true,store=false,name={}",
        registry.name("t/second:2")
    );
    let done = build(&["-o", &second]).ok();
    assert!(!done.err().contains("pushing layer"), "{}", done.err());
    assert_eq!(registry.inspect("t/second:2").1, layers);
    let _ = fresh
        .fb(["image", "config", &registry.name("t/second:2")])
        .exits(1);
    let forced = format!(
        "type=registry,name={},compression=zstd,force-compression=true",
        registry.name("t/forced:3")
    );
    let _ = build(&["-o", &forced]).ok();
    assert_ne!(registry.inspect("t/forced:3").1[0], layers[0]);

    // By digest only.
    let third = format!(
        "type=image,push=true,push-by-digest=true,name={}",
        registry.name("t/third")
    );
    let _ = build(&[
        "-o",
        &third,
        "--metadata-file",
        &metadata.display().to_string(),
    ])
    .ok();
    let written: serde_json::Value =
        serde_json::from_str(&fs_err::read_to_string(&metadata).unwrap()).unwrap();
    let digest = written["containerimage.digest"].as_str().unwrap();
    assert_eq!(registry.inspect(&format!("t/third@{digest}")).0, digest);

    // What was pushed is an image that others build from.
    let (_, pulled) = build_from(&registry.name("t/forced:3"));
    let _ = pulled.ok();
    let nowhere = build(&["-o", "type=registry,name=127.0.0.1:1/t/x:1"]).exits(1);
    assert!(
        nowhere.err().contains("cannot push 127.0.0.1:1/t/x:1"),
        "{}",
        nowhere.err()
    );
}
