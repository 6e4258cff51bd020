//! The guest's life: files and names in it, its health, its metadata, restarts and starts, and how its bad ends are told.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::time::{Duration, Instant};

use firebuild_e2e::{Done, Home, run};
use serde_json::Value;

/// A boot under TCG on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);
const IMAGE: &str = "test/guest:1";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHx me@home";

/// A home with a kernel and an image with a shell and its usual programs; nothing, with a skip, when one cannot be had.
fn home(test: &str) -> Option<Home> {
    let (home, busybox) = Home::for_machines(test)?;
    let dockerfile = b"FROM scratch\nCOPY --chmod=0755 busybox /bin/busybox\nCOPY etc /etc\n\
        RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
        HEALTHCHECK --interval=200ms --retries=2 CMD test -e /tmp/well && echo it is well\n\
        STOPSIGNAL SIGQUIT\nCMD [\"sh\"]\n";
    let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
    let context = home.context(
        "ctx",
        &[
            ("Dockerfile", dockerfile),
            ("busybox", &busybox),
            ("etc/passwd", passwd),
            ("etc/group", b"root:x:0:\napp:x:1000:\n"),
        ],
    );
    let _ = home.build(IMAGE, &context).ok();
    Some(home)
}

fn fb(home: &Home, args: &[&str]) -> Done {
    run(&mut home.command(args.iter().copied()), LIMIT)
}

fn vm(home: &Home, flags: &[&str], script: &str) -> Done {
    let mut args = vec!["run", "--mem", "192"];
    args.extend(flags);
    args.extend([IMAGE, "--", "sh", "-c", script]);
    fb(home, &args)
}

fn inspect(home: &Home, name: &str) -> Value {
    serde_json::from_slice(&fb(home, &["inspect", name]).ok().stdout).unwrap()
}

fn at(home: &Home, name: &str, pointer: &str) -> Value {
    inspect(home, name)
        .pointer(pointer)
        .cloned()
        .unwrap_or_default()
}

fn logs(home: &Home, name: &str) -> String {
    fb(home, &["logs", name]).ok().out()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < Duration::from_secs(90),
            "{what} did not come"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What the first VM does: tells what it finds, keeps count of its runs on its disk, is well as long as it is told so.
const LIFE: &str = r#"
n=$(cat /count 2>/dev/null || echo 0); echo "run $n"; echo $((n + 1)) >/count
echo "name $(hostname) $(cat /etc/hostname)"
cat /etc/hosts /etc/resolv.conf /etc/nsswitch.conf
(unset A B; . /etc/profile.d/run-env.sh; echo "env [$A] [$B]")
echo "keys $(stat -c '%u:%g %a' /home/app/.ssh) $(stat -c '%u:%g %a' /home/app/.ssh/authorized_keys)"
cat /home/app/.ssh/authorized_keys
echo "date $(date +%s)"
ask() { printf "$1\r\n\r\n" | nc 169.254.169.254 80; }
ask 'GET / HTTP/1.1' | head -n 1
token=$(ask 'PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 600' | tail -n 1)
meta() { ask "GET $1 HTTP/1.1\r\nX-metadata-token: $token" | tail -n 1; }
echo "meta $(meta /latest/meta-data/LocalHostname) $(meta /latest/user-data)"
echo "text $(ask "GET /latest/meta-data/LocalHostname HTTP/1.1\r\nAccept: application/json\r\nX-metadata-token: $token" | tail -n 1)"
# The address takes no port from the application.
nc -l -p 80 >/dev/null & sleep 0.2; kill $! && echo "port 80 is free"
trap 'rm /tmp/well' USR1
trap 'echo "changed $(meta /latest/meta-data/role)"' USR2
trap 'echo bye; exit 7' QUIT
trap 'echo "not this one"' TERM
mkdir -p /tmp; touch /tmp/well; echo ready
while :; do sleep 0.1; done
"#;

/// Its machine: a metadata service that answers with text only, and a balloon that tells of the memory.
const MACHINE: &str = r#"{
    "mmds-config": {"imds_compat": true},
    "balloon": {"amount_mib": 16, "deflate_on_oom": true, "stats_polling_interval_s": 1}
}"#;

#[test]
fn a_guest_is_as_it_was_asked_for_and_lives_again() {
    let test = "a_guest_is_as_it_was_asked_for_and_lives_again";
    let Some(home) = home(test) else { return };
    let key = home.path().join("id.pub");
    fs_err::write(&key, format!("# mine\n{KEY}\n")).unwrap();
    let more = home.path().join("more.json");
    fs_err::write(&more, r#"{"latest":{"user-data":"hello"}}"#).unwrap();
    let machine = home.path().join("machine.json");
    fs_err::write(&machine, MACHINE).unwrap();
    let [key, more, machine] = [key, more, machine].map(|path| path.display().to_string());
    let flags = [
        "-d",
        "--name",
        "g",
        "--hostname",
        "box",
        "--network",
        "none",
        "-e",
        "A=$(id) `id` it's",
        "-e",
        "B=hunter2",
        "--add-host",
        "db:10.1.2.3",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.org",
        "--ssh-user",
        "app",
        "--identity-file",
        &key,
        "--identity-file",
        &key,
        "--metadata",
        &more,
        "--machine-config",
        &machine,
        "--stop-timeout",
        "60",
    ];
    let _ = vm(&home, &flags, LIFE).ok();
    until("the first word", || logs(&home, "g").contains("ready"));
    let said = logs(&home, "g");
    for line in [
        "run 0",
        "name box box",
        "127.0.1.1\tbox",
        "10.1.2.3\tdb",
        "nameserver 192.0.2.53",
        "search example.org",
        "hosts: files dns",
        "env [$(id) `id` it's] [hunter2]",
        "keys 1000:1000 700 1000:1000 600",
        "HTTP/1.1 401 Unauthorized",
        "meta box hello",
        "text box",
        "port 80 is free",
    ] {
        assert!(
            said.lines().any(|said| said.trim_end() == line),
            "{line}\n---\n{said}"
        );
    }
    assert_eq!(said.matches(KEY).count(), 1, "{said}");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let date = said.lines().find_map(|line| line.strip_prefix("date "));
    assert!(
        now.as_secs()
            .abs_diff(date.unwrap().trim().parse().unwrap())
            < 90
    );

    // Its balloon's words: the size that was asked for, and the memory by the guest's driver.
    let mut balloon = serde_json::Value::Null;
    until("the balloon's statistics", || {
        let told = fb(&home, &["stats", "--no-stream", "--format=json", "g"]).ok();
        let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
        balloon = told["Balloon"].clone();
        balloon["actual_mib"] == 16 && balloon["total_memory"].is_u64()
    });
    for name in ["free_memory", "available_memory", "minor_faults"] {
        assert!(balloon[name].as_u64().unwrap() > 0, "{balloon}");
    }

    // Its health, by the image's own check.
    let health = |word: &str| {
        until(word, || at(&home, "g", "/State/Health/Status") == word);
    };
    health("healthy");
    let table = fb(&home, &["ls"]).ok().out();
    assert!(table.contains("(healthy)"), "{table}");
    let log = at(&home, "g", "/State/Health/Log");
    let last = log.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["Output"], &last["ExitCode"]),
        (&"it is well\n".into(), &0.into())
    );
    let _ = fb(&home, &["kill", "-s", "USR1", "g"]).ok();
    health("unhealthy");
    assert!(
        at(&home, "g", "/State/Health/FailingStreak")
            .as_u64()
            .unwrap()
            >= 2
    );
    assert!(
        at(&home, "g", "/State/Health/Log")
            .as_array()
            .unwrap()
            .len()
            <= 5
    );

    // Its metadata, seen from the host and changed.
    let name = fb(
        &home,
        &["mmds", "get", "g", "latest/meta-data/LocalHostname"],
    )
    .ok();
    assert_eq!(name.out(), "box\n");
    let all = fb(&home, &["mmds", "get", "g"]).ok().out();
    assert!(!all.contains("hunter2"), "{all}");
    let patch = home.path().join("patch.json");
    fs_err::write(&patch, r#"{"latest":{"meta-data":{"role":"primary"}}}"#).unwrap();
    let _ = fb(&home, &["mmds", "patch", "g", &patch.display().to_string()]).ok();
    let _ = fb(&home, &["kill", "-s", "USR2", "g"]).ok();
    until("the change", || {
        logs(&home, "g").contains("changed primary")
    });
    // Another one in its place: what is not in it is gone.
    fs_err::write(&patch, r#"{"latest":{"meta-data":{"role":"standby"}}}"#).unwrap();
    let _ = fb(&home, &["mmds", "put", "g", &patch.display().to_string()]).ok();
    let _ = fb(&home, &["kill", "-s", "USR2", "g"]).ok();
    until("the other document", || {
        logs(&home, "g").contains("changed standby")
    });
    let gone = ["mmds", "get", "g", "latest/meta-data/LocalHostname"];
    let gone = fb(&home, &gone).exits(1);
    assert!(gone.err().contains("LocalHostname"), "{}", gone.err());
    fs_err::write(&patch, format!("{{\"a\":\"{}\"}}", "x".repeat(52_000))).unwrap();
    let large = fb(&home, &["mmds", "put", "g", &patch.display().to_string()]).exits(1);
    assert!(large.err().contains("51200 bytes"), "{}", large.err());

    // No file that others can read holds a value.
    let id = at(&home, "g", "/Id");
    let records = home
        .path()
        .join("home/instances")
        .join(id.as_str().unwrap());
    for entry in fs_err::read_dir(&records).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = entry.unwrap().path();
        if path.ends_with("output.log") || path.ends_with("scratch.raw") {
            continue; // what the guest itself wrote
        }
        let mode = fs_err::metadata(&path).unwrap().permissions().mode() & 0o777;
        let holds = fs_err::read(&path)
            .unwrap()
            .windows(7)
            .any(|window| window == b"hunter2");
        assert!(
            !holds || path.ends_with("order.json") && mode == 0o600,
            "{path:?}"
        );
    }

    // STOPSIGNAL stops it; what it wrote is there when it starts again.
    let _ = fb(&home, &["stop", "g"]).ok();
    let state = at(&home, "g", "/State");
    assert_eq!(state["ExitCode"], 7);
    assert_eq!(state["Health"]["Status"], "unhealthy");
    assert!(logs(&home, "g").contains("bye") && !logs(&home, "g").contains("not this one"));
    assert_eq!(fb(&home, &["start", "g"]).ok().out(), "g\n");
    until("the second run", || logs(&home, "g").contains("run 1"));
    until("the end of its beginning", || {
        logs(&home, "g").matches("ready").count() == 2
    });
    assert_eq!(at(&home, "g", "/State/Status"), "running");
    assert_eq!(logs(&home, "g").matches(KEY).count(), 2, "once in each run");
    let role = fb(&home, &["mmds", "get", "g", "latest/meta-data/role"]).ok();
    assert_eq!(role.out(), "standby\n");
    // One that runs is left alone.
    let _ = fb(&home, &["start", "g"]).ok();
    let pid = at(&home, "g", "/State/Pid");
    let _ = fb(&home, &["restart", "g"]).ok();
    until("the third run", || logs(&home, "g").contains("run 2"));
    assert_ne!(at(&home, "g", "/State/Pid"), pid);
    assert_eq!(at(&home, "g", "/RestartCount"), 0);
    let _ = fb(&home, &["rm", "-f", "g"]).ok();
    let gone = fb(&home, &["start", "g"]).exits(1);
    assert!(gone.err().contains("no VM called g"), "{}", gone.err());
}

#[test]
fn a_policy_starts_again_and_bad_ends_are_told() {
    let test = "a_policy_starts_again_and_bad_ends_are_told";
    let Some(home) = home(test) else { return };
    let both = vm(&home, &["-d", "--rm", "--restart", "always"], "true").exits(2);
    assert!(both.err().contains("--rm"), "{}", both.err());
    let count =
        "n=$(cat /count 2>/dev/null || echo 0); echo \"run $n\"; echo $((n + 1)) >/count; exit 3";
    let flags = [
        "-d",
        "--name",
        "r",
        "--restart",
        "on-failure:2",
        "--no-healthcheck",
        "--no-mmds",
    ];
    let _ = vm(&home, &flags, count).ok();
    // Meanwhile: a wrong user is told and the application starts all the same.
    let key = home.path().join("id.pub");
    fs_err::write(&key, KEY).unwrap();
    let key = key.display().to_string();
    let flags = ["--rm", "--ssh-user", "nobody-here", "--identity-file", &key];
    let wrong = vm(&home, &flags, "echo it runs").ok();
    assert_eq!(wrong.out(), "it runs\n");
    assert!(wrong.err().contains("nobody-here"), "{}", wrong.err());
    // An account that is made, and root's.
    let flags = [
        "--rm",
        "--ssh-user",
        "me",
        "--create-user",
        "--identity-file",
        &key,
    ];
    let made = vm(
        &home,
        &flags,
        "id me; ls -ld /home/me; cat /home/me/.ssh/authorized_keys",
    )
    .ok();
    assert!(
        made.out().contains("uid=1001(me)") && made.out().contains(KEY),
        "{}",
        made.out()
    );

    assert_eq!(fb(&home, &["wait", "r"]).ok().out(), "3\n");
    assert_eq!(logs(&home, "r"), "run 0\nrun 1\nrun 2\n");
    let seen = inspect(&home, "r");
    assert_eq!(seen.pointer("/RestartCount").unwrap(), 2);
    assert_eq!(seen.pointer("/State/Status").unwrap(), "exited");
    assert_eq!(
        seen.pointer("/HostConfig/RestartPolicy/Name").unwrap(),
        "on-failure"
    );
    assert_eq!(seen.pointer("/State/Health"), None);

    // The kernel's last words, and its want of memory.
    let crash = "echo up; sleep 1; echo c >/proc/sysrq-trigger; sleep 100";
    let _ = vm(&home, &["-d", "--name", "panic"], crash).ok();
    assert_eq!(fb(&home, &["wait", "panic"]).ok().out(), "125\n");
    let error = at(&home, "panic", "/State/Error");
    let error = error.as_str().unwrap();
    assert!(
        error.contains("Kernel panic") && error.contains("sysrq"),
        "{error}"
    );
    // Written to shared memory it cannot be taken back.
    let hungry = vm(&home, &["--name", "oom"], "tail /dev/zero").exits(137);
    assert_eq!(
        at(&home, "oom", "/State/OOMKilled"),
        true,
        "{}",
        hungry.err()
    );
    assert_eq!(at(&home, "oom", "/State/ExitCode"), 137);
}
