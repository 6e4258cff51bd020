//! A whole system in a VM: a `baseos --full` base whose systemd is process 1, entered by ssh.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::process::Command;
use std::time::{Duration, Instant};

use firebuild_e2e::{Done, Home, full_base, missing, run, skip};
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
