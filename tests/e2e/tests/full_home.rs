//! A disk that is full, where firebuild keeps its own things: an error that says so and what to do, nothing half-written, and
//! with more room everything goes on.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use firebuild_e2e::{Done, Home, firebuild, kernel_deb, missing, run, skip, with_base};

const LIMIT: Duration = Duration::from_secs(150);

/// A home on a disk of its own, which is as large as the test says.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path, size: &str) -> Self {
        fs_err::create_dir_all(at).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "none"], at);
        Self(at.to_owned())
    }

    fn resize(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], &self.0);
    }

    fn fb(&self, args: &[&str]) -> Done {
        let mut command = Command::new(firebuild());
        command
            .args(args)
            .env("FIREBUILD_HOME", self.0.join("home"));
        run(command.env_remove("SOURCE_DATE_EPOCH"), LIMIT)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(args: &[&str], at: &Path) {
    let _ = run(Command::new("mount").args(args).arg(at), LIMIT).ok();
}

/// Whether a failure says that the disk is full and what to do about it, in a few lines.
fn says_so(done: &Done) -> bool {
    let text = done.err();
    text.to_lowercase().contains("no space")
        && text.contains("free some space")
        && !text.contains("panicked")
}

/// A base as an archive, so that homes of any size can take it.
fn base(test: &str) -> Option<(Home, String)> {
    if !rustix::process::geteuid().is_root() {
        skip(test, "root", "only root can mount");
        return None;
    }
    let home = with_base(test)?;
    let file = home.path().join("base.tar").display().to_string();
    let spec = format!("type=oci,dest={file}");
    let text = "FROM base:1\n";
    let _ = home
        .fb([
            "build",
            "-q",
            "-t",
            "base:1",
            "--dockerfile-inline",
            text,
            "-o",
            &spec,
        ])
        .ok();
    Some((home, file))
}

#[test]
fn builds_in_a_home_without_room() {
    let Some((home, base)) = base("builds_in_a_home_without_room") else {
        return;
    };
    let data = vec![7; 5 << 20];
    let dockerfile: &[u8] =
        b"FROM base:1\nCOPY data /data\nRUN cat /data /data > /more\nCOPY data /again\n";
    let context = home.context("ctx", &[("Dockerfile", dockerfile), ("data", &data)]);
    let context = context.display().to_string();
    let (mut failed, mut sizes) = (0, 1..);
    loop {
        // Each step of a build is the one that finds no room at some size.
        let mib = sizes.next().unwrap() * 5 - 3;
        assert!(mib < 120, "a build of 30 MB does not fit into {mib} MiB");
        let disk = Disk::new(&home.path().join(format!("disk{mib}")), &format!("{mib}m"));
        let out = home.path().join("x.tar");
        let spec = format!("type=tar,dest={}", out.display());
        let load = ["image", "load", &base, "-t", "base:1"];
        let build = [
            "build",
            "-t",
            "t/x:1",
            "-o",
            "type=ext4",
            "-o",
            &spec,
            &context,
        ];
        let mut ok = true;
        for args in [&load[..], &build[..]] {
            let done = disk.fb(args);
            if done.code != 0 {
                // What a step itself could not write is in its own words.
                let of_step = done.err().contains("write error") || done.err().contains("cat:");
                assert!(
                    done.code == 1 && (says_so(&done) || of_step),
                    "{mib} MiB, {args:?}: {}\n{}",
                    done.code,
                    done.err()
                );
                ok = false;
                break;
            }
        }
        if ok {
            break;
        }
        failed += 1;
        assert!(!out.exists(), "an output of a build that failed");
        // Nothing is damaged, and with more room the same commands go on.
        disk.resize("300m");
        let whole = disk.fb(&["du", "--verify"]);
        assert_eq!(whole.code, 0, "{mib} MiB: {}", whole.err());
        if failed % 2 == 1 {
            for args in [&load[..], &build[..]] {
                let _ = disk.fb(args).ok();
            }
            let tree = disk.fb(&["image", "tree", "t/x:1"]).ok().out();
            assert!(tree.contains("/more file"), "{tree}");
            fs_err::remove_file(&out).unwrap();
        }
    }
    assert!(failed >= 3, "{failed} sizes were too small");
}

#[test]
fn kernels_and_machines_in_a_home_without_room() {
    let test = "kernels_and_machines_in_a_home_without_room";
    let Some((home, base)) = base(test) else {
        return;
    };
    let (None, Some(deb)) = (missing(&["qemu-system-x86_64"]), kernel_deb()) else {
        return skip(test, "vm", "no QEMU or no kernel package");
    };
    let deb = deb.display().to_string();
    let disk = Disk::new(&home.path().join("disk"), "8m");
    let done = disk.fb(&["kernel", "import", &deb]);
    assert!(
        done.code == 1 && says_so(&done),
        "{}\n{}",
        done.code,
        done.err()
    );
    assert_eq!(disk.fb(&["kernel", "ls"]).ok().out().lines().count(), 1);
    disk.resize("400m");
    let _ = disk.fb(&["kernel", "import", &deb]).ok();
    let _ = disk.fb(&["image", "load", &base, "-t", "base:1"]).ok();
    let _ = disk
        .fb(&["run", "--print=spec", "base:1", "--", "true"])
        .ok();
    // Everything is there, and there is no room for anything more.
    let mut fill = Command::new("dd");
    let file = format!("of={}", disk.0.join("fill").display());
    let filled = run(fill.args(["if=/dev/zero", &file, "bs=64k"]), LIMIT);
    assert_ne!(filled.code, 0);
    for args in [
        &["run", "--rm", "base:1", "--", "true"][..],
        &["run", "-d", "base:1", "--", "true"],
    ] {
        let done = disk.fb(args);
        assert!(
            done.code == 125 && says_so(&done),
            "{args:?}: {}\n{}",
            done.code,
            done.err()
        );
    }
    assert_eq!(disk.fb(&["ls", "-a", "-q"]).ok().out(), "");
    // What only shows or makes room works.
    for args in [
        &["ls"][..],
        &["du"],
        &["purge"],
        &["image", "ls"],
        &["prune", "--all", "--force"],
    ] {
        let done = disk.fb(args);
        assert_eq!(done.code, 0, "{args:?}\n{}", done.err());
    }
}
