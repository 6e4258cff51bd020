//! From `run` to the application's first output, beside QEMU started by hand: the same kernel, modules, machine, disk and
//! kernel command line, and an init that is a script of busybox.

use std::process::Command;
use std::time::{Duration, Instant};

use super::super::stats::{Candidate, median, shown};
use super::scene::{ByHand, IMAGE, Scene, command_of, until_word};
use crate::Fallible;

/// What a guest of `run` loads modules for.
pub(super) const PURPOSES: [&str; 7] = [
    "pci",
    "disk",
    "filesystem",
    "console",
    "channel",
    "overlay",
    "network",
];
/// What a person writes: the modules, the disk, the program of the image on the console, the end.
pub(super) const INIT: &str = "#!/bin/busybox sh\n\
    /bin/busybox mount -t devtmpfs dev /dev; exec >/dev/console 2>&1\n\
    for m in /modules/*; do /bin/busybox insmod $m; done\n\
    /bin/busybox mount -t ext4 -o ro /dev/vda /mnt\n\
    /bin/busybox chroot /mnt /bin/echo first-output\n\
    /bin/busybox reboot -f\n";

/// The table.
pub(super) fn section(scene: &Scene, rounds: usize) -> Fallible<String> {
    let words = scene.by_hand(
        "initrd",
        &ByHand {
            flags: &[],
            purposes: &PURPOSES,
            init: INIT,
            append: "",
            scratch: None,
        },
    )?;
    let candidates = [
        candidate("QEMU by hand, busybox as init", || command_of(&words)),
        candidate("`firebuild run --rm`", || {
            scene.firebuild(&["run", "--rm", IMAGE])
        }),
        candidate("`firebuild run --rm --network=none`", || {
            scene.firebuild(&["run", "--rm", "--network=none", IMAGE])
        }),
    ];
    let mut taken: Vec<Vec<Taken>> = vec![Vec::new(); candidates.len()];
    for round in 0..=rounds {
        for turn in 0..candidates.len() {
            let at = (round + turn) % candidates.len();
            rustix::fs::sync();
            let one = until_first_output((candidates[at].command)())?;
            if round > 0 {
                taken[at].push(one);
            }
        }
    }
    let rows = candidates
        .iter()
        .zip(&taken)
        .map(|(candidate, taken)| (candidate.name, Taken::medians(taken)));
    Ok(text(rounds, &rows.collect::<Vec<_>>()))
}

fn candidate<'a>(name: &'static str, command: impl Fn() -> Command + 'a) -> Candidate<'a> {
    Candidate {
        name,
        prepare: Box::new(|| Ok(())),
        command: Box::new(command),
    }
}

fn text(rounds: usize, rows: &[(&str, Taken)]) -> String {
    let mut text = format!(
        "## From `run` to the first output\n\nWall time from the start of the command to the first output of the application, and \
         processor time of all its processes to their end; medians of {rounds} alternating rounds, under TCG where KVM does not \
         work. The same kernel, modules, machine, disk and kernel command line; `run` has a scratch disk, a channel and (but \
         for the last line) a network besides.\n\n\
         | what | first output | beside QEMU by hand | processor time | beside QEMU by hand |\n|---|---|---|---|---|\n"
    );
    let bare = rows[0].1;
    for (name, taken) in rows {
        let beside = |time: Duration, bare: Duration| time.as_secs_f64() / bare.as_secs_f64();
        text.push_str(&format!(
            "| {name} | {} | {:.2} | {} | {:.2} |\n",
            shown(taken.first_output),
            beside(taken.first_output, bare.first_output),
            shown(taken.processor),
            beside(taken.processor, bare.processor),
        ));
    }
    text.push_str("\nAim: at most 1.10.\n");
    text
}

/// What one start took.
#[derive(Clone, Copy, Debug)]
struct Taken {
    first_output: Duration,
    processor: Duration,
}

impl Taken {
    fn medians(all: &[Taken]) -> Taken {
        let of = |part: fn(&Taken) -> Duration| median(all.iter().map(part).collect());
        Taken {
            first_output: of(|taken| taken.first_output),
            processor: of(|taken| taken.processor),
        }
    }
}

fn until_first_output(mut command: Command) -> Fallible<Taken> {
    let before = processor_time()?;
    let first_output = until_word(&mut command, Instant::now())?;
    Ok(Taken {
        first_output,
        processor: processor_time()?.saturating_sub(before),
    })
}

/// Processor time of all children that have ended, theirs included: fields 16 and 17 of `/proc/self/stat`, `proc(5)`.
fn processor_time() -> Fallible<Duration> {
    let stat = fs_err::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields
        .split_ascii_whitespace()
        .skip(13)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(
        ticks * 1000 / rustix::param::clock_ticks_per_second(),
    ))
}
