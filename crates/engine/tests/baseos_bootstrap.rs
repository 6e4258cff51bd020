//! `baseos --bootstrap` with the real tools and the host's own mirror.

use firebuild_build::cancel::Cancel;
use firebuild_engine::baseos::{BaseOsErrorKind, Distribution, Request, create};
use firebuild_engine::event::Event;
use firebuild_engine::paths::Paths;
use firebuild_oci::{ImageConfig, Manifest};
use firebuild_rootfs::tar::{ReadOptions, read_layer};
use firebuild_rootfs::tree::{Follow, Kind, Tree};
use firebuild_store::Store;

#[expect(clippy::print_stderr, reason = "a skip must be seen")]
fn skip(test: &str, need: &str, reason: &str) {
    let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name.trim() == need),
        "{test} was skipped, but FIREBUILD_TEST_REQUIRE names {need}: {reason}"
    );
    eprintln!("SKIP {test}: {reason}");
}

fn request(name: &str) -> Request {
    Request {
        distribution: Distribution::parse(name).expect("the test names a distribution"),
        tag: None,
        mirror: None,
        full: false,
        include: Vec::new(),
    }
}

/// The suite of this host, if it is one that can be bootstrapped.
fn host_suite() -> Option<String> {
    let release = fs_err::read_to_string("/etc/os-release").ok()?;
    let field = |name: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    let name = format!("{}:{}", field("ID")?, field("VERSION_CODENAME")?);
    Distribution::parse(&name).ok().map(|_| name)
}

#[test]
fn the_hosts_own_suite_becomes_an_image() {
    const TEST: &str = "the_hosts_own_suite_becomes_an_image";
    let Some(name) = host_suite() else {
        return skip(
            TEST,
            "tool:mmdebstrap",
            "this host is neither Debian nor Ubuntu",
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::under(dir.path());
    let mut events = Vec::new();
    let made = create(
        &paths,
        &request(&name),
        &Cancel::new().unwrap(),
        &mut |event| events.push(event),
    );
    let made = match made {
        Ok(made) => made,
        Err(error) if error.kind() == BaseOsErrorKind::NoTool => {
            return skip(TEST, "tool:mmdebstrap", &error.to_string());
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    };
    assert!(events.iter().any(|event| matches!(event, Event::Stage(_))));
    assert_eq!(made.reference, name.parse().unwrap());

    let store = Store::open(paths.store()).unwrap();
    let manifest = store.read_blob(&made.manifest, 1 << 20).unwrap();
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    let config = store.read_blob(&manifest.config.digest, 1 << 20).unwrap();
    let config = ImageConfig::parse(&config).unwrap();
    assert_eq!(config.config.cmd, Some(vec!["bash".to_owned()]));
    assert_eq!(config.rootfs.diff_ids, [manifest.layers[0].digest]);

    let blob = store.open_blob(&manifest.layers[0].digest).unwrap();
    let reader = blob.try_clone().unwrap();
    let layer = read_layer(reader, [0; 32], &ReadOptions::default()).unwrap();
    let mut tree = Tree::new();
    tree.apply(&layer).unwrap();
    let find = |path: &str| tree.lookup(path.as_bytes(), Follow::All).ok();
    for here in [
        "bin/bash",
        "usr/bin/apt-get",
        "etc/apt/apt.conf.d/docker-clean",
    ] {
        assert!(find(here).is_some(), "{here} is missing");
    }
    for gone in [
        "dev/null",
        "etc/resolv.conf",
        "etc/hostname",
        "etc/apt/apt.conf.d/99mmdebstrap",
        "var/lib/dpkg/status-old",
    ] {
        assert!(find(gone).is_none(), "{gone} is still there");
    }
    let lists = find("var/lib/apt/lists").unwrap();
    assert!(matches!(&tree[lists].kind, Kind::Dir(children) if children.is_empty()));
    // Setuid and the owners survive.
    let passwd = find("usr/bin/passwd").unwrap();
    assert_eq!(tree[passwd].meta.mode, 0o4755);

    // Nothing is left of the build.
    drop(store);
    let left: Vec<_> = fs_err::read_dir(paths.store().join("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_mirror_that_is_not_there_is_told_with_the_tools_own_words() {
    const TEST: &str = "a_mirror_that_is_not_there_is_told_with_the_tools_own_words";
    let dir = tempfile::tempdir().unwrap();
    let mut request = request("debian:bookworm");
    // The discard port of the loopback: nothing leaves this machine.
    request.mirror = Some("http://127.0.0.1:9/debian".to_owned());
    let error = create(
        &Paths::under(dir.path()),
        &request,
        &Cancel::new().unwrap(),
        &mut |_| {},
    )
    .unwrap_err();
    if error.kind() == BaseOsErrorKind::NoTool {
        return skip(TEST, "tool:mmdebstrap", &error.to_string());
    }
    assert_eq!(error.kind(), BaseOsErrorKind::Failed);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("127.0.0.1"), "{cause}");
}

#[test]
fn a_stop_leaves_neither_processes_nor_an_image() {
    const TEST: &str = "a_stop_leaves_neither_processes_nor_an_image";
    let Some(name) = host_suite() else {
        return skip(
            TEST,
            "tool:mmdebstrap",
            "this host is neither Debian nor Ubuntu",
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::under(dir.path());
    let cancel = Cancel::new().unwrap();
    let raiser = cancel.clone();
    let mut temporary = None;
    let error = create(&paths, &request(&name), &cancel, &mut |event| {
        if let Event::Stage(text) = event {
            if let Some((_, rest)) = text.split_once("using ") {
                temporary = rest.split(' ').next().map(std::path::PathBuf::from);
            }
            if text.starts_with("extracting") {
                raiser.raise();
            }
        }
    })
    .unwrap_err();
    if error.kind() == BaseOsErrorKind::NoTool {
        return skip(TEST, "tool:mmdebstrap", &error.to_string());
    }
    assert_eq!(error.kind(), BaseOsErrorKind::Cancelled, "{error}");
    let temporary = temporary.expect("mmdebstrap names its directory");
    assert!(!temporary.exists(), "{} stayed", temporary.display());
    let store = Store::open(paths.store()).unwrap();
    assert!(store.list_refs().unwrap().is_empty());
}

#[test]
fn what_is_no_package_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut request = request("debian:bookworm");
    request.mirror = Some("http://127.0.0.1:9/debian".to_owned());
    request.include = vec!["--setup-hook=reboot".to_owned()];
    let error = create(
        &Paths::under(dir.path()),
        &request,
        &Cancel::new().unwrap(),
        &mut |_| {},
    )
    .unwrap_err();
    if error.kind() != BaseOsErrorKind::NoTool {
        assert_eq!(error.kind(), BaseOsErrorKind::BadName);
    }
}
