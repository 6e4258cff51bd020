//! The life of a VM as its commands show it: detached and in the foreground, to a good end and to bad ones.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_e2e::{Done, Home, Terminal, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A boot under TCG on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);
const IMAGE: &str = "test/life:1";

/// A home with a kernel and an image whose `/bin/sh` is busybox; nothing, with a skip, when one cannot be had.
fn home(test: &str) -> Option<Home> {
    let (home, busybox) = Home::for_machines(test)?;
    let dockerfile = b"FROM scratch\n\
        COPY --chmod=0755 busybox /bin/busybox\n\
        COPY --chmod=0755 busybox /bin/sh\n\
        COPY --chmod=0755 busybox /bin/sleep\n\
        COPY --chmod=0755 busybox /bin/yes\n\
        CMD [\"sh\"]\n";
    let context = home.context("ctx", &[("Dockerfile", dockerfile), ("busybox", &busybox)]);
    let _ = home.build(IMAGE, &context).ok();
    Some(home)
}

/// A VMM that hangs for longer than a command waits has not obeyed, as far as anybody has been told: when it comes back to
/// itself and does, the guest goes on all the same.
#[test]
fn a_pause_that_nobody_waits_for_any_more_is_undone() {
    let test = "a_pause_that_nobody_waits_for_any_more_is_undone";
    let Some(home) = home(test) else { return };
    let cache = home.path().join("elsewhere");
    let cache = format!("--run-cache={}", cache.display());
    let fb = |args: &[&str]| -> Done {
        let args = args.iter().copied().chain([cache.as_str()]);
        run(&mut home.command(args), LIMIT)
    };
    let counter = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done";
    let flags = ["-d", "--name=counts", "--network=none", &cache];
    let started = run(&mut home.command(vm(&flags, &["sh", "-c", counter])), LIMIT);
    let _ = started.ok();
    let counted = || fb(&["logs", "counts"]).ok().out().lines().count();
    let goes_on = || {
        let (before, begin) = (counted(), Instant::now());
        while counted() < before + 3 {
            assert!(begin.elapsed() < LIMIT, "it stands at {before}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    goes_on();
    let state = || -> Value {
        let seen: Value = serde_json::from_slice(&fb(&["inspect", "counts"]).ok().stdout).unwrap();
        seen["State"].clone()
    };
    // With this the connection is made.
    let _ = fb(&["pause", "counts"]).ok();
    let _ = fb(&["unpause", "counts"]).ok();
    let vmm = Pid::from_raw(i32::try_from(state()["Pid"].as_i64().unwrap()).unwrap()).unwrap();
    kill_process(vmm, Signal::STOP).unwrap();
    let refused = fb(&["pause", "counts"]).exits(1).err();
    assert!(refused.contains("did not answer stop in time"), "{refused}");
    assert_eq!(state()["Status"], "running");
    kill_process(vmm, Signal::CONT).unwrap();
    goes_on();
    assert_eq!(state()["Status"], "running");
    let _ = fb(&["pause", "counts"]).ok();
    assert_eq!(state()["Status"], "paused");
    let _ = fb(&["unpause", "counts"]).ok();
    goes_on();

    // Its metadata are found where its record is, and nowhere else.
    let value = ["mmds", "get", "counts", "latest/meta-data/more"];
    let patch = home.path().join("patch.json");
    fs_err::write(&patch, r#"{"latest": {"meta-data": {"more": "of it"}}}"#).unwrap();
    let patch = patch.display().to_string();
    let _ = fb(&["mmds", "patch", "counts", &patch]).ok();
    assert_eq!(fb(&value).ok().out(), "of it\n");
    let other = r#"{"latest": {"meta-data": {"more": "and more"}}}"#;
    fs_err::write(&patch, other).unwrap();
    let _ = fb(&["mmds", "put", "counts", &patch]).ok();
    assert_eq!(fb(&value).ok().out(), "and more\n");
    for args in [&value[..], &["mmds", "put", "counts", &patch]] {
        let elsewhere = run(&mut home.command(args.iter().copied()), LIMIT).exits(1);
        assert!(elsewhere.err().contains("counts"), "{}", elsewhere.err());
    }
    let _ = fb(&["rm", "-f", "counts"]).ok();
}

fn vm<'a>(flags: &[&'a str], words: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["run", "--mem", "192"];
    args.extend(flags);
    args.push(IMAGE);
    if !words.is_empty() {
        args.push("--");
        args.extend(words);
    }
    args
}

fn fb(home: &Home, args: &[&str]) -> Done {
    run(&mut home.command(args.iter().copied()), LIMIT)
}

fn inspect(home: &Home, name: &str) -> Value {
    serde_json::from_slice(&fb(home, &["inspect", name]).ok().stdout).unwrap()
}

fn pid(value: &Value, pointer: &str) -> Pid {
    let number = value.pointer(pointer).and_then(Value::as_i64).unwrap();
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

/// Whether a process of this number runs; a zombie that its parent has not fetched does not.
fn runs(pid: Pid) -> bool {
    let stat = fs_err::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .starts_with(" Z")
    })
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{what} did not come"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What no VM may leave: run dirs, instances, scratch disks.
fn assert_nothing_left(home: &Home) {
    let home = home.path().join("home");
    for dir in ["run", "instances"] {
        let left: Vec<PathBuf> = fs_err::read_dir(home.join(dir))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        let left: Vec<&PathBuf> = left
            .iter()
            .filter(|path| !path.ends_with(".lock"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_detached_vm_lives_and_is_stopped() {
    let Some(home) = home("a_detached_vm_lives_and_is_stopped") else {
        return;
    };
    let script = "echo to-stdout; echo to-stderr >&2; trap 'echo user-signal' USR1; \
                  trap 'echo stopping; exit 9' TERM; while :; do sleep 0.1; done";
    let started = fb(
        &home,
        &vm(
            &[
                "-d",
                "--name",
                "life",
                "-e",
                "TOKEN=hunter2",
                "--hostname",
                "box",
            ],
            &["sh", "-c", script],
        ),
    )
    .ok();
    let id = started.out().trim().to_owned();
    assert_eq!(id.len(), 64, "{id}");

    let listed = fb(&home, &["ls", "--format", "json"]).ok().out();
    assert!(
        listed.contains("life") && listed.contains(&id[..12]),
        "{listed}"
    );
    let seen = inspect(&home, &id[..10]);
    for (pointer, expected) in [
        ("/State/Status", Value::from("running")),
        ("/State/Running", Value::from(true)),
        ("/Config/Hostname", Value::from("box")),
        (
            "/NetworkInterfaces/0/StaticConfiguration/IPConfiguration/IP",
            Value::from("10.0.2.15"),
        ),
    ] {
        assert_eq!(seen.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert!(runs(pid(&seen, "/State/Pid")));
    if rustix::process::geteuid().is_root() {
        let status = format!("/proc/{}/status", pid(&seen, "/State/Pid").as_raw_nonzero());
        let status = fs_err::read_to_string(status).unwrap();
        assert!(
            !status.contains("Uid:\t0\t"),
            "the VMM runs as root:\n{status}"
        );
    }

    // A second one of that name is refused, and removing one that runs too.
    let taken = fb(&home, &vm(&["-d", "--name", "life"], &["sh"])).exits(125);
    assert!(taken.err().contains("in use"), "{}", taken.err());
    let busy = fb(&home, &["rm", "life"]).exits(1);
    assert!(busy.err().contains("runs"), "{}", busy.err());

    let _ = fb(&home, &["kill", "-s", "USR1", "life"]).ok();
    until("the answer to the signal", || {
        fb(&home, &["logs", "life"]).out().contains("user-signal")
    });
    let mut follower = home.command(["logs", "-f", "life"]);
    let mut waiter = home.command(["wait", "life"]);
    std::thread::scope(|scope| {
        let follower = scope.spawn(move || run(&mut follower, LIMIT));
        let waiter = scope.spawn(move || run(&mut waiter, LIMIT));
        let begin = Instant::now();
        let _ = fb(&home, &["stop", "-t", "60", "life"]).ok();
        assert!(
            begin.elapsed() < Duration::from_secs(50),
            "it took the grace period"
        );
        assert_eq!(waiter.join().unwrap().ok().out(), "9\n");
        let followed = follower.join().unwrap().ok();
        assert_eq!(followed.out(), "to-stdout\nuser-signal\nstopping\n");
        assert_eq!(followed.err(), "to-stderr\n");
    });
    let seen = inspect(&home, "life");
    assert_eq!(seen.pointer("/State/ExitCode"), Some(&Value::from(9)));
    assert_eq!(seen.pointer("/State/Status"), Some(&Value::from("exited")));
    assert_eq!(fb(&home, &["ls", "-q"]).ok().out(), "");

    // No value of a variable is written down but in what another start needs and on the guest's own disk (run-env.sh), which
    // only its user reads.
    let records = home.path().join("home/instances").join(&id);
    for entry in fs_err::read_dir(&records).unwrap() {
        let path = entry.unwrap().path();
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        if path.ends_with("scratch.raw") || path.ends_with("order.json") {
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
            continue; // the first is large, too
        }
        let content = fs_err::read(&path).unwrap();
        let found = content.windows(7).any(|window| window == b"hunter2");
        assert!(!found, "{} holds a secret", path.display());
    }
    let _ = fb(&home, &["rm", "life"]).ok();
    assert_nothing_left(&home);
}

#[test]
fn whoever_is_killed_leaves_nothing_that_purge_does_not_find() {
    let Some(home) = home("whoever_is_killed_leaves_nothing_that_purge_does_not_find") else {
        return;
    };
    for name in ["vmm", "monitor", "gone"] {
        let _ = fb(&home, &vm(&["-d", "--name", name], &["sleep", "1000"])).ok();
    }
    // The VMM: its monitor records it and cleans up.
    let seen = inspect(&home, "vmm");
    kill_process(pid(&seen, "/State/Pid"), Signal::KILL).unwrap();
    assert_eq!(fb(&home, &["wait", "vmm"]).ok().out(), "137\n");
    let seen = inspect(&home, "vmm");
    let error = seen
        .pointer("/State/Error")
        .and_then(Value::as_str)
        .unwrap();
    assert!(error.contains("killed by signal 9"), "{error}");

    // The monitor: its VMM dies with it, and what is left is dead.
    let seen = inspect(&home, "monitor");
    let vmm = pid(&seen, "/State/Pid");
    kill_process(pid(&seen, "/Firebuild/Machine/monitor/pid"), Signal::KILL).unwrap();
    until("the end of the VMM", || !runs(vmm));
    let seen = inspect(&home, "monitor");
    assert_eq!(seen.pointer("/State/Status"), Some(&Value::from("dead")));
    assert_eq!(fb(&home, &["wait", "monitor"]).ok().out(), "255\n");

    // The VM itself, by kill without a signal.
    let _ = fb(&home, &["kill", "gone"]).ok();
    assert_eq!(fb(&home, &["wait", "gone"]).ok().out(), "137\n");
    let again = fb(&home, &["kill", "gone"]).exits(1);
    assert!(again.err().contains("does not run"), "{}", again.err());

    // A bystander that is no business of ours.
    let stranger = home.path().join("home/run/keep-me");
    fs_err::create_dir_all(&stranger).unwrap();
    let purged = fb(&home, &["purge"]).ok().out();
    for name in ["vmm", "monitor", "gone"] {
        assert!(purged.contains(name), "{purged}");
    }
    assert!(stranger.exists());
    fs_err::remove_dir(&stranger).unwrap();
    assert_nothing_left(&home);
}

#[test]
fn the_end_of_a_removed_vm_is_still_told() {
    let Some(home) = home("the_end_of_a_removed_vm_is_still_told") else {
        return;
    };
    // Until it is told to go on, so that somebody waits when it ends.
    let script = "trap 'exit 42' USR1; echo ready; while :; do sleep 0.1; done";
    let _ = fb(
        &home,
        &vm(&["-d", "--rm", "--name", "brief"], &["sh", "-c", script]),
    )
    .ok();
    until("the trap", || {
        fb(&home, &["logs", "brief"]).out().contains("ready")
    });
    let mut waiter = home.command(["wait", "brief"]);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || run(&mut waiter, LIMIT));
        std::thread::sleep(Duration::from_millis(500));
        let _ = fb(&home, &["kill", "-s", "USR1", "brief"]).ok();
        assert_eq!(waiter.join().unwrap().ok().out(), "42\n");
    });
    assert_nothing_left(&home);
}

#[test]
fn what_cannot_run_says_why_and_leaves_nothing() {
    let Some(home) = home("what_cannot_run_says_why_and_leaves_nothing") else {
        return;
    };
    let busy = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = format!("127.0.0.1:{}:80", busy.local_addr().unwrap().port());
    let cases: [(&[&str], &[&str], i32, &str); 7] = [
        (&["--rm"], &["no-such-program"], 127, "not found"),
        (&["--rm"], &["/bin"], 126, "directory"),
        (&["--rm", "-u", "nobody-here"], &["sh"], 125, "nobody-here"),
        (&["--rm", "-w", "relative"], &["sh"], 125, "absolute"),
        (&["--rm", "--hostname", "a b"], &["sh"], 125, "host name"),
        (&["-p", &port], &["sh"], 125, "in use"),
        (
            &["--vmlinux-id", "other"],
            &["sh"],
            125,
            "no kernel called other",
        ),
    ];
    for (flags, words, code, why) in cases {
        let done = fb(&home, &vm(flags, words)).exits(code);
        assert!(
            done.err().contains(why),
            "{flags:?} {words:?}: {}",
            done.err()
        );
        assert_nothing_left(&home);
    }
    let done = fb(&home, &vm(&["-d", "-p", &port], &["sh"])).exits(125);
    assert!(done.err().contains("in use"), "{}", done.err());
    assert_nothing_left(&home);

    // One that could not be executed has run all the same, and its record tells.
    let done = fb(&home, &vm(&["-d", "--name", "typo"], &["no-such-program"])).exits(127);
    assert!(done.err().contains("no-such-program"), "{}", done.err());
    let seen = inspect(&home, "typo");
    assert_eq!(seen.pointer("/State/ExitCode"), Some(&Value::from(127)));
}

/// A run in the foreground whose first line has come.
struct Foreground {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Foreground {
    fn start(home: &Home, script: &str) -> Self {
        let mut command = home.command(vm(&["--rm"], &["sh", "-c", script]));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Self { child, stdout }
    }

    fn send(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The exit code and the rest of the output.
    fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        (status.code().unwrap_or(-1), rest)
    }
}

#[test]
fn signals_to_run_are_the_applications() {
    let Some(home) = home("signals_to_run_are_the_applications") else {
        return;
    };
    // The default action of an interrupt.
    let plain = Foreground::start(&home, "echo up; sleep 1000");
    plain.send(Signal::INT);
    assert_eq!(plain.end(), (130, String::new()));

    // A handler of its own.
    let handler = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done";
    let handler = Foreground::start(&home, handler);
    handler.send(Signal::TERM);
    assert_eq!(handler.end(), (5, "bye\n".to_owned()));

    // One that takes no notice: the third interrupt ends the machine.
    let deaf = "trap '' INT TERM; echo up; while :; do sleep 0.1; done";
    let deaf = Foreground::start(&home, deaf);
    for _ in 0..3 {
        deaf.send(Signal::INT);
        // Equal signals that come together are one.
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(deaf.end().0, 137);

    // Before the application runs, there is nobody else to ask.
    let mut booting = home
        .command(vm(&["--rm"], &["sleep", "1000"]))
        .spawn()
        .unwrap();
    let instances = home.path().join("home/instances");
    until("the machine", || {
        let entries = fs_err::read_dir(&instances).into_iter().flatten().flatten();
        entries
            .into_iter()
            .any(|entry| entry.path().join("machine.json").exists())
    });
    let pid = Pid::from_raw(i32::try_from(booting.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(booting.wait().unwrap().code(), Some(130));
    assert_nothing_left(&home);
}

#[test]
fn a_reader_that_leaves_ends_the_writer() {
    let Some(home) = home("a_reader_that_leaves_ends_the_writer") else {
        return;
    };
    let mut child = home
        .command(vm(&["--rm"], &["yes"]))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut begin = [0; 4];
    stdout.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"y\ny\n");
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(141)); // SIGPIPE, in the guest
    assert_nothing_left(&home);
}

#[test]
fn a_terminal_is_raw_while_the_guest_has_one() {
    let Some(home) = home("a_terminal_is_raw_while_the_guest_has_one") else {
        return;
    };
    let mut terminal = Terminal::new(33, 99);
    assert!(terminal.is_cooked());
    let mut command: Command = home.command(vm(&["--rm", "-t"], &["sh"]));
    let mut child = command
        .stdin(terminal.end())
        .stdout(terminal.end())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    terminal.expect("# ");
    assert!(!terminal.is_cooked());
    terminal.type_in("busybox stty size; echo TERM=$TERM.\n");
    terminal.expect("33 99");
    terminal.expect("TERM=xterm.");
    terminal.resize(44, 111);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::WINCH).unwrap();
    terminal.type_in(
        "until busybox stty size | busybox grep '44 111'; do sleep 0.1; done; echo al''l\n",
    );
    terminal.expect("all");
    terminal.type_in("sleep 1000\n");
    terminal.expect("sleep 1000");
    std::thread::sleep(Duration::from_millis(500));
    terminal.type_in("\x03");
    terminal.expect("# ");
    terminal.type_in("echo code-$?\n");
    terminal.expect("code-130");
    terminal.type_in("exit 3\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(terminal.is_cooked());
    assert_nothing_left(&home);
}

#[test]
fn an_interrupted_start_leaves_nothing() {
    use rustix::fs::{FlockOperation, flock};
    let Some(home) = home("an_interrupted_start_leaves_nothing") else {
        return;
    };
    let interrupt = |child: &Child| {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    };
    // While somebody changes the kernels, a start waits, and can be told not to.
    let lock = fs_err::File::open(home.path().join("home/kernels/lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    for flags in [&["--rm"][..], &["-d"]] {
        let mut waiting = home.command(vm(flags, &["sh"])).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        assert!(waiting.try_wait().unwrap().is_none(), "it does not wait");
        let begin = Instant::now();
        interrupt(&waiting);
        let status = waiting.wait().unwrap();
        assert!(!status.success() && begin.elapsed() < Duration::from_secs(2));
        assert_nothing_left(&home);
    }
    drop(lock);

    // A detached start that nobody waits for any more is nobody's.
    let mut starting = home
        .command(vm(&["-d"], &["sleep", "1000"]))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let instances = home.path().join("home/instances");
    let machine = || {
        let entries = fs_err::read_dir(&instances).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path().join("machine.json"))
            .find(|path| path.exists())
    };
    until("the machine", || machine().is_some());
    interrupt(&starting);
    assert!(!starting.wait().unwrap().success());
    until("the end of all of it", || {
        ["instances", "run"].iter().all(|dir| {
            let entries = fs_err::read_dir(home.path().join("home").join(dir));
            let mut left = entries.into_iter().flatten().flatten();
            left.all(|entry| entry.file_name() == ".lock")
        })
    });
}
