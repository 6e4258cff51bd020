//! Working with a VM that runs: programs beside its application, copies, logs, statistics. One VM, many checks.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

mod copies;
mod machine;
mod programs;
mod streams;

use std::process::Child;
use std::time::{Duration, Instant};

use firebuild_e2e::{Done, Home, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A boot under TCG on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);
const IMAGE: &str = "test/session:1";
/// The VM.
const VM: &str = "lived-in";
/// What its application does: answers lines and a signal.
const SCRIPT: &str = "echo up; echo trouble >&2; trap 'echo user-signal' USR1; trap 'echo bye; exit 9' TERM; \
    while :; do read -t 10 line && echo \"line:$line\"; done";

fn home(test: &str) -> Option<Home> {
    let (home, busybox) = Home::for_machines(test)?;
    let dockerfile = b"FROM scratch\n\
        COPY --chmod=0755 busybox /bin/busybox\n\
        COPY --chmod=0755 busybox /bin/sh\n\
        COPY etc /etc\n\
        ENV BASE=yes GONE=here\n\
        WORKDIR /srv\n";
    let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
    let files: [(&str, &[u8]); 4] = [
        ("Dockerfile", dockerfile),
        ("busybox", &busybox),
        ("etc/passwd", passwd),
        ("etc/group", b"root:x:0:\napp:x:1000:\n"),
    ];
    let context = home.context("ctx", &files);
    let _ = home.build(IMAGE, &context).ok();
    Some(home)
}

fn fb(home: &Home, args: &[&str]) -> Done {
    run(&mut home.command(args.iter().copied()), LIMIT)
}

fn exec(home: &Home, words: &[&str]) -> Done {
    let args: Vec<&str> = ["exec"].iter().chain(words).copied().collect();
    fb(home, &args)
}

fn sh(home: &Home, script: &str) -> Done {
    exec(home, &[VM, "sh", "-c", script])
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{what} did not come"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The command lines of the guest's processes.
fn commands(home: &Home) -> Vec<String> {
    let list: Value =
        serde_json::from_slice(&fb(home, &["top", "--format", "json", VM]).ok().stdout).unwrap();
    let command = |process: &Value| process["command"].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(command).collect()
}

fn inspect(home: &Home) -> Value {
    serde_json::from_slice(&fb(home, &["inspect", VM]).ok().stdout).unwrap()
}

#[test]
fn a_vm_is_lived_in() {
    let Some(home) = home("a_vm_is_lived_in") else {
        return;
    };
    let refused = exec(&home, &[VM, "sh"]).exits(1);
    assert!(refused.err().contains("no VM called"), "{}", refused.err());
    let flags = [
        "run",
        "-di",
        "--mem",
        "256",
        "--name",
        VM,
        "-e",
        "TOKEN=hunter2",
        IMAGE,
    ];
    let args: Vec<&str> = flags
        .iter()
        .chain(&["--", "sh", "-c", SCRIPT])
        .copied()
        .collect();
    let _ = fb(&home, &args).ok();
    programs::programs(&home);
    programs::one_that_stalls_and_one_that_leaves(&home);
    programs::a_terminal(&home);
    copies::copies_in_and_out(&home);
    copies::a_copy_of_200_mb(&home);
    streams::attached(&home);
    streams::logs(&home);
    machine::numbers_and_pauses(&home);
    machine::a_vmm_that_hangs(&home);
    machine::the_end(&home);
}
