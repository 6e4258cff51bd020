//! Twenty VMs at once beside twenty command lines of QEMU: from the first start to the first output of the last of them.

use std::process::Command;
use std::time::{Duration, Instant};

use super::super::stats::{median, shown};
use super::first::{INIT, PURPOSES};
use super::scene::{ByHand, IMAGE, Scene, command_of, until_word};
use crate::Fallible;

const CROWD: usize = 20;
/// A round takes most of a minute under emulation.
const MOST_ROUNDS: usize = 3;
const MEMORY: [&str; 2] = ["--mem", "128"];

/// The table.
pub(super) fn section(scene: &Scene, rounds: usize) -> Fallible<String> {
    let rounds = rounds.min(MOST_ROUNDS);
    let words = scene.by_hand(
        "initrd-crowd",
        &ByHand {
            flags: &[MEMORY[0], MEMORY[1], "--network=none"],
            purposes: &PURPOSES,
            init: INIT,
            append: "",
            scratch: None,
        },
    )?;
    let (mut by_hand, mut ours) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let bare = || at_once(&|| command_of(&words));
        let run = || {
            at_once(&|| {
                scene.firebuild(&["run", "--rm", MEMORY[0], MEMORY[1], "--network=none", IMAGE])
            })
        };
        // Nobody always comes first.
        if round % 2 == 0 {
            by_hand.push(bare()?);
            ours.push(run()?);
        } else {
            ours.push(run()?);
            by_hand.push(bare()?);
        }
    }
    let (by_hand, ours) = (median(by_hand), median(ours));
    Ok(format!(
        "## Twenty at once\n\n{CROWD} VMs of 128 MiB, started in one go: until the last of them has printed its first output; medians \
         of {rounds} rounds.\n\n| what | all have printed |\n|---|---|\n\
         | QEMU by hand, busybox as init | {} |\n| `firebuild run --rm --network=none` | {} ({:.2}) |\n\nAim: at most 1.10.\n",
        shown(by_hand),
        shown(ours),
        ours.as_secs_f64() / by_hand.as_secs_f64()
    ))
}

/// Starts them, waits for their words and for their ends; the time until the last word.
fn at_once(command: &(dyn Fn() -> Command + Sync)) -> Fallible<Duration> {
    rustix::fs::sync();
    let start = Instant::now();
    let times: Vec<Result<Duration, String>> = std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..CROWD)
            .map(|_| {
                scope.spawn(|| until_word(&mut command(), start).map_err(|error| error.to_string()))
            })
            .collect();
        waiting
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("panicked".to_owned())))
            .collect()
    });
    let mut last = Duration::ZERO;
    for time in times {
        last = last.max(time?);
    }
    Ok(last)
}
