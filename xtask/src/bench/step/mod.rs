//! `cargo xtask bench step`: RUN steps beside `crun` starting the same program in the same root file system, as root and
//! as an ordinary user, and an unchanged rebuild.
//!
//! The start alone is the executor's work on a step that fails, of which no layer is made. With the layer made it is a
//! whole build: finding the key, running, taking the difference, writing and hashing the layer, keeping the record.

mod start;
mod user;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

pub(super) use start::starts;

use super::stats::{Candidate, alternate, ratio, shown, succeed};
use super::{Plan, Section};
use crate::Fallible;
use user::Who;

/// Steps of one measured run.
const STEPS: usize = 20;

const NO_CHANGE: &str = "unchanged rebuild";
const NONE: &str = "build without steps";
const SOME: &str = "build with steps";
const START: &str = "start alone";
const CRUN: &str = "crun run";

/// Needs `target/release/firebuild`, a static busybox, and for the comparison `crun`. Only root measures both users.
pub(super) fn run(plan: Plan<'_>) -> Fallible<Section> {
    let program = super::program(plan.root)?;
    let mut text = format!(
        "## RUN steps and unchanged rebuilds\n\nWall time, medians of {} alternating rounds. {}.\n\n\
         | who | unchanged rebuild of {STEPS} steps | {STEPS} starts alone | {STEPS} steps with their layers made and stored | {STEPS} times `crun run` | start / crun | with layer / crun |\n\
         |---|---|---|---|---|---|---|\n",
        plan.rounds,
        super::host()
    );
    for who in Who::measured() {
        // Elsewhere it may be that only its owner gets in.
        let temp = tempfile::tempdir_in("/tmp")?;
        eprintln!("measuring: {}", who.name());
        match measure(plan.rounds, &program, temp.path(), who) {
            Ok(row) => writeln!(text, "| {} | {row} |", who.name())?,
            Err(error) => writeln!(
                text,
                "| {} | not measured: {} | | | | | |",
                who.name(),
                error.to_string().replace('\n', " ")
            )?,
        }
    }
    text.push_str(
        "\nAims: an unchanged rebuild under 20 ms; the start of a step beside crun at most 0.7 as root, 1.4 as an ordinary user.\n",
    );
    Ok(Section { name: "step", text })
}

fn measure(rounds: usize, program: &Path, work: &Path, who: Who) -> Fallible<String> {
    let place = user::Place::make(work, who)?;
    let (program, own) = (
        place.keep(program, "firebuild")?,
        place.keep(&std::env::current_exe()?, "xtask")?,
    );
    let context = work.join("context");
    write_context(&context)?;
    place.give(&context)?;
    let firebuild = |args: &[&str]| {
        let mut command = place.command(&program);
        command.args(args).env("FIREBUILD_HOME", work.join("home"));
        command.arg("--progress=quiet").arg(&context);
        command
    };
    let file = |name: &str| context.join(name).display().to_string();
    let (base, none, some) = (
        file("Dockerfile.base"),
        file("Dockerfile.none"),
        file("Dockerfile.some"),
    );
    succeed(firebuild(&["build", "-f", &base, "-t", "bench/base:1"]))?;
    succeed(firebuild(&["build", "-f", &some, "-t", "bench/some:1"]))?;
    let bundle = work.join("bundle");
    let output = format!("type=dir,dest={}", bundle.join("rootfs").display());
    place.directory(&bundle)?;
    succeed(firebuild(&["build", "-f", &base, "--output", &output]))?;
    let crun = || {
        let script = format!(
            "set -e; for i in $(seq {STEPS}); do crun --root \"$0/state\" run --bundle \"$0\" bench-$$-$i; done"
        );
        let mut command = place.command(Path::new("/bin/sh"));
        command.args(["-c", &script]).arg(&bundle);
        command
    };
    let with_crun = user::write_spec(&place, &bundle)?
        && crun().output().is_ok_and(|output| output.status.success());
    let start = || {
        let mut command = place.command(&own);
        command
            .args(["bench", "step-start"])
            .arg(work.join("store"));
        command.arg(bundle.join("rootfs")).arg(STEPS.to_string());
        command
    };

    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    let mut add = |name, command| {
        candidates.push(Candidate {
            name,
            prepare: Box::new(|| Ok(())),
            command,
        });
    };
    let firebuild = &firebuild;
    let (none, some) = (&none, &some);
    add(
        NO_CHANGE,
        Box::new(move || firebuild(&["build", "-f", some, "-t", "bench/some:1"]))
            as Box<dyn Fn() -> Command + '_>,
    );
    add(
        NONE,
        Box::new(move || firebuild(&["build", "--no-cache", "-f", none])),
    );
    add(
        SOME,
        Box::new(move || firebuild(&["build", "--no-cache", "-f", some])),
    );
    add(START, Box::new(start));
    if with_crun {
        add(CRUN, Box::new(crun));
    }
    let medians = alternate(rounds, &candidates)?;
    let time = |name: &str| {
        medians
            .iter()
            .find(|median| median.name == name)
            .map(|median| median.time)
            .unwrap_or_default()
    };
    let steps = time(SOME).saturating_sub(time(NONE));
    let beside = if with_crun {
        shown(time(CRUN))
    } else {
        "crun does not run here".to_owned()
    };
    Ok(format!(
        "{} | {} | {} | {beside} | **{}** | {}",
        shown(time(NO_CHANGE)),
        shown(time(START)),
        shown(steps),
        ratio(&medians, time(START), CRUN),
        ratio(&medians, steps, CRUN),
    ))
}

fn write_context(context: &Path) -> Fallible<()> {
    fs_err::create_dir_all(context)?;
    fs_err::copy(super::busybox()?, context.join("busybox"))?;
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
