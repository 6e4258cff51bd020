//! The guest's init: from the hand-over of the kernel to the application, beside a script of busybox that does the same mounts.
//!
//! Both ends are the kernel's own marks on its console: "Run /init as init process", and what the application writes to
//! `/dev/kmsg` as its first act. So both candidates are measured by one clock, the guest's.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use firebuild_rootfs::ext4;

use super::super::stats::{median, shown};
use super::scene::{ByHand, IMAGE, Scene, command_of, text_of};
use crate::Fallible;

const MARK: &str = "bench-mark";
const APPLICATION: &str = "echo bench-mark >/dev/kmsg";
const LOUD: &str = "loglevel=7";
/// What a guest without a network loads modules for.
const PURPOSES: [&str; 6] = ["pci", "disk", "filesystem", "console", "channel", "overlay"];
/// The mounts of vminit (`bin/vminit/src/mounts.rs`), in its order. The end of this init ends the machine.
const INIT: &str = "#!/bin/busybox sh\n\
    b=/bin/busybox\n\
    $b mount -t devtmpfs dev /dev; $b mount -t sysfs sys /sys\n\
    for m in /modules/*; do $b insmod $m; done\n\
    $b mount -t ext4 -o ro /dev/vda /image; $b mount -t ext4 /dev/vdb /scratch\n\
    $b mkdir /scratch/upper /scratch/work\n\
    $b mount -t overlay -o lowerdir=/image,upperdir=/scratch/upper,workdir=/scratch/work overlay /root\n\
    $b umount -l /dev; $b umount -l /sys\n\
    cd /root; $b mkdir -p proc sys dev run tmp\n\
    $b mount -t proc proc proc; $b mount -t sysfs sys sys; $b mount -t devtmpfs dev dev\n\
    $b mkdir -p dev/pts dev/shm dev/mqueue\n\
    $b mount -t devpts devpts dev/pts; $b mount -t tmpfs tmpfs dev/shm; $b mount -t mqueue mqueue dev/mqueue\n\
    $b mount -t cgroup2 cgroup2 sys/fs/cgroup\n\
    $b ifconfig lo up; $b hostname bench\n\
    exec $b switch_root /root /bin/sh -c 'echo bench-mark >/dev/kmsg'\n";

/// The table.
pub(super) fn section(scene: &Scene, rounds: usize) -> Fallible<String> {
    let scratch = scene.path("scratch");
    let words = scene.by_hand(
        "initrd-handover",
        &ByHand {
            flags: &["--network=none"],
            purposes: &PURPOSES,
            init: INIT,
            append: LOUD,
            scratch: Some(&scratch),
        },
    )?;
    let (mut busybox, mut vminit) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let by_hand = by_hand(&words, &scratch)?;
        let ours = ours(scene)?;
        if round > 0 {
            busybox.push(by_hand);
            vminit.push(ours);
        }
    }
    let (busybox, vminit) = (median(busybox), median(vminit));
    Ok(format!(
        "## The guest's init\n\nFrom the kernel's hand-over to the first act of the application, by the guest's own clock; medians of \
         {rounds} alternating rounds. The script does the same mounts and loads the same modules; vminit also speaks with the host.\n\n\
         | init | hand-over to application |\n|---|---|\n\
         | a script of busybox | {} |\n| vminit | {} ({:.2}) |\n\nAim: no slower.\n",
        shown(busybox),
        shown(vminit),
        vminit.as_secs_f64() / busybox.as_secs_f64()
    ))
}

fn by_hand(words: &[String], scratch: &Path) -> Fallible<Duration> {
    let file = std::fs::File::create(scratch)?;
    ext4::write_empty(&file, 1 << 30, "bench", b"bench")?;
    let output = command_of(words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    between_marks(&String::from_utf8_lossy(&output.stdout))
}

fn ours(scene: &Scene) -> Fallible<Duration> {
    let run = [
        "run",
        "-d",
        "--network=none",
        "--kernel-args",
        LOUD,
        IMAGE,
        "--",
        "/bin/sh",
        "-c",
        APPLICATION,
    ];
    let id = text_of(&mut scene.firebuild(&run))?;
    let id = id.trim();
    text_of(&mut scene.firebuild(&["wait", id]))?;
    let console = fs_err::read(scene.instances().join(id).join("console.log"))?;
    text_of(&mut scene.firebuild(&["rm", id]))?;
    between_marks(&String::from_utf8_lossy(&console))
}

/// The time between both marks of a console, whose lines begin with seconds in brackets.
fn between_marks(console: &str) -> Fallible<Duration> {
    let of = |mark: &str| -> Fallible<f64> {
        let line = console.lines().find(|line| line.contains(mark));
        let line = line.ok_or_else(|| format!("no {mark} on the console:\n{console}"))?;
        let seconds = line
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'))
            .ok_or_else(|| format!("no time in {line}"))?;
        Ok(seconds.0.trim().parse()?)
    };
    let between = of(MARK)? - of("Run /init as init process")?;
    Ok(Duration::try_from_secs_f64(between)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::between_marks;

    #[test]
    fn consoles_are_read() {
        let console = "[    0.000000] Linux version 6.1\r\n[    1.250000] Run /init as init process\r\n\
                       noise\r\n[    1.500500] bench-mark\r\n";
        assert_eq!(
            between_marks(console).unwrap(),
            Duration::from_micros(250_500)
        );
        assert!(between_marks("[    1.2] bench-mark").is_err());
    }
}
