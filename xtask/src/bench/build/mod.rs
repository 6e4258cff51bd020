//! `cargo xtask bench build`: the same Dockerfiles through firebuild, BuildKit and buildah, taking turns.
//!
//! ```text
//!  scene: base image ▸ Dockerfile ▸ cold │ no change │ one thing changed, each by every builder, and the commands bare
//! ```
//!
//! *Cold* is an empty build cache with the base image there, unpacked. The overhead of a builder is its time less that of
//! the same commands run bare. A builder that this machine cannot have is left out, and the text says why.

mod builder;
mod memory;
mod oracle;
mod scene;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::stats::{Candidate, Median, alternate, shown, succeed};
use super::{Plan, Section};
use crate::Fallible;
use builder::Builder;
use oracle::Docker;
use scene::{Change, Scene};

const BARE: &str = "the commands bare";

/// Measures all scenes. `FIREBUILD_BENCH_SCENES` names some of them, with commas between.
pub(super) fn run(plan: Plan<'_>) -> Fallible<Section> {
    let program = super::program(plan.root)?;
    let docker = Docker::find(plan.root);
    if let Err(why) = &docker {
        eprintln!("BuildKit is not measured: {why}");
    }
    // The daemon sees only what lies below its own directory.
    let parent = match &docker {
        Ok(docker) => docker.directory().to_owned(),
        Err(_) => plan.root.join("target"),
    };
    fs_err::create_dir_all(&parent)?;
    let temp = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(parent)?;
    let mut builders = vec![Builder::firebuild(program, temp.path().join("home"))];
    let mut absent = Vec::new();
    match docker {
        Ok(docker) => builders.push(Builder::buildkit(docker)),
        Err(why) => absent.push(format!("BuildKit is not measured: {why}.")),
    }
    match Builder::buildah(&temp.path().join("containers")) {
        Ok(buildah) => builders.push(buildah),
        Err(why) => absent.push(format!("buildah is not measured: {why}.")),
    }
    let result = all(plan.rounds, temp.path(), &builders, &absent);
    for builder in &builders {
        // What stays of it lies in the temporary directory or is found again the next time.
        let _ = builder.clean_up();
    }
    result
}

fn all(rounds: usize, work: &Path, builders: &[Builder], absent: &[String]) -> Fallible<Section> {
    let names: Vec<&str> = builders.iter().map(Builder::name).collect();
    let mut text = format!(
        "## Builds\n\nWall time of the client, medians of {rounds} alternating rounds, as root. {} \
         firebuild also writes the bootable ext4 image of the result, which the others have no equal to.\n\
         In brackets the overhead: the total less the same commands run bare. What takes longer than {} s is run once.\n{}\n\
         | what | {} | {BARE} | firebuild / fastest other |\n|---|{}---|---|\n",
        machine(builders),
        super::stats::LONG.as_secs(),
        absent
            .iter()
            .map(|line| format!("\n{line}\n"))
            .collect::<String>(),
        names.join(" | "),
        "---|".repeat(names.len()),
    );
    let wanted = std::env::var("FIREBUILD_BENCH_SCENES").ok();
    let mut unable = Vec::new();
    for scene in scene::all(work)? {
        if wanted
            .as_ref()
            .is_some_and(|wanted| !wanted.split(',').any(|name| name == scene.name))
        {
            continue;
        }
        eprintln!("preparing: {}", scene.title);
        scene.write()?;
        for builder in builders {
            succeed(builder.build(&scene.base))?;
        }
        let mut able = Vec::new();
        for builder in builders {
            let tried = succeed(builder.build(&scene.build));
            if let Err(error) = &tried {
                eprintln!("{} cannot build it: {error}", builder.name());
                let said = error.to_string();
                let last = said.lines().last().unwrap_or_default();
                let last = last.split_once("Error: ").map_or(last, |(_, said)| said);
                let last = last.rsplit(": ").next().unwrap_or_default();
                unable.push(format!(
                    "{} cannot build {}: it says {last:?}.",
                    builder.name(),
                    scene.title
                ));
            }
            able.push(tried.is_ok());
        }
        for change in scene.changes() {
            eprintln!("measuring: {}, {}", scene.title, change.title());
            let row = measure(rounds, &scene, change, builders, &able)?;
            eprintln!("  {row}");
            writeln!(text, "| {}, {} | {row} |", scene.title, change.title())?;
        }
        if scene.name == "parallel" {
            eprintln!("measuring: peak memory");
            writeln!(
                text,
                "| peak memory of that build, cold | {} |",
                peak(&scene, builders)?
            )?;
        }
        fs_err::remove_dir_all(&scene.directory)?;
    }
    for line in &unable {
        write!(text, "\n{line}\n")?;
    }
    text.push_str(
        "\nMemory is the largest sum of proportional set sizes (PSS), looked at every few milliseconds: \
         of firebuild's and buildah's processes, of BuildKit's daemon and client.\n\
         Aims, beside the fastest other: cold at most 0.5, no change at most 0.1, one file changed at most 0.3, \
         memory at most 0.5 of BuildKit's.\n",
    );
    Ok(Section {
        name: "build",
        text,
    })
}

fn machine(builders: &[Builder]) -> String {
    let mut words = vec![super::host()];
    words.extend(builders.iter().filter_map(Builder::version));
    format!("{}.", words.join(", "))
}

/// One line of the table: the time and overhead of each builder, of the bare commands, and the ratios.
fn measure(
    rounds: usize,
    scene: &Scene,
    change: Change,
    builders: &[Builder],
    able: &[bool],
) -> Fallible<String> {
    let mut candidates: Vec<Candidate<'_>> = builders
        .iter()
        .zip(able)
        .filter(|(_, able)| **able)
        .map(|(builder, _)| Candidate {
            name: builder.name(),
            prepare: Box::new(move || {
                if change == Change::Cold {
                    return builder.forget(&scene.base);
                }
                scene.touch(change)
            }),
            command: Box::new(move || builder.build(&scene.build)),
        })
        .collect();
    candidates.push(Candidate {
        name: BARE,
        prepare: Box::new(|| Ok(())),
        command: Box::new(move || scene.bare(change)),
    });
    let medians = alternate(rounds, &candidates)?;
    let (bare, measured) = medians.split_last().ok_or("nothing was measured")?;
    let over = |median: &Median| median.time.saturating_sub(bare.time);
    let mut times = measured.iter();
    let mut cells: Vec<String> = able
        .iter()
        .map(|able| match able.then(|| times.next()).flatten() {
            Some(median) => format!("{} ({})", shown(median.time), shown(over(median))),
            None => "fails".to_owned(),
        })
        .collect();
    cells.push(shown(bare.time));
    cells.push(match measured {
        [own, others @ ..] if !others.is_empty() => format!(
            "**{}** ({})",
            beside(own.time, others.iter().map(|median| median.time)),
            beside(over(own), others.iter().map(over))
        ),
        _ => "–".to_owned(),
    });
    Ok(cells.join(" | "))
}

fn beside(own: Duration, others: impl Iterator<Item = Duration>) -> String {
    match others.min() {
        Some(fastest) if !fastest.is_zero() => {
            format!("{:.2}", own.as_secs_f64() / fastest.as_secs_f64())
        }
        _ => "–".to_owned(),
    }
}

fn peak(scene: &Scene, builders: &[Builder]) -> Fallible<String> {
    let mut peaks = Vec::new();
    for builder in builders {
        builder.forget(&scene.base)?;
        peaks.push(memory::peak(builder.build(&scene.build), builder.daemon())?);
    }
    let mut cells: Vec<String> = peaks
        .iter()
        .map(|bytes| format!("{} MiB", bytes >> 20))
        .collect();
    cells.push(String::new());
    let buildkit = builders
        .iter()
        .zip(&peaks)
        .find(|(builder, _)| builder.daemon().is_some());
    cells.push(match (peaks.first(), buildkit) {
        (Some(own), Some((_, theirs))) => {
            format!("**{:.2}** of BuildKit's", *own as f64 / *theirs as f64)
        }
        _ => "–".to_owned(),
    });
    Ok(cells.join(" | "))
}

/// A build: a Dockerfile, its context, and what the result is called.
struct Build {
    dockerfile: PathBuf,
    context: PathBuf,
    tag: &'static str,
}

/// A command in a shell.
fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}
