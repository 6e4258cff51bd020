//! The client against Debian's `docker-registry`, with skopeo as the other client.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test program"
)]

mod harness;

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use firebuild_oci::layout::LayoutWriter;
use firebuild_oci::registry::{Credentials, Options, Registry, RegistryErrorKind};
use firebuild_oci::{Descriptor, Digest, Platform, Reference, media_type};
use harness::{Image, RealRegistry, have, image, layer, layout, noise, run};

fn client() -> Registry {
    Registry::new(Options {
        credentials: Credentials::Anonymous,
        ..Options::default()
    })
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn fetch(registry: &Registry, reference: &Reference, descriptor: &Descriptor) -> Vec<u8> {
    let mut out = Vec::new();
    let last = AtomicU64::new(0);
    registry
        .blob(reference, descriptor, &mut out, &|count| {
            last.store(count, Ordering::SeqCst)
        })
        .unwrap();
    assert_eq!(last.load(Ordering::SeqCst), descriptor.size);
    out
}

#[test]
fn what_skopeo_pushed_is_resolved_and_fetched() {
    const TEST: &str = "what_skopeo_pushed_is_resolved_and_fetched";
    let (Some(server), true) = (RealRegistry::start(TEST), have(TEST, "skopeo")) else {
        return;
    };
    let small = image(
        "linux/amd64",
        &[layer("a", b"hello"), layer("b", &noise(3 << 20, 1))],
    );
    let path = layout(server.directory.path(), &small, "v1");
    let from = format!("oci:{}:v1", path.display());
    let registry = client();
    // skopeo compresses what it copies; with --format v2s2 the documents are in Docker's spelling.
    for (name, options) in [
        ("org/gzip", vec!["--dest-compress-format", "gzip"]),
        ("org/zstd", vec!["--dest-compress-format", "zstd"]),
        ("org/docker", vec!["--format", "v2s2"]),
    ] {
        server.skopeo(&from, &format!("{name}:v1"), &options);
        let reference: Reference = format!("{}/{name}:v1", server.address).parse().unwrap();
        let found = registry.resolve(&reference, &amd64()).unwrap();
        assert_eq!(found.digest, found.manifest_digest);
        assert_eq!(Digest::of(&found.manifest_bytes), found.digest);
        assert_eq!(found.config.rootfs.diff_ids, small.config.rootfs.diff_ids);
        assert_eq!(found.config.config.cmd, small.config.config.cmd);
        assert_eq!(found.reference, reference.with_digest(found.digest));
        for (descriptor, diff_id) in found
            .manifest
            .layers
            .iter()
            .zip(&found.config.rootfs.diff_ids)
        {
            let bytes = fetch(&registry, &found.reference, descriptor);
            assert_eq!(bytes.len() as u64, descriptor.size);
            assert_ne!(Digest::of(&bytes), *diff_id, "{name}");
            let kind = media_type::layer_compression(&descriptor.media_type).unwrap();
            assert_eq!(media_type::sniff_compression(&bytes), kind, "{name}");
        }
        // By digest the same again.
        let again = registry.resolve(&found.reference, &amd64()).unwrap();
        assert_eq!(again.manifest_bytes, found.manifest_bytes);
    }
}

#[test]
fn layers_in_parallel_through_one_client() {
    let Some(server) = RealRegistry::start("layers_in_parallel_through_one_client") else {
        return;
    };
    let layers: Vec<Vec<u8>> = (0..6)
        .map(|seed| layer("f", &noise(2 << 20, seed * 2 + 1)))
        .collect();
    let pushed = image("linux/amd64", &layers);
    let registry = client();
    let reference: Reference = format!("{}/o/n:1", server.address).parse().unwrap();
    push(&registry, &reference, &pushed);
    let found = registry.resolve(&reference, &amd64()).unwrap();
    assert_eq!(found.manifest_bytes, pushed.manifest_bytes);
    std::thread::scope(|scope| {
        for (descriptor, wanted) in found.manifest.layers.iter().zip(&layers) {
            let (registry, reference) = (&registry, &found.reference);
            scope.spawn(move || assert_eq!(&fetch(registry, reference, descriptor), wanted));
        }
    });
}

fn push(registry: &Registry, reference: &Reference, image: &Image) {
    let sent = Arc::new(AtomicU64::new(0));
    for (descriptor, bytes) in &image.blobs {
        if descriptor.media_type == media_type::OCI_MANIFEST {
            continue;
        }
        assert!(!registry.blob_exists(reference, &descriptor.digest).unwrap());
        let content = bytes.clone();
        let counter = Arc::clone(&sent);
        registry
            .push_blob(
                reference,
                descriptor,
                &move || Ok(Box::new(io::Cursor::new(content.clone()))),
                &(Arc::new(move |count| counter.store(count, Ordering::SeqCst)) as _),
            )
            .unwrap();
        assert_eq!(sent.load(Ordering::SeqCst), descriptor.size);
        assert!(registry.blob_exists(reference, &descriptor.digest).unwrap());
    }
    let digest = registry
        .push_manifest(reference, media_type::OCI_MANIFEST, &image.manifest_bytes)
        .unwrap();
    assert_eq!(digest, image.manifest.digest);
}

#[test]
fn what_we_push_skopeo_reads() {
    const TEST: &str = "what_we_push_skopeo_reads";
    let (Some(server), true) = (RealRegistry::start(TEST), have(TEST, "skopeo")) else {
        return;
    };
    let pushed = image("linux/amd64", &[layer("a", b"x")]);
    let reference: Reference = format!("{}/o/n:1", server.address).parse().unwrap();
    push(&client(), &reference, &pushed);
    let said = run(Command::new("skopeo").args([
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{}", reference.canonical()),
    ]));
    assert_eq!(said.as_bytes(), pushed.manifest_bytes);
    let directory = server.directory.path().join("copied");
    run(Command::new("skopeo").args([
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        &format!("docker://{}", reference.canonical()),
        &format!("dir:{}", directory.display()),
    ]));
    // A wrong digest is refused by the registry.
    let (descriptor, _) = &pushed.blobs[0];
    let mut wrong = Descriptor::new("", Digest::of("other"), descriptor.size);
    wrong.size = 5;
    let error = client()
        .push_blob(
            &reference,
            &wrong,
            &|| Ok(Box::new(&b"hello"[..])),
            &(Arc::new(|_| {}) as _),
        )
        .unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::Refused, "{error}");
}

#[test]
fn an_index_gives_the_platform_that_was_asked_for() {
    const TEST: &str = "an_index_gives_the_platform_that_was_asked_for";
    let (Some(server), true) = (RealRegistry::start(TEST), have(TEST, "skopeo")) else {
        return;
    };
    let amd = image("linux/amd64", &[layer("a", b"amd")]);
    let arm = image("linux/arm64", &[layer("a", b"arm")]);
    let path = server.directory.path().join("multi");
    let writer = LayoutWriter::directory(&path).unwrap();
    harness::write(writer, &[("linux/amd64", &amd), ("linux/arm64", &arm)], "m");
    server.skopeo(
        &format!("oci:{}:m", path.display()),
        "o/multi:1",
        &["--all", "--preserve-digests"],
    );
    let registry = client();
    let reference: Reference = format!("{}/o/multi:1", server.address).parse().unwrap();
    for (platform, wanted) in [("linux/amd64", &amd), ("linux/arm64", &arm)] {
        let found = registry
            .resolve(&reference, &platform.parse().unwrap())
            .unwrap();
        assert_eq!(found.manifest_digest, wanted.manifest.digest);
        assert_ne!(found.digest, found.manifest_digest);
        assert_eq!(found.config, wanted.config);
    }
    let error = registry
        .resolve(&reference, &"linux/s390x".parse().unwrap())
        .unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::Platform);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("linux/amd64, linux/arm64"), "{cause}");
    // A plain image for another platform is refused too.
    let pinned = reference.with_digest(arm.manifest.digest);
    let error = registry.resolve(&pinned, &amd64()).unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::Platform);
}

#[test]
fn what_is_not_there_is_named() {
    let Some(server) = RealRegistry::start("what_is_not_there_is_named") else {
        return;
    };
    let reference: Reference = format!("{}/no/such:1", server.address).parse().unwrap();
    let error = client().resolve(&reference, &amd64()).unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::NotFound);
    assert!(error.to_string().contains("no/such:1"), "{error}");
    let descriptor = Descriptor::of("", b"nothing");
    let error = client()
        .blob(&reference, &descriptor, &mut Vec::new(), &|_| {})
        .unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::NotFound);
    assert!(
        error.to_string().contains(&descriptor.digest.to_string()),
        "{error}"
    );
}

#[test]
fn a_full_sink_ends_the_download() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let Some(server) = RealRegistry::start("a_full_sink_ends_the_download") else {
        return;
    };
    let pushed = image("linux/amd64", &[layer("a", b"x")]);
    let reference: Reference = format!("{}/o/n:1", server.address).parse().unwrap();
    let registry = client();
    push(&registry, &reference, &pushed);
    let error = registry
        .blob(&reference, &pushed.blobs[0].0, &mut Full, &|_| {})
        .unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::Local);
}

#[test]
fn passwords_are_used_where_asked_for() {
    const TEST: &str = "passwords_are_used_where_asked_for";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("htpasswd");
    // bcrypt of "secret"; docker-registry takes nothing else.
    std::fs::write(
        &file,
        "joe:$2b$05$3tMErjGGXvRA.945j1to/.2EXdxuFojxwxulR4cRuJRpewGgmllqO\n",
    )
    .unwrap();
    let auth = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        file.display()
    );
    let Some(server) = RealRegistry::start_at(TEST, "127.0.0.1", &auth) else {
        return;
    };
    let reference: Reference = format!("{}/o/n:1", server.address).parse().unwrap();
    let pushed = image("linux/amd64", &[layer("a", b"x")]);
    let fixed = |password: &str| {
        Registry::new(Options {
            credentials: Credentials::Fixed {
                username: "joe".to_owned(),
                password: password.to_owned(),
            },
            retries: 0,
            ..Options::default()
        })
    };
    push(&fixed("secret"), &reference, &pushed);
    assert!(fixed("secret").resolve(&reference, &amd64()).is_ok());
    for registry in [client(), fixed("wrong")] {
        let error = registry.resolve(&reference, &amd64()).unwrap_err();
        assert_eq!(error.kind(), RegistryErrorKind::Unauthorized, "{error}");
    }
}

/// The system's certificates count, and only they: `SSL_CERT_FILE` stands for `/etc/ssl/certs`.
#[test]
fn tls_with_a_certificate_authority_of_ones_own() {
    const TEST: &str = "tls_with_a_certificate_authority_of_ones_own";
    const CHILD: &str = "FIREBUILD_TEST_TLS_REFERENCE";
    if let Ok(text) = std::env::var(CHILD) {
        // The second half, in a process of its own: the environment is read once.
        let result = client().resolve(&text.parse().unwrap(), &amd64());
        match std::env::var("FIREBUILD_TEST_TLS_TRUSTED").as_deref() {
            Ok("1") => assert_eq!(result.unwrap_err().kind(), RegistryErrorKind::NotFound),
            _ => assert_eq!(result.unwrap_err().kind(), RegistryErrorKind::Connect),
        }
        return;
    }
    if !have(TEST, "openssl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        for argument in arguments.split(' ') {
            command.arg(
                argument
                    .strip_prefix('@')
                    .map_or(argument.to_owned(), &file),
            );
        }
        run(&mut command);
    };
    // An authority, and a certificate for 0.0.0.0: that leads to this machine and is not loopback by name, so it
    // wants TLS.
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout @ca.key -out @ca.pem",
    );
    openssl("req -newkey rsa:2048 -nodes -subj /CN=server -keyout @key.pem -out @request.pem");
    std::fs::write(
        file("extensions"),
        "subjectAltName=IP:0.0.0.0\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    openssl(
        "x509 -req -in @request.pem -CA @ca.pem -CAkey @ca.key -CAcreateserial -days 2 -extfile @extensions -out @cert.pem",
    );
    let tls = format!(
        "  tls:\n    certificate: {}\n    key: {}\n",
        file("cert.pem"),
        file("key.pem")
    );
    let Some(server) = RealRegistry::start_at(TEST, "0.0.0.0", &tls) else {
        return;
    };
    std::thread::sleep(Duration::from_millis(100));
    for trusted in ["1", "0"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", TEST, "--nocapture"])
            .env(CHILD, format!("{}/no/such:1", server.address))
            .env("FIREBUILD_TEST_TLS_TRUSTED", trusted);
        if trusted == "1" {
            child
                .env("SSL_CERT_FILE", file("ca.pem"))
                .env_remove("SSL_CERT_DIR");
        }
        run(&mut child);
    }
}
