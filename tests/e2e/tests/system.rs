//! A whole system in a VM: the image's own init is process 1. Debian's systemd, entered by ssh; its runit and OpenRC; busybox.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::process::Command;
use std::time::{Duration, Instant};

use firebuild_e2e::{Done, Home, base_with, full_base, missing, run, skip};
use serde_json::Value;

/// A system boots slowly under TCG.
const LIMIT: Duration = Duration::from_secs(240);

fn fb(home: &Home, args: &[&str]) -> Done {
    run(&mut home.command(args.iter().copied()), LIMIT)
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn systemd_is_process_1_and_ssh_opens_the_door() {
    let test = "systemd_is_process_1_and_ssh_opens_the_door";
    let programs = [
        "qemu-system-x86_64",
        "passt",
        "mmdebstrap",
        "ssh",
        "ssh-keygen",
    ];
    if let Some(program) = missing(&programs) {
        return skip(test, "vm", &format!("{program} is not installed"));
    }
    let Some(home) = Home::with_kernel() else {
        return skip(test, "vm", "no kernel package");
    };
    if full_base(&home).is_none() {
        return skip(test, "mirror", "no full base could be bootstrapped");
    }
    let key = home.path().join("key");
    let made = run(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key),
        LIMIT,
    );
    assert_eq!(made.code, 0, "{}", made.err());
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:22");
    let public = format!("{}.pub", key.display());
    let script = "echo \"the unit runs as $(id -un) with $COLOUR\"; trap 'echo the unit stops; exit 4' TERM; \
                  while :; do sleep 0.2; done";
    let started = fb(
        &home,
        &[
            "run",
            "-d",
            "--name",
            "sys",
            "--init",
            "system",
            "--mem",
            "512",
            "-p",
            &publish,
            "--ssh-user",
            "debian",
            "--identity-file",
            &public,
            "-e",
            "COLOUR=it's \"$blue\" %n",
            "-u",
            "games",
            "debian:full",
            "--",
            "bash",
            "-c",
            script,
        ],
    );
    let _ = started.ok();
    let ssh = |command: &str| {
        let mut ssh = Command::new("ssh");
        ssh.args(["-q", "-i"]).arg(&key).args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=5",
            "-p",
        ]);
        ssh.arg(port.to_string())
            .args(["debian@127.0.0.1", command]);
        run(&mut ssh, LIMIT)
    };
    let begin = Instant::now();
    let first = loop {
        let done = ssh("id -un");
        if done.code == 0 {
            break done;
        }
        if begin.elapsed() > LIMIT {
            let console = fb(&home, &["logs", "--console", "sys"]);
            panic!("no login\n{}\n{}", done.err(), console.out());
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    assert_eq!(first.out(), "debian\n");
    let look = ssh(
        "ps -o comm= -p 1; systemctl is-active firebuild-app; grep -l firebuild /proc/[0-9]*/cgroup | wc -l; \
         sudo -n id -u; stat -c '%U %a' ~/.ssh/authorized_keys; hostname; bash -lc 'echo \"$COLOUR\"'",
    );
    let words = look.out();
    let lines: Vec<&str> = words.lines().collect();
    assert_eq!(lines[..2], ["systemd", "active"], "{words}\n{}", look.err());
    assert!(lines[2].parse::<u32>().unwrap() >= 1, "{words}");
    assert_eq!(lines[3..5], ["0", "debian 600"], "{words}");
    assert_eq!(lines[6], "it's \"$blue\" %n", "{words}");
    let logged = fb(&home, &["logs", "sys"]).ok().out();
    assert!(
        logged.contains("the unit runs as games with it's \"$blue\" %n"),
        "{logged}"
    );

    // The agent beside systemd: programs, copies, numbers.
    let exec = fb(
        &home,
        &[
            "exec",
            "sys",
            "sh",
            "-c",
            "id -un; echo \"$COLOUR\"; echo aside >&2; exit 3",
        ],
    )
    .exits(3);
    assert_eq!(exec.out(), "games\nit's \"$blue\" %n\n");
    assert_eq!(exec.err(), "aside\n");
    let unit = "sys:/run/systemd/system/firebuild-app.service";
    let copy = home.path().join("unit");
    let _ = fb(&home, &["cp", unit, &copy.display().to_string()]).ok();
    let copied = fs_err::read_to_string(&copy).unwrap();
    assert!(copied.contains("User=5\n"), "{copied}");
    let top = fb(&home, &["top", "sys"]).ok().out();
    assert!(top.contains("sshd") && top.contains("while :; do"), "{top}");
    let stats = fb(&home, &["stats", "--no-stream", "--format", "json", "sys"]).ok();
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert!(stats["Sample"].is_object(), "{stats}");

    let _ = fb(&home, &["stop", "sys"]).ok();
    let seen: Value = serde_json::from_slice(&fb(&home, &["inspect", "sys"]).ok().stdout).unwrap();
    let console = fb(&home, &["logs", "--console", "sys"]).out();
    assert_eq!(seen.pointer("/State/ExitCode").unwrap(), 4, "{console}");
    assert!(
        fb(&home, &["logs", "sys"])
            .ok()
            .out()
            .contains("the unit stops")
    );
    assert!(console.contains("reboot: Restarting system"), "{console}");
    let _ = fb(&home, &["rm", "sys"]).ok();
}

/// What the boot does last of all before the services.
const SLOW: &[u8] = b"#!/bin/sh\nsleep 2; echo boot >>/order\n";
const SLOW_OF_OPENRC: &[u8] = b"#!/sbin/openrc-run\nstart() { sleep 2; echo boot >>/order; }\n";

/// An init without an inittab, of a package of Debian's: the application starts when the boot is over, once at each start,
/// and the system ends in order behind it.
fn boots_first(test: &str, package: &str, comm: &str, slow: (&str, &[u8]), link: &str) {
    if let Some(program) = missing(&["qemu-system-x86_64", "mmdebstrap"]) {
        return skip(test, "vm", &format!("{program} is not installed"));
    }
    let Some(home) = Home::with_kernel() else {
        return skip(test, "vm", "no kernel package");
    };
    if base_with(&home, package).is_none() {
        return skip(test, "mirror", "no base could be bootstrapped");
    }
    let (path, script) = slow;
    let dockerfile = format!(
        "FROM debian:{package}\nCOPY --chmod=0755 slow {path}\nRUN ln -s {path} {link} && touch /order && chmod 666 /order\n"
    );
    let context = home.context(
        "ctx",
        &[("Dockerfile", dockerfile.as_bytes()), ("slow", script)],
    );
    let _ = home.build("test/init:2", &context).ok();
    let flags = [
        "run",
        "-d",
        "--name",
        "i",
        "--init",
        "system",
        "--mem",
        "256",
        "--network",
        "none",
    ];
    let command = ["-u", "games", "test/init:2", "--", "sh", "-c"];
    let app = "echo \"as $(id -un) beside $(cat /proc/1/comm)\"; echo application >>/order\n\
               trap 'echo it stops; exit 4' TERM; while :; do sleep 0.1; done";
    let _ = fb(&home, &[&flags[..], &command, &[app]].concat()).ok();
    let logs = || fb(&home, &["logs", "i"]).ok().out();
    let console = || fb(&home, &["logs", "--console", "i"]).out();
    let said = format!("as games beside {comm}");
    for start in 1..=2 {
        let begin = Instant::now();
        while logs().matches(&said).count() != start {
            assert!(begin.elapsed() < LIMIT, "{}\n{}", logs(), console());
            std::thread::sleep(Duration::from_millis(100));
        }
        let order = fb(&home, &["exec", "i", "cat", "/order"]).ok().out();
        assert_eq!(order, "boot\napplication\n".repeat(start), "{}", console());
        let _ = fb(&home, &["stop", "-t", "60", "i"]).ok();
        let seen = fb(&home, &["inspect", "i"]).ok().stdout;
        let seen: Value = serde_json::from_slice(&seen).unwrap();
        assert_eq!(seen.pointer("/State/ExitCode").unwrap(), 4, "{}", console());
        assert!(
            console().contains("reboot: Restarting system"),
            "{}",
            console()
        );
        assert_eq!(logs().matches("it stops").count(), start, "{}", logs());
        if start == 1 {
            let _ = fb(&home, &["start", "i"]).ok();
        }
    }
    let _ = fb(&home, &["rm", "i"]).ok();
}

#[test]
fn runit_boots_and_then_the_application_starts() {
    boots_first(
        "runit_boots_and_then_the_application_starts",
        "runit-init",
        "runit",
        ("/etc/init.d/slow", SLOW),
        "/etc/rcS.d/S99slow",
    );
}

#[test]
fn openrc_boots_and_then_the_application_starts() {
    boots_first(
        "openrc_boots_and_then_the_application_starts",
        "openrc",
        "openrc-init",
        ("/etc/init.d/slow", SLOW_OF_OPENRC),
        "/etc/runlevels/default/slow",
    );
}

const INITTAB: &[u8] =
    b"::sysinit:/bin/sh -c 'sleep 1; echo boot >>/order'\n::respawn:/bin/sleep 100000\n\
    ::shutdown:/bin/sh -c 'echo shutdown >>/order; sync'\n";
/// What runs beside busybox: it tells what it finds, and ends by the signal that it is asked to end by.
const BESIDE: &str = r#"
echo "as $(id -u) beside $(cat /proc/1/comm)"; echo application >>/order
trap 'echo it stops; echo stop >>/order; exit 4' QUIT
trap 'echo terminated; exit 5' TERM
while :; do sleep 0.1; done
"#;

#[test]
fn busybox_is_process_1_and_has_the_first_and_the_last_word() {
    let test = "busybox_is_process_1_and_has_the_first_and_the_last_word";
    let Some((home, busybox)) = Home::for_machines(test) else {
        return;
    };
    let dockerfile = b"FROM scratch\nCOPY --chmod=0755 busybox /bin/busybox\nCOPY etc /etc\n\
        COPY --chmod=0666 order /order\n\
        RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
        RUN [\"/bin/busybox\", \"sh\", \"-c\", \"mkdir /sbin && ln -s /bin/busybox /sbin/init\"]\n\
        STOPSIGNAL SIGQUIT\n";
    let context = home.context(
        "ctx",
        &[
            ("Dockerfile", dockerfile),
            ("busybox", &busybox),
            ("order", b""),
            ("etc/inittab", INITTAB),
            (
                "etc/passwd",
                b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n",
            ),
            ("etc/group", b"root:x:0:\napp:x:1000:\n"),
        ],
    );
    let _ = home.build("test/init:1", &context).ok();
    let flags = [
        "run",
        "-d",
        "--name",
        "b",
        "--init",
        "system",
        "--mem",
        "192",
        "--network",
        "none",
        "--mmds-version",
        "1",
        "--mmds-env",
        "-e",
        "COLOUR=light blue",
        "-u",
        "app",
        "test/init:1",
        "--",
        "sh",
        "-c",
        BESIDE,
    ];
    let _ = fb(&home, &flags).ok();
    let logs = || fb(&home, &["logs", "b"]).ok().out();
    let code = || {
        let seen = fb(&home, &["inspect", "b"]).ok().stdout;
        let seen: Value = serde_json::from_slice(&seen).unwrap();
        seen.pointer("/State/ExitCode").unwrap().as_u64().unwrap()
    };
    let runs = |count: usize| {
        let begin = Instant::now();
        while logs().matches("as 1000 beside init").count() != count {
            let console = fb(&home, &["logs", "--console", "b"]);
            assert!(begin.elapsed() < LIMIT, "{}\n{}", logs(), console.out());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    runs(1);
    let exec = |words: &[&str]| {
        let args = [&["exec", "-u", "root", "b"], words].concat();
        fb(&home, &args).ok().out()
    };
    // The boot is over when it starts, and the agent answers beside both.
    let order = exec(&["cat", "/order", "/etc/inittab"]);
    assert!(order.starts_with("boot\napplication\n"), "{order}");
    assert!(order.contains("sleep 100000"), "{order}");
    let env = "http://169.254.169.254/latest/meta-data/Env/COLOUR";
    assert_eq!(exec(&["wget", "-q", "-O", "-", env]), "light blue");
    let top = fb(&home, &["top", "b"]).ok().out();
    assert!(top.contains("sleep 100000"), "{top}");
    let stats = fb(&home, &["stats", "--no-stream", "--format", "json", "b"]).ok();
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert!(stats["Sample"].is_object(), "{stats}");

    // The application ends by its own signal, then the init ends the rest in order.
    let _ = fb(&home, &["stop", "b"]).ok();
    let console = fb(&home, &["logs", "--console", "b"]).out();
    assert_eq!(code(), 4, "{console}");
    assert!(console.contains("reboot: Restarting system"), "{console}");
    let said = logs();
    assert!(
        said.contains("it stops") && !said.contains("terminated"),
        "{said}"
    );

    // Once more; now the system ends by itself, and the application by the system's signal.
    let _ = fb(&home, &["start", "b"]).ok();
    runs(2);
    assert_eq!(exec(&["grep", "-c", "/exe cue", "/etc/inittab"]), "1\n");
    assert_eq!(
        exec(&["cat", "/order"]),
        "boot\napplication\nstop\nshutdown\nboot\napplication\n"
    );
    let _ = exec(&["reboot"]);
    assert_eq!(fb(&home, &["wait", "b"]).ok().out(), "5\n");
    assert!(logs().contains("terminated"), "{}", logs());
    let _ = fb(&home, &["rm", "b"]).ok();
}
