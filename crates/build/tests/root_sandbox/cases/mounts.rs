//! `RUN --mount`.

use std::os::unix::net::UnixListener;
use std::path::Path;

use firebuild_build::exec::{Exit, Step, StepMount, StepMountKind};
use firebuild_build::graph::InlineFile;

use crate::base::{Base, run, shell};
use crate::user::Who;

fn with(script: &str, mounts: Vec<(&str, bool, StepMountKind)>) -> Step {
    let mut step = shell(script);
    for (target, read_only, kind) in mounts {
        step.mounts.push(StepMount {
            target: target.into(),
            read_only,
            kind,
        });
    }
    step
}

pub(super) fn bind_mounts(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let other = base.layer(&base.chain, "/srv/only-here/f file 0644 0:0 1000 0 data:bound\n/srv/link symlink 0777 0:0 1000 -> /srv/only-here\n");
    let bind = |source: &str| StepMountKind::Bind {
        chain: other.clone(),
        source: source.into(),
    };
    let step = with(
        "cat /mnt/a/f /mnt/b /mnt/c/f; touch /mnt/a/x 2> /dev/null || echo read-only; echo gone > /mnt/d/new; cat /mnt/d/new",
        vec![
            ("/mnt/a", true, bind("/srv/only-here")),
            ("/mnt/b", true, bind("srv/only-here/f")),
            ("/mnt/c", true, bind("/srv/link")),
            ("/mnt/d", false, bind("/srv/only-here")),
        ],
    );
    let ran = run(&base.sandbox(), &base.chain, &step).unwrap();
    assert_eq!(ran.ok(), "boundboundboundread-only\ngone\n");
    assert_eq!(ran.changes(), "");
    // What was written is gone.
    let step = with("ls /mnt", vec![("/mnt", true, bind("/srv/only-here"))]);
    assert_eq!(
        run(&base.sandbox(), &base.chain, &step).unwrap().ok(),
        "f\n"
    );
    // From the step's own root, and from one layer only.
    let step = with(
        "ls /mnt",
        vec![(
            "/mnt",
            true,
            StepMountKind::Bind {
                chain: base.chain.clone(),
                source: "srv/opaque".into(),
            },
        )],
    );
    assert_eq!(
        run(&base.sandbox(), &base.chain, &step).unwrap().ok(),
        "a\nb\n"
    );
    let step = with("true", vec![("/mnt", true, bind("/not/there"))]);
    let error = run(&base.sandbox(), &base.chain, &step)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot mount /not/there at /mnt: not found"
    );
    assert_eq!(base.leftovers(), Vec::<String>::new());
}

pub(super) fn caches_live_on(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let place = base.directory.join("cache");
    fs_err::create_dir(&place).unwrap();
    let cache = |seed: Option<&str>| StepMountKind::Cache {
        directory: place.clone(),
        seed: seed.map(|source| (base.chain.clone(), source.to_owned())),
        mode: 0o750,
        uid: 0,
        gid: 0,
    };
    let step = with(
        "stat -c %a /var/cache; ls /var/cache; echo kept > /var/cache/f",
        vec![("/var/cache", false, cache(None))],
    );
    let ran = run(&base.sandbox(), &base.chain, &step).unwrap();
    assert_eq!(ran.ok(), "750\n");
    assert_eq!(ran.changes(), "");
    let step = with("cat /other/f; exit 1", vec![("/other", false, cache(None))]);
    assert_eq!(
        run(&base.sandbox(), &base.chain, &step).unwrap().stdout,
        "kept\n"
    );
    let step = with(
        "touch /other/x 2> /dev/null || ls /other",
        vec![("/other", true, cache(Some("/srv/opaque")))],
    );
    assert_eq!(
        run(&base.sandbox(), &base.chain, &step).unwrap().ok(),
        "f\n",
        "a seed fills a new cache only"
    );
    base.sandbox().remove(std::slice::from_ref(&place)).unwrap();
    fs_err::create_dir(&place).unwrap();
    let step = with(
        "ls /other; rm /other/a",
        vec![("/other", false, cache(Some("/srv/opaque")))],
    );
    assert_eq!(
        run(&base.sandbox(), &base.chain, &step).unwrap().ok(),
        "a\nb\n"
    );
    assert_eq!(
        run(&base.sandbox(), &base.chain, &step)
            .unwrap()
            .done
            .status,
        Exit::Code(1)
    );
    base.sandbox().remove(&[place]).unwrap();
}

pub(super) fn memory_and_secrets(directory: &Path, who: Who) {
    let base = Base::new(directory);
    let owner = if who == Who::Single {
        (0, 0)
    } else {
        (1000, 1001)
    };
    let secret = StepMountKind::Secret {
        data: b"hidden\n".to_vec(),
        mode: 0o440,
        uid: owner.0,
        gid: owner.1,
    };
    let big = StepMountKind::Secret {
        data: vec![b'x'; 500_000],
        mode: 0o400,
        uid: 0,
        gid: 0,
    };
    let step = with(
        "cat /run/secrets/key; stat -c '%a %u:%g' /run/secrets/key; wc -c < /srv/big; \
         echo x > /run/secrets/key 2> /dev/null || echo read-only; ls /srv/opaque | wc -l; echo y > /srv/opaque/y; \
         dd if=/dev/zero of=/srv/opaque/z bs=1024 count=2048 2> /dev/null || echo full; ls -a /dev | grep -c file",
        vec![
            ("/run/secrets/key", true, secret),
            ("/srv/big", true, big),
            (
                "/srv/opaque",
                false,
                StepMountKind::Tmpfs {
                    size: Some(1 << 20),
                },
            ),
        ],
    );
    let mut step = step;
    step.argv[2].push_str("; true");
    let ran = run(&base.sandbox(), &base.chain, &step).unwrap();
    assert_eq!(
        ran.ok(),
        format!(
            "hidden\n440 {}:{}\n500000\nread-only\n0\nfull\n0\n",
            owner.0, owner.1
        )
    );
    assert_eq!(ran.changes(), "");
}

pub(super) fn heredoc_files(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let mut step = shell("/dev/pipes/EOF");
    step.files.push(InlineFile {
        path: "/dev/pipes/EOF".into(),
        data: b"#!/bin/sh\necho from a file\n".to_vec(),
        mode: 0o755,
    });
    let ran = run(&base.sandbox(), &base.chain, &step).unwrap();
    assert_eq!(ran.ok(), "from a file\n");
    assert_eq!(ran.changes(), "");
    step.files[0].path = "/dev/pipes/../../etc/x".into();
    assert!(run(&base.sandbox(), &base.chain, &step).is_err());
}

pub(super) fn an_agents_socket(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let socket = base.directory.join("agent");
    let _listener = UnixListener::bind(&socket).unwrap();
    let ssh = StepMountKind::Ssh {
        socket,
        mode: 0o600,
        uid: 0,
        gid: 0,
    };
    let step = with(
        "test -S /run/agent && echo there",
        vec![("/run/agent", false, ssh)],
    );
    let ran = run(&base.sandbox(), &base.chain, &step).unwrap();
    assert_eq!(ran.ok(), "there\n");
    assert_eq!(ran.changes(), "");
}
