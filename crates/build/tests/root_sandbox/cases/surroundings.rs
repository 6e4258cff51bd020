//! What a step finds around it.

use std::path::Path;

use firebuild_build::exec::{ExecErrorKind, Exit};
use firebuild_build::graph::NetworkMode;

use crate::base::{Base, run, shell};
use crate::user::Who;

pub(super) fn surroundings_are_dockers(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let mut step = shell(
        "id -u; id -g; pwd; umask; hostname; echo $HOME $A; cat /etc/hosts; test $(ls /proc | grep -c '^[0-9]') -lt 6 && echo few; echo $$; \
         grep NoNewPrivs /proc/self/status; readlink /proc/self/ns/net",
    );
    step.cwd = "/work/dir".into();
    step.env
        .extend([("A".into(), "1".into()), ("A".into(), "2".into())]);
    let ran = run(&base.sandbox(), &base.chain, &step).unwrap();
    let own_network = fs_err::read_link("/proc/self/ns/net").unwrap();
    let expected = format!(
        "0\n0\n/work/dir\n0022\nbuildkitsandbox\n/root 2\n127.0.0.1\tlocalhost buildkitsandbox\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\nfew\n1\nNoNewPrivs:\t0\n{}\n",
        own_network.display()
    );
    assert_eq!(ran.ok(), expected);
    let paths: Vec<String> = ran
        .changes()
        .lines()
        .map(|line| line.split(' ').take(4).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        paths,
        [
            "/ dir 0755 0:0",
            "/work dir 0755 0:0",
            "/work/dir dir 0755 0:0"
        ]
    );

    let mut step = shell("hostname; echo $HOME; grep db /etc/hosts; cat /etc/resolv.conf");
    step.hostname = "other".into();
    step.env.push(("HOME".into(), "/elsewhere".into()));
    step.extra_hosts.push(("10.1.2.3".into(), "db".into()));
    let resolv = fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let ran = run(&base.sandbox(), &base.chain, &step).unwrap();
    assert_eq!(
        ran.ok(),
        format!("other\n/elsewhere\n10.1.2.3\tdb\n{resolv}")
    );
    assert_eq!(ran.changes(), "");
}

pub(super) fn users_by_name_and_number(directory: &Path, _: Who) {
    let base = Base::new(directory);
    for (user, expected) in [
        ("", "0 0 0 /root"),
        ("app", "1000 1001 1001 6 10 /srv/app"),
        ("1000", "1000 1001 1001 6 10 /srv/app"),
        ("app:disk", "1000 6 6 /srv/app"),
        ("4711", "4711 0 0 /"),
        ("4711:4712", "4711 4712 4712 /"),
    ] {
        let mut step = shell(
            "echo $(id -u) $(id -g) $(id -G) $HOME; echo through > /dev/stdout; grep CapEff /proc/self/status",
        );
        step.user = user.into();
        let ran = run(&base.sandbox(), &base.chain, &step).unwrap();
        let capabilities = if expected.starts_with('0') {
            "00000000a80425fb"
        } else {
            "0000000000000000"
        };
        assert_eq!(
            ran.ok(),
            format!("{expected}\nthrough\nCapEff:\t{capabilities}\n"),
            "{user}"
        );
    }
    let mut step = shell("touch ~/mine2; cat mine; touch /root/x 2> /dev/null || echo closed");
    (step.user, step.cwd) = ("app".into(), "/srv/app".into());
    let ran = run(&base.sandbox(), &base.chain, &step).unwrap();
    assert_eq!(ran.ok(), "mineclosed\n");
    assert!(
        ran.changes()
            .contains("/srv/app/mine2 file 0644 1000:1001 now 0"),
        "{}",
        ran.changes()
    );
}

pub(super) fn other_users_need_ids(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let mut step = shell("id");
    step.user = "app".into();
    let error = run(&base.sandbox(), &base.chain, &step)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ExecErrorKind::Ids, "{error}");
    let hint = error.hint().expect("a remedy");
    assert!(
        hint.contains("/etc/subuid") && hint.contains("usermod --add-subuids"),
        "{hint}"
    );
    assert_eq!(base.leftovers(), Vec::<String>::new());
}

pub(super) fn unknown_users_are_refused(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let mut step = shell("id");
    step.user = "nobody-knows".into();
    let error = run(&base.sandbox(), &base.chain, &step)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ExecErrorKind::Step);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        cause,
        "unable to find user \"nobody-knows\": no such entry in /etc/passwd"
    );
    assert_eq!(base.leftovers(), Vec::<String>::new());
}

pub(super) fn mount_points_leave_no_trace(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let chain = base.layer(
        &base.chain,
        "/etc/resolv.conf symlink 0777 0:0 1000 -> ../run/resolv/stub.conf\n/etc/hosts file 0644 0:0 1000 0 data:own\n\
         /proc dir 0555 0:0 1000\n",
    );
    let ran = run(
        &base.sandbox(),
        &chain,
        &shell("cat /etc/hosts | head -n 1; ls /run/resolv /dev/null /sys"),
    )
    .unwrap();
    assert!(ran.ok().starts_with("127.0.0.1\tlocalhost"));
    assert_eq!(ran.changes(), "");
    // What the step puts beside a mount point stays, and the place itself goes.
    let ran = run(
        &base.sandbox(),
        &chain,
        &shell("echo x > /run/resolv/other"),
    )
    .unwrap();
    ran.ok();
    let paths: Vec<&str> = Vec::new();
    let changes = ran.changes();
    let found: Vec<&str> = changes
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        [paths, found].concat(),
        ["/", "/run", "/run/resolv", "/run/resolv/other"]
    );
    // The image keeps its own versions.
    let mut tree = (*chain.tree(base.store).unwrap()).clone();
    tree.apply(&ran.done.layer.as_ref().unwrap().layer).unwrap();
    assert!(tree.find(b"etc/hosts").is_some() && tree.find(b"sys").is_none());
    let ran = run(
        &base.sandbox(),
        &chain,
        &shell("echo y > /etc/hosts; rm /etc/hosts"),
    );
    assert_eq!(ran.unwrap().done.status, Exit::Code(1));
}

pub(super) fn devices_work(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let ran = base.sh(
        "set -e; echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; \
         echo y > /dev/full 2> /dev/null || echo full; ls /dev; echo a > /dev/shm/a; cat /dev/shm/a; \
         ls /dev/pts; echo z | cat /dev/stdin; stat -c %a /dev/shm /dev/ptmx -L",
    );
    let expected = "4\n4\nfull\ncore\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n\
         a\nptmx\nz\n1777\n666\n";
    assert_eq!(ran.ok(), expected);
    assert_eq!(ran.changes(), "");
}

pub(super) fn no_network_but_loopback(directory: &Path, _: Who) {
    let base = Base::new(directory);
    let mut step =
        shell("ip -o link | wc -l; ip -o addr show lo | grep -c 127.0.0.1; ip route | wc -l");
    step.network = NetworkMode::None;
    let ran = run(&base.sandbox(), &base.chain, &step).unwrap();
    let lines: Vec<&str> = ran.ok().split_whitespace().collect();
    assert_eq!(&lines[1..], ["1", "0"], "{:?}", ran.stdout);
    // Kernels with tunnel modules built in put their own devices, which are down, into each namespace.
    let own = fs_err::read_to_string("/proc/net/dev")
        .unwrap()
        .lines()
        .count()
        - 2;
    assert!(lines[0].parse::<usize>().unwrap() <= own, "{lines:?}");
}
