//! `cargo xtask bench [--write] [--rounds N] [WHAT…]`: times of the product beside those of the tools it is measured
//! against, alternating in one run, as medians and ratios.
//!
//! Each benchmark gives a [`Section`]; `--write` puts it into `docs/benchmarks.md` between its markers, with the command
//! that made it. A new benchmark is a module here and a line in [`BENCHES`].

mod build;
mod ext4;
mod run;
mod stats;
mod step;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Fallible;

/// How a benchmark shall run.
#[derive(Clone, Copy, Debug)]
struct Plan<'a> {
    root: &'a Path,
    rounds: usize,
}

/// What a benchmark found.
#[derive(Debug)]
struct Section {
    /// The name on the command line and in the markers.
    name: &'static str,
    /// Markdown: what was compared, the tables, the aims.
    text: String,
}

type Bench = fn(Plan<'_>) -> Fallible<Section>;

const BENCHES: [(&str, Bench); 4] = [
    ("ext4", ext4::run),
    ("step", step::run),
    ("build", build::run),
    ("run", run::run),
];

/// Runs benchmarks by name, all of them without one. A debug build makes a release build and hands over to it.
pub(crate) fn run(root: &Path, args: &[&str]) -> Fallible<()> {
    if let ["ext4-write", rest @ ..] = args {
        return ext4::write(rest);
    }
    if let ["step-start", rest @ ..] = args {
        return step::starts(rest);
    }
    if cfg!(debug_assertions) {
        return hand_over(root, args);
    }
    let (mut write, mut rounds, mut names) = (false, 5, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--write" => write = true,
            "--rounds" => rounds = args.next().ok_or("--rounds needs a number")?.parse()?,
            name if BENCHES.iter().any(|(known, _)| *known == name) => names.push(name),
            other => return Err(format!("no benchmark {other}").into()),
        }
    }
    for (name, bench) in BENCHES {
        if names.is_empty() || names.contains(&name) {
            let section = bench(Plan { root, rounds })?;
            println!("{}", section.text);
            if write {
                put(root, &section, rounds)?;
            }
        }
    }
    Ok(())
}

fn hand_over(root: &Path, args: &[&str]) -> Fallible<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "run",
            "--quiet",
            "--release",
            "--locked",
            "--package",
            "xtask",
            "--",
            "bench",
        ])
        .args(args)
        .current_dir(root)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the benchmark failed".into())
    }
}

/// The release build of the program.
fn program(root: &Path) -> Fallible<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let program = target.join("release/firebuild");
    if !program.is_file() {
        return Err("target/release/firebuild is not there: run `cargo build --release`".into());
    }
    Ok(program)
}

/// The static busybox of the host.
fn busybox() -> Fallible<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .ok_or_else(|| "no busybox: install busybox-static".into())
}

/// Cores and kernel: what the figures depend on.
fn host() -> String {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    format!(
        "{} cores, Linux {}",
        std::thread::available_parallelism().map_or(1, usize::from),
        release.split('-').next().unwrap_or_default()
    )
}

/// Bytes that are not zeros and not the same twice, from a small generator (xorshift64).
struct Noise(u64);

impl Default for Noise {
    fn default() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }
}

impl Noise {
    fn fill(&mut self, block: &mut [u8]) {
        for word in block.as_chunks_mut::<8>().0 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *word = self.0.to_le_bytes();
        }
    }
}

/// Replaces the section of a benchmark in `docs/benchmarks.md`, or appends it.
fn put(root: &Path, section: &Section, rounds: usize) -> Fallible<()> {
    let path = root.join("docs/benchmarks.md");
    let old = fs_err::read_to_string(&path)?;
    let (begin, end) = (
        format!("<!-- bench:{} -->", section.name),
        format!("<!-- /bench:{} -->", section.name),
    );
    let body = format!(
        "{begin}\n{}\nMade by `cargo xtask bench --write --rounds {rounds} {}`.\n{end}",
        section.text, section.name
    );
    let new = match (old.find(&begin), old.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{body}{}", &old[..from], &old[to + end.len()..])
        }
        _ => format!("{}\n\n{body}\n", old.trim_end()),
    };
    Ok(fs_err::write(path, new)?)
}
