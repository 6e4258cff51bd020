//! An output of `type=initrd` boots: the command of docs/guide/outputs.md, with a kernel that firebuild imported.

use firebuild_e2e::{Home, run};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the guest runs as its first process: it shows a file, its mode and its owner, and ends the machine.
const INIT: &[u8] = b"#!/bin/busybox sh\n\
    /bin/busybox echo \"up as $$\"\n\
    /bin/busybox stat -c '%a %u:%g' /data/kept\n\
    /bin/busybox cat /data/link\n\
    exec /bin/busybox reboot -f\n";

#[test]
fn an_initrd_boots() {
    let Some((home, busybox)) = Home::for_machines("an_initrd_boots") else {
        return;
    };
    let dockerfile: &[u8] = b"FROM scratch\n\
        COPY --chmod=0755 busybox /bin/busybox\n\
        COPY --chmod=0755 init /init\n\
        COPY --chown=12:34 --chmod=0640 kept /data/kept\n\
        COPY link /data/link\n";
    let context = home.context(
        "ctx",
        &[
            ("Dockerfile", dockerfile),
            ("busybox", &busybox),
            ("init", INIT),
            ("kept", b"kept\n"),
        ],
    );
    fs_err::os::unix::fs::symlink("kept", context.join("link")).expect("a new name");
    let context = context.display().to_string();
    let archive = home.path().join("app.cpio");
    let spec = format!("type=initrd,dest={},compression=zstd", archive.display());
    let _ = home.fb(["build", "-q", "-o", &spec, &context]).ok();
    let kernel = fs_err::read_dir(home.path().join("home/kernels"))
        .expect("a kernel was imported")
        .map(|entry| entry.expect("an entry").path().join("vmlinux"))
        .find(|path| path.is_file())
        .expect("a kernel was imported");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-M", "q35", "-m", "256", "-nographic", "-no-reboot"])
        .args(["-nodefaults", "-serial", "stdio", "-kernel"])
        .arg(&kernel)
        .arg("-initrd")
        .arg(&archive)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null());
    let out = run(&mut qemu, Duration::from_secs(240)).ok().out();
    // The firmware leaves its last line open.
    for line in ["up as 1", "640 12:34", "kept"] {
        let seen = out.lines().any(|seen| seen.trim().ends_with(line));
        assert!(seen, "{line}:\n{out}");
    }
}
