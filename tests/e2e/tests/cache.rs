//! Step results from elsewhere: `--cache-to` and `--cache-from`, `--no-cache`.

use firebuild_e2e::{Done, Home, skip, static_program};
use std::path::{Path, PathBuf};

/// Two stages and a result, on nothing but a busybox.
const DOCKERFILE: &[u8] = b"FROM scratch AS tools\nCOPY --chmod=0755 busybox /bin/busybox\n\
    RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox echo made > /made\"]\n\
    FROM tools AS mid\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox echo heavy > /heavy\"]\n\
    FROM tools\nCOPY --from=mid /heavy /heavy\nWORKDIR /work\n\
    RUN [\"/bin/busybox\", \"sh\", \"-c\", \"/bin/busybox cat /made /heavy > all\"]\n";

/// A home with the context; nothing where there is no static busybox.
fn home(test: &str) -> Option<(Home, PathBuf)> {
    let Some(busybox) = static_program() else {
        skip(test, "tool:busybox", "no static busybox");
        return None;
    };
    let home = Home::new();
    let context = home.context("ctx", &[("Dockerfile", DOCKERFILE), ("busybox", &busybox)]);
    Some((home, context))
}

fn build(home: &Home, context: &Path, more: &[&str]) -> Done {
    let path = context.display().to_string();
    let mut args = vec!["build", "--progress=json", "-t", "t/x:1"];
    args.extend(more);
    args.push(&path);
    home.fb(args).ok()
}

/// How many vertices were computed, and the configuration's digest.
fn outcome(done: &Done) -> (u64, String) {
    let value: serde_json::Value = serde_json::from_slice(&done.stdout).expect("a report as JSON");
    let config = value["config"].as_str().expect("a digest").to_owned();
    (value["executed"].as_u64().expect("a number"), config)
}

/// The steps whose layers are in the store.
fn steps(home: &Home) -> String {
    home.fb(["du", "--format", "json"]).ok().out()
}

#[test]
fn a_local_cache_spares_every_step() {
    let Some((first, context)) = home("a_local_cache_spares_every_step") else {
        return;
    };
    let cache = first.path().join("cache");
    let max = format!("type=local,dest={},mode=max", cache.display());
    let min = format!(
        "type=local,dest={},tag=min,compression=zstd",
        cache.display()
    );
    let made = outcome(&build(
        &first,
        &context,
        &["--cache-to", &max, "--cache-to", &min],
    ));
    assert_eq!(made.0, 6);

    let second = Home::new();
    let from = format!("type=local,src={}", cache.display());
    let again = outcome(&build(&second, &context, &["--cache-from", &from]));
    assert_eq!(again, (0, made.1.clone()));
    // What only led to the result was not fetched.
    let there = steps(&second);
    assert!(
        there.contains("cat /made /heavy") && !there.contains("echo heavy"),
        "{there}"
    );
    // It is in the store now, and given on with what is still elsewhere.
    let copy = first.path().join("copy");
    let to = format!("type=local,dest={},mode=max", copy.display());
    let on = outcome(&build(
        &second,
        &context,
        &["--cache-from", &from, "--cache-to", &to],
    ));
    assert_eq!(on.0, 0);
    let third = Home::new();
    let from = format!("type=local,src={}", copy.display());
    let third = outcome(&build(&third, &context, &["--cache-from", &from]));
    assert_eq!(third, again);

    // Of another stage there is nothing with mode=min. What it gives is the same, so what follows is found.
    let fourth = Home::new();
    let from = format!("type=local,src={},tag=min", cache.display());
    let fewer = outcome(&build(&fourth, &context, &["--cache-from", &from]));
    assert_eq!(fewer, (1, made.1));
}

#[test]
fn a_cache_that_fails_costs_time_only() {
    let Some((first, context)) = home("a_cache_that_fails_costs_time_only") else {
        return;
    };
    let cache = first.path().join("cache");
    let nowhere = format!("type=local,src={}", cache.display());
    let made = build(
        &first,
        &context,
        &[
            "--cache-from",
            &nowhere,
            "--cache-from",
            "127.0.0.1:1/no/cache",
        ],
    );
    assert_eq!(outcome(&made).0, 6);
    assert!(
        made.err().contains("cannot use the cache"),
        "{}",
        made.err()
    );
    let to = format!("type=local,dest={},mode=max", cache.display());
    let _ = build(&first, &context, &["--cache-to", &to]);
    // Every layer is damaged: digests tell, and each step is executed.
    for entry in fs_err::read_dir(cache.join("blobs/sha256")).expect("a layout") {
        let path = entry.expect("an entry").path();
        let bytes = fs_err::read(&path).expect("a blob");
        if !bytes.starts_with(b"{") {
            let mut bytes = bytes;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs_err::write(&path, bytes).expect("ours");
        }
    }
    let second = Home::new();
    let from = format!("type=local,src={}", cache.display());
    let done = build(&second, &context, &["--cache-from", &from]);
    assert_eq!(outcome(&done).0, 6, "{}", done.err());
    assert!(
        done.err().contains("is not used any more"),
        "{}",
        done.err()
    );
    let _ = second.fb(["du", "--verify"]).ok();
    // An export that fails is an error, unless it was said to be none.
    let path = context.display().to_string();
    let bad = "type=local,dest=/proc/nowhere";
    let failed = second.fb(["build", "--cache-to", bad, &path]).exits(1);
    assert!(
        failed.err().contains("cannot write the cache"),
        "{}",
        failed.err()
    );
    let ignored = build(
        &second,
        &context,
        &["--cache-to", &format!("{bad},ignore-error=true")],
    );
    assert!(
        ignored.err().contains("was not exported"),
        "{}",
        ignored.err()
    );
    let _ = second
        .fb(["build", "--cache-from", "type=s3", &path])
        .exits(2);
}

#[test]
fn no_cache_for_all_or_for_some_stages() {
    let Some((home, context)) = home("no_cache_for_all_or_for_some_stages") else {
        return;
    };
    let count = |more: &[&str]| outcome(&build(&home, &context, more)).0;
    assert_eq!(count(&[]), 6);
    assert_eq!(count(&[]), 0);
    assert_eq!(count(&["--no-cache"]), 6);
    assert_eq!(count(&["--no-cache=mid"]), 1);
    assert_eq!(count(&["--no-cache-filter", "MID"]), 1);
    // What was executed again has another time in its files, so what stands on it is executed, too.
    assert_eq!(count(&["--no-cache-filter", "tools,mid"]), 6);
    assert_eq!(
        count(&["--no-cache-filter=mid", "--no-cache-filter=other"]),
        1
    );
    assert_eq!(count(&["--no-cache=false"]), 0);
}

#[test]
fn what_counts_and_what_does_not() {
    let Some(busybox) = static_program() else {
        skip(
            "what_counts_and_what_does_not",
            "tool:busybox",
            "no static busybox",
        );
        return;
    };
    let home = Home::new();
    let dockerfile: &[u8] = b"FROM scratch AS tools\nCOPY --chmod=0755 busybox /bin/sh\n\
        FROM tools\nRUN echo above > /above\nARG ONE=1\nRUN echo below > /below\nCOPY file /file\nARG TWO\nRUN echo last > /last\n";
    let files: &[(&str, &[u8])] = &[
        ("Dockerfile", dockerfile),
        ("busybox", &busybox),
        ("file", b"text"),
    ];
    let context = home.context("ctx", files);
    let count = |more: &[&str]| outcome(&build(&home, &context, more)).0;
    assert_eq!(count(&[]), 5);
    // An argument counts for every RUN below it, used or not, and for nothing above; a default is a value.
    assert_eq!(count(&["--build-arg", "TWO=x"]), 1);
    assert_eq!(count(&["--build-arg", "ONE=1"]), 0);
    // What that RUN gives has another time in it, so the two steps on it are new; the one above is not.
    assert_eq!(count(&["--build-arg", "ONE=2"]), 3);
    // One that is declared nowhere counts for nothing.
    assert_eq!(count(&["--build-arg", "OTHER=1"]), 0);
    // Files count by content and mode, never by time.
    let file = context.join("file");
    let later = std::time::SystemTime::now() - std::time::Duration::from_secs(1000);
    let open = || {
        fs_err::File::options()
            .write(true)
            .open(&file)
            .expect("ours")
    };
    open().file().set_modified(later).expect("ours");
    assert_eq!(count(&[]), 0);
    let mode = |bits| {
        use std::os::unix::fs::PermissionsExt as _;
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(bits)).expect("ours");
    };
    mode(0o600);
    assert_eq!(count(&[]), 2);
    mode(0o644);
    assert_eq!(count(&[]), 0);
    // The same size, and the time set back: the change time tells.
    fs_err::write(&file, "TEXT").expect("ours");
    open().file().set_modified(later).expect("ours");
    assert_eq!(count(&[]), 2);
}

/// The power fails before the kernel has written what a build made: layers of half their length, and a session that another
/// boot of the machine left. Nothing torn is used, and the next build makes it again. With `--sync` nothing is left to be torn.
#[test]
fn a_power_cut_costs_what_was_not_on_the_disk() {
    let Some((home, context)) = home("a_power_cut_costs_what_was_not_on_the_disk") else {
        return;
    };
    let store = home.path().join("home/store");
    let announced = || -> Vec<PathBuf> {
        let entries = fs_err::read_dir(store.join("sessions")).expect("a store");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    };
    let layers = || -> Vec<PathBuf> {
        let entries = fs_err::read_dir(store.join("blobs/sha256")).expect("a store");
        let blobs = entries.map(|entry| entry.expect("an entry").path());
        blobs
            .filter(|path| !fs_err::read(path).expect("ours").starts_with(b"{"))
            .collect()
    };
    let made = outcome(&build(&home, &context, &[]));
    assert_eq!(made.0, 6);
    let ended = announced();
    assert!(!ended.is_empty(), "what a build named is announced");
    for path in ended {
        fs_err::write(path, "another boot").expect("ours");
    }
    let torn = layers();
    assert!(torn.len() >= 3, "{torn:?}");
    for path in &torn {
        let file = fs_err::OpenOptions::new()
            .write(true)
            .open(path)
            .expect("ours");
        let length = file.metadata().expect("a file").len();
        file.set_len(length / 2).expect("ours");
    }
    // The first command finds it: the name goes with the content.
    let list = home.fb(["image", "ls"]).ok().out();
    assert!(!list.contains("t/x"), "{list}");
    assert_eq!(layers(), Vec::<PathBuf>::new());
    let _ = home.fb(["du", "--verify"]).ok();
    let again = build(&home, &context, &["--sync"]);
    assert_eq!(outcome(&again).0, 6, "{}", again.err());
    assert_eq!(announced(), Vec::<PathBuf>::new(), "all is on the disk");
    let list = home.fb(["image", "ls"]).ok().out();
    assert!(list.contains("t/x"), "{list}");
    let _ = home.fb(["du", "--verify"]).ok();

    // What was found and not made is synced, too.
    let _ = build(&home, &context, &["--no-cache"]);
    assert_ne!(announced(), Vec::<PathBuf>::new());
    assert_eq!(outcome(&build(&home, &context, &["--sync"])).0, 0);
    assert_eq!(announced(), Vec::<PathBuf>::new());
}
