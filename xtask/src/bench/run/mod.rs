//! From `run` to the application's first output, beside QEMU started by hand: the same kernel, modules, machine, disk and
//! kernel command line, and an init that is a script of busybox.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_rootfs::cpio;
use serde_json::Value;

use super::stats::{Candidate, median, shown};
use super::{Plan, Section};
use crate::Fallible;

const IMAGE: &str = "bench/run:1";
/// What the application prints.
const WORD: &[u8] = b"first-output";
/// What a guest of `run` loads modules for (`firebuild kernel ls --format json` tells what each one is for).
const PURPOSES: [&str; 7] = [
    "pci",
    "disk",
    "filesystem",
    "console",
    "channel",
    "overlay",
    "network",
];
/// Options of the planned QEMU that the one by hand gets too.
const SHARED: [&str; 7] = [
    "-machine", "-accel", "-cpu", "-smp", "-m", "-rtc", "-append",
];
/// What a person writes: the modules, the disk, the program of the image on the console, the end.
const INIT: &str = "#!/bin/busybox sh\n\
    /bin/busybox mount -t devtmpfs dev /dev; exec >/dev/console 2>&1\n\
    for m in /modules/*; do /bin/busybox insmod $m; done\n\
    /bin/busybox mount -t ext4 -o ro /dev/vda /mnt\n\
    /bin/busybox chroot /mnt /bin/echo first-output\n\
    /bin/busybox reboot -f\n";

/// Needs `target/release/firebuild`, QEMU, a static busybox, and the kernel package that `scripts/kernel` fetches.
pub(super) fn run(plan: Plan<'_>) -> Fallible<Section> {
    let temp = tempfile::tempdir()?;
    let program = plan.root.join("target/release/firebuild");
    let home = temp.path().join("home");
    let firebuild = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).env("FIREBUILD_HOME", &home);
        command
    };
    let kernel = text_of(&mut Command::new(plan.root.join("scripts/kernel")))?;
    text_of(&mut firebuild(&["kernel", "import", kernel.trim()]))?;
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or("no busybox: install busybox-static")?;
    let context = temp.path().join("context");
    fs_err::create_dir_all(&context)?;
    fs_err::copy(busybox, context.join("busybox"))?;
    fs_err::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY --chmod=0755 busybox /bin/echo\nCMD [\"/bin/echo\", \"first-output\"]\n",
    )?;
    text_of(&mut firebuild(&[
        "build",
        "-q",
        "-t",
        IMAGE,
        &context.display().to_string(),
    ]))?;
    let bare = bare(&firebuild, busybox, temp.path())?;
    let by_hand = || {
        let mut command = Command::new(&bare[0]);
        command.args(&bare[1..]);
        command
    };
    let candidates = [
        candidate("QEMU by hand, busybox as init", by_hand),
        candidate("`firebuild run --rm`", || {
            firebuild(&["run", "--rm", IMAGE])
        }),
        candidate("`firebuild run --rm --network=none`", || {
            firebuild(&["run", "--rm", "--network=none", IMAGE])
        }),
    ];
    let mut taken: Vec<Vec<Taken>> = vec![Vec::new(); candidates.len()];
    for round in 0..=plan.rounds {
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
    Ok(Section {
        name: "run",
        text: text(plan.rounds, &rows.collect::<Vec<_>>()),
    })
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

/// The command line by hand.
fn bare(
    firebuild: &dyn Fn(&[&str]) -> Command,
    busybox: &str,
    dir: &Path,
) -> Fallible<Vec<String>> {
    let plan: Value =
        serde_json::from_str(&text_of(&mut firebuild(&["run", "--print=plan", IMAGE]))?)?;
    let vmm = plan["processes"]
        .as_array()
        .and_then(|all| all.iter().find(|process| process["role"] == "vmm"))
        .ok_or("the plan has no VMM")?;
    let planned: Vec<&str> = vmm["args"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let path = |name: &str| {
        let all = plan["descriptors"].as_array().into_iter().flatten();
        let found = all
            .filter(|one| one["name"] == name)
            .find_map(|one| one["path"].as_str());
        found
            .map(PathBuf::from)
            .ok_or(format!("the plan has no {name}"))
    };
    let (kernel, disk) = (path("kernel")?, path("disk0")?);
    let initrd = dir.join("initrd");
    fs_err::write(&initrd, archive(firebuild, busybox, &kernel)?)?;

    let program = vmm["program"].as_str().ok_or("the plan has no program")?;
    let mut words = vec![program.to_owned()];
    let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
    add(&["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]);
    for option in SHARED {
        let at = planned.iter().position(|word| *word == option);
        let value = at.and_then(|at| planned.get(at + 1));
        add(&[option, value.ok_or(format!("the plan has no {option}"))?]);
    }
    add(&["-kernel", &kernel.display().to_string()]);
    add(&["-initrd", &initrd.display().to_string(), "-serial", "stdio"]);
    let drive = format!(
        "file={},format=raw,if=none,id=disk,readonly=on",
        disk.display()
    );
    add(&["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
    Ok(words)
}

/// An initrd with busybox, the script, and the modules that a guest of `run` loads.
fn archive(
    firebuild: &dyn Fn(&[&str]) -> Command,
    busybox: &str,
    kernel: &Path,
) -> Fallible<Vec<u8>> {
    let kernels: Value = serde_json::from_str(&text_of(&mut firebuild(&[
        "kernel",
        "ls",
        "--format=json",
    ]))?)?;
    let mut archive = cpio::Writer::new(Vec::new());
    for dir in ["bin", "dev", "mnt", "modules"] {
        archive.dir(dir.as_bytes(), 0o755)?;
    }
    archive.file(b"init", 0o755, INIT.as_bytes())?;
    archive.file(b"bin/busybox", 0o755, &fs_err::read(busybox)?)?;
    for module in kernels[0]["modules"].as_array().into_iter().flatten() {
        let wanted = module["purposes"].as_array().into_iter().flatten();
        let wanted = wanted
            .filter_map(Value::as_str)
            .any(|purpose| PURPOSES.contains(&purpose));
        if let (true, Some(file)) = (wanted, module["file"].as_str()) {
            let bytes = fs_err::read(kernel.with_file_name("modules").join(file))?;
            archive.file(format!("modules/{file}").as_bytes(), 0o644, &bytes)?;
        }
    }
    Ok(archive.finish()?.0)
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
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdout = child.stdout.take().ok_or("no standard output")?;
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    let mut first_output = None;
    loop {
        let count = stdout.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        heard.extend_from_slice(&buffer[..count]);
        if heard.windows(WORD.len()).any(|window| window == WORD) {
            first_output.get_or_insert_with(|| start.elapsed());
        }
    }
    child.wait()?;
    let words = || format!("{command:?} printed {}", String::from_utf8_lossy(&heard));
    Ok(Taken {
        first_output: first_output.ok_or_else(words)?,
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

fn text_of(command: &mut Command) -> Fallible<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{command:?} failed: {said}").into())
}
