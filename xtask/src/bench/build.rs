//! Builds: an unchanged rebuild, and RUN steps beside `crun` starting the same program in the same root file system.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::stats::{Candidate, alternate, ratio, shown};
use super::{Plan, Section};
use crate::Fallible;

/// RUN steps of one measured build; a build of none is measured beside it, so that the difference is theirs.
const STEPS: usize = 20;

const NO_CHANGE: &str = "unchanged rebuild";
const NONE: &str = "build without steps";
const SOME: &str = "build with steps";
const CRUN: &str = "crun run";

/// Needs `target/release/firebuild`, a static busybox, and for the comparison `crun` and root.
pub(super) fn run(plan: Plan<'_>) -> Fallible<Section> {
    let program = plan.root.join("target/release/firebuild");
    if !program.is_file() {
        return Err("target/release/firebuild is not there: run `cargo build --release`".into());
    }
    let temp = tempfile::tempdir()?;
    let (home, context) = (temp.path().join("home"), temp.path().join("context"));
    let firebuild = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).env("FIREBUILD_HOME", &home);
        command.args(["--progress=quiet", &context.display().to_string()]);
        command
    };
    write_context(&context)?;
    let file = |name: &str| context.join(name).display().to_string();
    let (base, none, some) = (
        file("Dockerfile.base"),
        file("Dockerfile.none"),
        file("Dockerfile.some"),
    );
    check(firebuild(&["build", "-f", &base, "-t", "bench/base:1"]))?;
    check(firebuild(&["build", "-f", &some, "-t", "bench/some:1"]))?;
    let bundle = temp.path().join("bundle");
    let with_crun = write_bundle(&firebuild, &base, &bundle)?;
    let ready = || Ok(());
    let mut candidates = vec![
        Candidate {
            name: NO_CHANGE,
            prepare: Box::new(ready),
            command: Box::new(|| firebuild(&["build", "-f", &some, "-t", "bench/some:1"])),
        },
        Candidate {
            name: NONE,
            prepare: Box::new(ready),
            command: Box::new(|| firebuild(&["build", "--no-cache", "-f", &none])),
        },
        Candidate {
            name: SOME,
            prepare: Box::new(ready),
            command: Box::new(|| firebuild(&["build", "--no-cache", "-f", &some])),
        },
    ];
    if with_crun {
        candidates.push(Candidate {
            name: CRUN,
            prepare: Box::new(ready),
            command: Box::new(|| crun(&bundle)),
        });
    }
    let medians = alternate(plan.rounds, &candidates)?;
    let time = |name: &str| {
        medians
            .iter()
            .find(|median| median.name == name)
            .map(|median| median.time)
            .unwrap_or_default()
    };
    let steps = time(SOME).saturating_sub(time(NONE));
    let mut text = format!(
        "## Builds\n\nWall time of a process, medians of {} alternating rounds, as {}.\n\n\
         | what | time | beside crun |\n|---|---|---|\n",
        plan.rounds,
        if rustix::process::geteuid().is_root() {
            "root"
        } else {
            "an ordinary user"
        }
    );
    writeln!(
        text,
        "| {NO_CHANGE} of {STEPS} steps (aim: under 20 ms) | {} | |",
        shown(time(NO_CHANGE))
    )?;
    let beside = if with_crun {
        ratio(&medians, steps, CRUN)
    } else {
        "crun does not run here".to_owned()
    };
    writeln!(
        text,
        "| {STEPS} RUN steps of `true`, each with its layer made and stored (build with them less build without) | {} | {beside} |",
        shown(steps)
    )?;
    if with_crun {
        writeln!(
            text,
            "| {STEPS} times `crun run` of `true` in the same root file system | {} | 1 |",
            shown(time(CRUN))
        )?;
    }
    text.push_str("\nAim of a step beside crun: at most 0.7 as root, 1.4 as an ordinary user.\n");
    Ok(Section {
        name: "build",
        text,
    })
}

fn write_context(context: &Path) -> Fallible<()> {
    fs_err::create_dir_all(context)?;
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    fs_err::copy(
        busybox.ok_or("no busybox: install busybox-static")?,
        context.join("busybox"),
    )?;
    fs_err::write(
        context.join("Dockerfile.base"),
        "FROM scratch\nCOPY --chmod=0755 busybox /bin/busybox\nCOPY --chmod=0755 busybox /bin/sh\nCOPY --chmod=0755 busybox /bin/true\n",
    )?;
    fs_err::write(context.join("Dockerfile.none"), "FROM bench/base:1\n")?;
    fs_err::write(
        context.join("Dockerfile.some"),
        format!(
            "FROM bench/base:1\n{}",
            "RUN [\"/bin/true\"]\n".repeat(STEPS)
        ),
    )?;
    Ok(())
}

/// A bundle of the same files; says whether crun can run it here.
fn write_bundle(
    firebuild: &dyn Fn(&[&str]) -> Command,
    base: &str,
    bundle: &Path,
) -> Fallible<bool> {
    let output = format!("type=dir,dest={}", bundle.join("rootfs").display());
    fs_err::create_dir_all(bundle)?;
    check(firebuild(&["build", "-f", base, "--output", &output]))?;
    let spec = Command::new("crun")
        .arg("spec")
        .current_dir(bundle)
        .output();
    if !spec.is_ok_and(|output| output.status.success()) {
        return Ok(false);
    }
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs_err::read(&path)?)?;
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    config["process"]["terminal"] = serde_json::json!(false);
    config["root"]["readonly"] = serde_json::json!(false);
    fs_err::write(&path, config.to_string())?;
    Ok(crun(bundle)
        .output()
        .is_ok_and(|output| output.status.success()))
}

/// crun of Debian 12 wants no second hierarchy of cgroups beside the first: it is hidden from it where there is one.
fn crun(bundle: &Path) -> Command {
    let script = format!(
        "umount /sys/fs/cgroup/unified 2>/dev/null; set -e; for i in $(seq {STEPS}); do crun run --bundle \"$0\" bench-$$-$i; done"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(bundle);
    command
}

fn check(mut command: Command) -> Fallible<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}
