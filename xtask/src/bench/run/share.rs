//! Our own share of a start: until the first line of the guest's kernel on the serial console, less the same mark of the VMM's
//! command line by hand. What comes after that mark is the guest's.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::stats::{median, shown};
use super::first::{INIT, PURPOSES};
use super::scene::{ByHand, IMAGE, Scene, command_of};
use crate::Fallible;

/// Makes the kernel say its first line.
const LOUD: &str = "loglevel=7";
/// A boot takes seconds; what takes longer has failed.
const LIMIT: Duration = Duration::from_secs(120);

/// The table.
pub(super) fn section(scene: &Scene, rounds: usize) -> Fallible<String> {
    let words = scene.by_hand(
        "initrd-share",
        &ByHand {
            flags: &["--network=none"],
            purposes: &PURPOSES,
            init: INIT,
            append: LOUD,
            scratch: None,
        },
    )?;
    let networks = if rustix::process::geteuid().is_root() {
        &["none", "user", "bridge"][..]
    } else {
        &["none", "user"][..]
    };
    let mut bare = Vec::new();
    let mut ours: Vec<Vec<Duration>> = vec![Vec::new(); networks.len()];
    for round in 0..=rounds {
        rustix::fs::sync();
        let by_hand = until_console(&mut command_of(&words))?;
        for (network, times) in networks.iter().zip(&mut ours) {
            let network = format!("--network={network}");
            let args = ["run", "--rm", &network, "--kernel-args", LOUD, IMAGE];
            rustix::fs::sync();
            let time = until_recorded(&mut scene.firebuild(&args), &scene.instances())?;
            if round > 0 {
                times.push(time);
            }
        }
        if round > 0 {
            bare.push(by_hand);
        }
    }
    let bare = median(bare);
    let mut text = format!(
        "## Our own share of a start\n\nWall time from the start of the command to the first byte of the guest's console, less the \
         same of QEMU by hand ({}); medians of {rounds} alternating rounds. The rest of a start is the guest's own.\n\n\
         | what | first byte | our share |\n|---|---|---|\n",
        shown(bare)
    );
    for (network, times) in networks.iter().zip(ours) {
        let time = median(times);
        let share = time.as_secs_f64() - bare.as_secs_f64();
        text.push_str(&format!(
            "| `firebuild run --rm --network={network}` | {} | {:.1} ms |\n",
            shown(time),
            share * 1000.0
        ));
    }
    text.push_str("\nAim: 10 ms.\n");
    Ok(text)
}

fn until_console(command: &mut Command) -> Fallible<Duration> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut console = child.stdout.take().ok_or("no standard output")?;
    let count = console.read(&mut [0; 1])?;
    let time = start.elapsed();
    child.kill()?;
    child.wait()?;
    if count == 0 {
        return Err(format!("{command:?} printed nothing").into());
    }
    Ok(time)
}

/// The console of `run` is a file; it is looked at every fifth of a millisecond.
fn until_recorded(command: &mut Command, instances: &Path) -> Fallible<Duration> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let recorded = || {
        let entries = fs_err::read_dir(instances).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path().join("console.log"))
            .any(|console| fs_err::metadata(console).is_ok_and(|found| found.len() > 0))
    };
    while !recorded() {
        if start.elapsed() > LIMIT {
            child.kill()?;
            return Err(format!("{command:?} recorded no console").into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let time = start.elapsed();
    child.wait()?;
    Ok(time)
}
