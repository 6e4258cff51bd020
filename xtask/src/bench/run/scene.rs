//! What the benchmarks of a start share: a home with a kernel and an image, and QEMU started by hand with the same.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_rootfs::cpio;
use serde_json::Value;
use tempfile::TempDir;

use super::super::{busybox, program};
use crate::Fallible;

/// The image: busybox as a few programs.
pub(super) const IMAGE: &str = "bench/run:1";
/// What its application prints.
const WORD: &str = "first-output";
/// Options of the planned QEMU that the one by hand gets too.
const SHARED: [&str; 7] = [
    "-machine", "-accel", "-cpu", "-smp", "-m", "-rtc", "-append",
];

/// A home of its own.
pub(super) struct Scene {
    dir: TempDir,
    program: PathBuf,
    busybox: PathBuf,
}

/// QEMU by hand.
pub(super) struct ByHand<'a> {
    /// Flags of `run` that the machine is planned with.
    pub(super) flags: &'a [&'a str],
    /// What modules are loaded for (`firebuild kernel ls --format json` tells what each one is for).
    pub(super) purposes: &'a [&'a str],
    /// The script that is its init; modules are in `/modules`, busybox in `/bin`.
    pub(super) init: &'a str,
    /// More of the kernel's command line.
    pub(super) append: &'a str,
    /// A second disk, `/dev/vdb`.
    pub(super) scratch: Option<&'a Path>,
}

impl Scene {
    /// Needs a release build, a static busybox, and the kernel package that `scripts/kernel` fetches.
    pub(super) fn make(root: &Path) -> Fallible<Self> {
        let scene = Self {
            dir: tempfile::tempdir()?,
            program: program(root)?,
            busybox: busybox()?,
        };
        let kernel = text_of(&mut Command::new(root.join("scripts/kernel")))?;
        text_of(&mut scene.firebuild(&["kernel", "import", kernel.trim()]))?;
        let context = scene.path("context");
        fs_err::create_dir_all(&context)?;
        fs_err::copy(&scene.busybox, context.join("busybox"))?;
        let programs = ["echo", "sh", "sleep", "dd"]
            .map(|name| format!("COPY --chmod=0755 busybox /bin/{name}\n"))
            .concat();
        fs_err::write(
            context.join("Dockerfile"),
            format!("FROM scratch\n{programs}CMD [\"/bin/echo\", \"{WORD}\"]\n"),
        )?;
        text_of(&mut scene.firebuild(&[
            "build",
            "-q",
            "-t",
            IMAGE,
            &context.display().to_string(),
        ]))?;
        Ok(scene)
    }

    /// A place in the home.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Directories of VMs.
    pub(super) fn instances(&self) -> PathBuf {
        self.path("home/instances")
    }

    /// A command of the program with this home.
    pub(super) fn firebuild(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("FIREBUILD_HOME", self.path("home"));
        command
    }

    /// The words of a QEMU by hand: the machine, processor, memory, kernel, command line and image that `run` would plan.
    pub(super) fn by_hand(&self, name: &str, wanted: &ByHand<'_>) -> Fallible<Vec<String>> {
        let mut args = vec!["run", "--print=plan"];
        args.extend(wanted.flags);
        args.push(IMAGE);
        let plan: Value = serde_json::from_str(&text_of(&mut self.firebuild(&args))?)?;
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
        let initrd = self.path(name);
        fs_err::write(&initrd, self.archive(wanted, &kernel)?)?;

        let program = vmm["program"].as_str().ok_or("the plan has no program")?;
        let mut words = vec![program.to_owned()];
        let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
        add(&["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]);
        for option in SHARED {
            let at = planned.iter().position(|word| *word == option);
            let value = at.and_then(|at| planned.get(at + 1));
            let value = *value.ok_or(format!("the plan has no {option}"))?;
            if option == "-append" {
                add(&[option, format!("{value} {}", wanted.append).trim_end()]);
            } else {
                add(&[option, value]);
            }
        }
        add(&["-kernel", &kernel.display().to_string()]);
        add(&["-initrd", &initrd.display().to_string(), "-serial", "stdio"]);
        let disks = [
            Some((disk.as_path(), "on")),
            wanted.scratch.map(|path| (path, "off")),
        ];
        for (index, (path, read_only)) in disks.into_iter().flatten().enumerate() {
            let drive = format!(
                "file={},format=raw,if=none,id=disk{index},readonly={read_only}",
                path.display()
            );
            add(&["-drive", &drive]);
            add(&["-device", &format!("virtio-blk-pci,drive=disk{index}")]);
        }
        Ok(words)
    }

    /// An initrd with busybox, the script, and the modules that a guest of `run` loads.
    fn archive(&self, wanted: &ByHand<'_>, kernel: &Path) -> Fallible<Vec<u8>> {
        let listed = text_of(&mut self.firebuild(&["kernel", "ls", "--format=json"]))?;
        let kernels: Value = serde_json::from_str(&listed)?;
        let mut archive = cpio::Writer::new(Vec::new());
        for dir in [
            "bin", "dev", "sys", "mnt", "image", "scratch", "root", "modules",
        ] {
            archive.dir(dir.as_bytes(), 0o755)?;
        }
        archive.file(b"init", 0o755, wanted.init.as_bytes())?;
        archive.file(b"bin/busybox", 0o755, &fs_err::read(&self.busybox)?)?;
        for module in kernels[0]["modules"].as_array().into_iter().flatten() {
            let purposes = module["purposes"].as_array().into_iter().flatten();
            let is_wanted = purposes
                .filter_map(Value::as_str)
                .any(|purpose| wanted.purposes.contains(&purpose));
            if let (true, Some(file)) = (is_wanted, module["file"].as_str()) {
                let bytes = fs_err::read(kernel.with_file_name("modules").join(file))?;
                archive.file(format!("modules/{file}").as_bytes(), 0o644, &bytes)?;
            }
        }
        Ok(archive.finish()?.0)
    }
}

/// A command from its words.
pub(super) fn command_of(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// Runs a command to its end; the time from `start` until it has printed [`WORD`].
pub(super) fn until_word(command: &mut Command, start: Instant) -> Fallible<Duration> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdout = child.stdout.take().ok_or("no standard output")?;
    let (mut heard, mut buffer, mut first) = (Vec::new(), [0; 4096], None);
    loop {
        let count = stdout.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        heard.extend_from_slice(&buffer[..count]);
        let said = heard
            .windows(WORD.len())
            .any(|window| window == WORD.as_bytes());
        if said {
            first.get_or_insert_with(|| start.elapsed());
        }
    }
    child.wait()?;
    first.ok_or_else(|| format!("{command:?} printed {}", String::from_utf8_lossy(&heard)).into())
}

/// What a command prints.
pub(super) fn text_of(command: &mut Command) -> Fallible<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{command:?} failed: {said}").into())
}
