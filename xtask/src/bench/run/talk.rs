//! Commands in a running VM: how long the shortest takes, and how much goes through.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::Noise;
use super::super::stats::{median, shown};
use super::scene::{IMAGE, Scene, text_of};
use crate::Fallible;

const MIB: usize = 1 << 20;
const FILE_MIB: usize = 64;
/// Round trips are short: more of them than rounds.
const ROUND_TRIPS: usize = 11;

/// The table.
pub(super) fn section(scene: &Scene, rounds: usize) -> Fallible<String> {
    let run = [
        "run",
        "-d",
        "--network=none",
        IMAGE,
        "--",
        "/bin/sleep",
        "1000",
    ];
    let id = text_of(&mut scene.firebuild(&run))?;
    let id = id.trim();
    let measured = measure(scene, id, rounds);
    text_of(&mut scene.firebuild(&["rm", "-f", id]))?;
    let Measured {
        round_trip,
        stdout,
        into,
        out_of,
    } = measured?;
    let speed = |time: Duration| {
        let mib = f64::from(u32::try_from(FILE_MIB).unwrap_or(u32::MAX));
        format!("{:.0} MiB/s ({})", mib / time.as_secs_f64(), shown(time))
    };
    Ok(format!(
        "## Commands in a running VM\n\nWall time of whole commands; medians of {ROUND_TRIPS} and {rounds}; {FILE_MIB} MiB that do not \
         compress, zeros in blocks of 64 KiB for standard output.\n\n\
         | what | |\n|---|---|\n\
         | `exec VM /bin/echo` | {} |\n\
         | standard output of `exec` | {} |\n\
         | `cp FILE VM:/` | {} |\n\
         | `cp VM:/FILE .` | {} |\n",
        shown(round_trip),
        speed(stdout),
        speed(into),
        speed(out_of),
    ))
}

struct Measured {
    round_trip: Duration,
    stdout: Duration,
    into: Duration,
    out_of: Duration,
}

fn measure(scene: &Scene, id: &str, rounds: usize) -> Fallible<Measured> {
    let (file, copy) = (scene.path("file"), scene.path("copy"));
    let mut bytes = vec![0; FILE_MIB * MIB];
    Noise::default().fill(&mut bytes);
    fs_err::write(&file, &bytes)?;
    let (file, copy) = (file.display().to_string(), copy.display().to_string());
    let inside = format!("{id}:/file");
    // In whole blocks: `head` of busybox goes byte by byte, which is all that would be measured.
    let blocks = format!("count={}", FILE_MIB * 16);
    let zeros = [
        "exec",
        id,
        "/bin/dd",
        "if=/dev/zero",
        "bs=64k",
        &blocks,
        "status=none",
    ];
    let many = |count: usize, args: &[&str]| -> Fallible<Duration> {
        let times: Fallible<Vec<Duration>> = (0..count)
            .map(|_| timed(&mut scene.firebuild(args)))
            .collect();
        Ok(median(times?))
    };
    let measured = Measured {
        round_trip: many(ROUND_TRIPS, &["exec", id, "/bin/echo", "x"])?,
        stdout: many(rounds, &zeros)?,
        into: many(rounds, &["cp", &file, &inside])?,
        out_of: many(rounds, &["cp", &inside, &copy])?,
    };
    if fs_err::read(&copy)? != bytes {
        return Err("what was copied in and out again is not the same".into());
    }
    Ok(measured)
}

fn timed(command: &mut Command) -> Fallible<Duration> {
    rustix::fs::sync();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let time = start.elapsed();
    if status.success() {
        Ok(time)
    } else {
        Err(format!("{command:?} failed").into())
    }
}
