//! Whether KVM works here, found out by use.
//!
//! A `/dev/kvm` that opens is no proof: there are clouds whose KVM makes VMs and virtual processors, and then cannot run a
//! system call of the guest. So a tiny guest of 350 bytes ([`accel/probe.S`](../accel/probe.S)) goes the way that every
//! kernel goes, from reset through paging to user mode, computes with SSE2 there and makes two system calls, under the
//! same program, accelerator and processor model as a real machine. It has [`LIMIT`], in a process of its own that has
//! no privileges and dies with us.
//!
//! Where Firecracker is the VMM, the guest is a kernel ([`accel/pvh.S`](../accel/pvh.S)): [`probe_firecracker`].
//!
//! The answer of the guest is remembered in the state directory for this boot, kernel, processor and VMM. Whether the
//! device may be opened is asked each time.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_sys::confine::{Confinement, Credentials, confine};
use firebuild_sys::process::Exit;
use firebuild_sys::{pidfd, spawn};
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::capability::KvmState;
use crate::tail::Tail;
use crate::uid::UidLease;

/// How long the guest of the probe may take, its VMM included.
pub const LIMIT: Duration = Duration::from_secs(3);

/// Name of the file in the state directory that holds the answer.
pub const STATE_FILE: &str = "kvm-probe.json";
/// The same for Firecracker.
pub const STATE_FILE_FIRECRACKER: &str = "kvm-probe-firecracker.json";

mod firecracker;

pub use firecracker::probe_firecracker;

const DEVICE: &str = "/dev/kvm";

/// The guest: 16-bit code for the address 0xf0000; see `accel/probe.S`.
const GUEST: &[u8] = include_bytes!("accel/probe.bin");
/// Size of the ROM: the smallest that QEMU takes (`x86_bios_rom_init`).
const ROM_BYTES: usize = 64 * 1024;
/// The reset vector from the end of the ROM, and the far jump to 0xf000:0000 that stands there.
const RESET_VECTOR: (usize, [u8; 5]) = (ROM_BYTES - 16, [0xea, 0x00, 0x00, 0x00, 0xf0]);
/// What QEMU's isa-debug-exit makes of the 42 that the guest writes: `value << 1 | 1` (`hw/misc/debugexit.c`).
const PASSED: i32 = 42 << 1 | 1;

/// The remembered answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    /// What the answer depends on; see [`host_key`].
    host: String,
    /// Why it does not work; nothing if it does.
    problem: Option<String>,
}

const RECORD_FORMAT: u32 = 1;

/// Finds out whether machines of the caller can use KVM with this QEMU. Takes [`LIMIT`] at most, and no time where the
/// answer is remembered in `state_dir`. Never fails: what goes wrong is the reason why KVM is unusable.
#[must_use]
pub fn probe(qemu: &Path, state_dir: &Path) -> KvmState {
    let group = match device_group(Path::new(DEVICE), rustix::process::geteuid().as_raw()) {
        Ok(group) => group,
        Err(reason) => return KvmState::Unusable { reason },
    };
    let problem = answered(&state_dir.join(STATE_FILE), qemu, || {
        run_guest_as_machine(qemu, group)
    });
    match problem {
        None => KvmState::Works { group },
        Some(reason) => KvmState::Doubtful { group, reason },
    }
}

/// The answer that the file holds for this VMM on this host; else that of `ask`, which is remembered.
fn answered(file: &Path, vmm: &Path, ask: impl FnOnce() -> Option<String>) -> Option<String> {
    let host = host_key(vmm);
    if let Some(problem) = remembered(file, &host) {
        return problem;
    }
    let record = Record {
        format: RECORD_FORMAT,
        host,
        problem: ask(),
    };
    // Not remembered means asked again; that costs time, nothing else.
    let _ = remember(file, &record);
    record.problem
}

/// Who may open the device: a group that a machine has to be a member of, or nobody in particular.
fn device_group(device: &Path, euid: u32) -> Result<Option<u32>, String> {
    let shown = device.display();
    let found = match fs::metadata(device) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("there is no {shown}"));
        }
        Err(error) => return Err(error.to_string()),
    };
    let mode = found.permissions().mode();
    if mode & 0o006 == 0o006 {
        return Ok(None);
    }
    if euid == 0 {
        // Machines of root have users of their own, which can be made members of a group and nothing more.
        return if mode & 0o060 == 0o060 {
            Ok(Some(found.gid()))
        } else {
            Err(format!(
                "{shown} is open to its owner only, and machines never run as root; give it to a group"
            ))
        };
    }
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    match rustix::fs::access(device, access) {
        Ok(()) => Ok(None),
        Err(_) => Err(format!(
            "this user may not open {shown}; become a member of its group (usually kvm)"
        )),
    }
}

/// What the answer depends on: this boot, the kernel, the processor, the VMM.
fn host_key(qemu: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| {
        line.strip_prefix("model name")?
            .split_once(':')
            .map(|(_, name)| name)
    });
    let vmm = fs::metadata(qemu)
        .map(|found| (found.ino(), found.size(), found.mtime()))
        .unwrap_or_default();
    format!(
        "boot {}; kernel {}; processor {}; {} {vmm:?}",
        read("/proc/sys/kernel/random/boot_id").trim(),
        read("/proc/sys/kernel/osrelease").trim(),
        model.unwrap_or("unknown").trim(),
        qemu.display(),
    )
}

fn remembered(file: &Path, host: &str) -> Option<Option<String>> {
    let record: Record = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    (record.format == RECORD_FORMAT && record.host == host).then_some(record.problem)
}

fn remember(file: &Path, record: &Record) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(record)?;
    // Another process may write the same at the same time: each has a file of its own, and the last rename wins.
    let temporary =
        file.with_extension(format!("tmp{}", rustix::process::getpid().as_raw_nonzero()));
    fs::write(&temporary, text)?;
    fs::rename(&temporary, file).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Runs the guest as a machine would run: for root, as a user of its own.
fn run_guest_as_machine(qemu: &Path, group: Option<u32>) -> Option<String> {
    let lease = match rustix::process::geteuid()
        .is_root()
        .then(UidLease::acquire)
        .transpose()
    {
        Ok(lease) => lease,
        Err(error) => return Some(format!("no user for the probe: {error}")),
    };
    let credentials = lease.as_ref().map(|lease| Credentials {
        uid: lease.uid(),
        gid: lease.uid(),
        groups: group.into_iter().collect(),
    });
    run_guest(qemu, &["-accel", "kvm", "-cpu", "host"], credentials).err()
}

/// Runs the guest under these options of QEMU, at most [`LIMIT`] long; why it failed.
fn run_guest(qemu: &Path, accel: &[&str], credentials: Option<Credentials>) -> Result<(), String> {
    let started = start_guest(qemu, accel, credentials);
    let (process, output) =
        started.map_err(|error| format!("the probe cannot be started: {error}"))?;
    let ended = wait_at_most(&process, LIMIT)
        .map_err(|error| format!("the probe cannot be watched: {error}"))?;
    let Some(exit) = ended else {
        // Killed below by what `wait_at_most` promises.
        return Err(format!(
            "a test guest did not come to its end within {} s",
            LIMIT.as_secs()
        ));
    };
    if exit == Exit::Code(PASSED) {
        return Ok(());
    }
    let words = last_words(&output);
    let how = match exit {
        Exit::Code(0) => "a test guest crashed on its way to user mode".to_owned(),
        Exit::Code(code) => format!("the VMM ended with status {code} while it ran a test guest"),
        Exit::Signal(number) => {
            format!("the VMM was killed by signal {number} while it ran a test guest")
        }
    };
    Err(if words.is_empty() {
        how
    } else {
        format!("{how} ({words})")
    })
}

fn start_guest(
    qemu: &Path,
    accel: &[&str],
    credentials: Option<Credentials>,
) -> io::Result<(OwnedFd, OwnedFd)> {
    let rom = rom()?;
    if let Some(user) = &credentials {
        let (uid, gid) = (
            rustix::fs::Uid::from_raw(user.uid),
            rustix::fs::Gid::from_raw(user.gid),
        );
        rustix::fs::fchown(&rom, Some(uid), Some(gid))?;
    }
    let (output, output_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut command = Command::new(qemu);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-m",
        "16",
    ]);
    command.args([
        "-machine",
        "q35,graphics=off,sata=off",
        "-bios",
        "/proc/self/fd/3",
    ]);
    command
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .args(accel);
    command.env_clear().env("LC_ALL", "C").current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(output_end));
    spawn::pass_fds(&mut command, vec![(rom, 3)])?;
    confine(
        &mut command,
        Confinement {
            credentials,
            bind_low_ports: false,
            close_from: 4,
        },
    );
    let child = command.spawn()?;
    Ok((pidfd::open(Pid::from_child(&child))?, output))
}

fn rom() -> io::Result<OwnedFd> {
    let mut image = vec![0; ROM_BYTES];
    image[..GUEST.len()].copy_from_slice(GUEST);
    let (at, jump) = RESET_VECTOR;
    image[at..at + jump.len()].copy_from_slice(&jump);
    let mut file = std::fs::File::from(rustix::fs::memfd_create("kvm-probe", MemfdFlags::CLOEXEC)?);
    file.write_all(&image)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o400))?;
    Ok(file.into())
}

/// Waits for the end of a child and reaps it; kills it at the limit, which gives `None`.
fn wait_at_most(process: &OwnedFd, limit: Duration) -> io::Result<Option<Exit>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(exit) = pidfd::try_wait(process)? {
            return Ok(Some(exit));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            pidfd::signal(process, Signal::KILL)?;
            pidfd::wait(process)?;
            return Ok(None);
        }
        let timeout =
            Timespec::try_from(left).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the VMM said last, on one line.
fn last_words(output: &OwnedFd) -> String {
    let mut tail = Tail::new(2048);
    let mut buffer = [0; 4096];
    // Its only writer has ended, so this reads what is in the pipe (64 KiB at most) and then the end.
    while let Ok(count @ 1..) = rustix::io::read(output, &mut buffer) {
        tail.push(&buffer[..count]);
    }
    tail.lines(2).join("; ")
}

#[cfg(test)]
mod tests;
