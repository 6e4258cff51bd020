//! The KVM probe under Firecracker, where that is the VMM: the same way to user mode and back, as a kernel
//! ([`accel/pvh.S`](../../accel/pvh.S)), because Firecracker boots nothing else.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use firebuild_sys::confine::{Confinement, Credentials, confine};
use firebuild_sys::process::Exit;
use firebuild_sys::{pidfd, spawn};
use rustix::fs::MemfdFlags;
use rustix::process::Pid;

use super::{
    DEVICE, LIMIT, STATE_FILE_FIRECRACKER, answered, device_group, last_words, wait_at_most,
};
use crate::capability::KvmState;

/// The guest: an ELF of a kilobyte.
const GUEST: &[u8] = include_bytes!("pvh.elf");
/// What it says when it has come through: 42 between two brackets.
const PASSED: &str = "<*>";

/// Finds out whether machines of the caller can use KVM with this Firecracker; as [`super::probe`].
///
/// With `jailed`, the jailer gives machines a `/dev/kvm` of their own, so it does not matter who else may open the host's.
#[must_use]
pub fn probe_firecracker(firecracker: &Path, jailed: bool, state_dir: &Path) -> KvmState {
    let euid = rustix::process::geteuid().as_raw();
    let group = match device_group(Path::new(DEVICE), euid) {
        Ok(group) => group,
        Err(reason) if jailed && euid == 0 && Path::new(DEVICE).exists() => {
            // Only root may open it, and that is the jailer.
            drop(reason);
            None
        }
        Err(reason) => return KvmState::Unusable { reason },
    };
    let problem = answered(&state_dir.join(STATE_FILE_FIRECRACKER), firecracker, || {
        run_guest(firecracker, credentials(group, jailed)).err()
    });
    match problem {
        None => KvmState::Works { group },
        Some(reason) => KvmState::Doubtful { group, reason },
    }
}

/// Root's machines have users of their own; for a guest of ours, a group that may open the device is enough. Where there
/// is none, root itself has to open it, as the jailer does for its machines.
fn credentials(group: Option<u32>, jailed: bool) -> Option<Credentials> {
    if !rustix::process::geteuid().is_root() || (group.is_none() && jailed) {
        return None;
    }
    const NOBODY: u32 = 65_534;
    Some(Credentials {
        uid: NOBODY,
        gid: NOBODY,
        groups: group.into_iter().collect(),
    })
}

/// Runs the guest, at most [`LIMIT`] long; why it failed.
pub(super) fn run_guest(
    firecracker: &Path,
    credentials: Option<Credentials>,
) -> Result<(), String> {
    let started = start_guest(firecracker, credentials);
    let (process, output) =
        started.map_err(|error| format!("the probe cannot be started: {error}"))?;
    let ended = wait_at_most(&process, LIMIT)
        .map_err(|error| format!("the probe cannot be watched: {error}"))?;
    let words = last_words(&output);
    match ended {
        Some(_) if words.contains(PASSED) => Ok(()),
        None => Err(format!(
            "a test guest did not come to its end within {} s",
            LIMIT.as_secs()
        )),
        Some(exit) => {
            let mut how = match exit {
                Exit::Code(0) => "a test guest crashed on its way to user mode".to_owned(),
                Exit::Code(code) => {
                    format!("Firecracker ended with status {code} while it ran a test guest")
                }
                Exit::Signal(number) => {
                    format!("Firecracker was killed by signal {number} while it ran a test guest")
                }
            };
            if !words.is_empty() {
                let _ = write!(how, " ({words})");
            }
            Err(how)
        }
    }
}

fn start_guest(
    firecracker: &Path,
    credentials: Option<Credentials>,
) -> io::Result<(OwnedFd, OwnedFd)> {
    let config = memory("kvm-probe-config", CONFIG.as_bytes())?;
    let kernel = memory("kvm-probe", GUEST)?;
    let (output, output_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut command = Command::new(firecracker);
    command.args(["--no-api", "--config-file", "/proc/self/fd/3"]);
    command.args(["--level", "Error"]);
    command.env_clear().current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::from(output_end.try_clone()?))
        .stderr(Stdio::from(output_end));
    spawn::pass_fds(&mut command, vec![(config, 3), (kernel, 4)])?;
    confine(
        &mut command,
        Confinement {
            credentials,
            bind_low_ports: false,
            close_from: 5,
        },
    );
    let child = command.spawn()?;
    Ok((pidfd::open(Pid::from_child(&child))?, output))
}

/// The smallest machine; the kernel is descriptor 4.
const CONFIG: &str = r#"{
  "boot-source": {"kernel_image_path": "/proc/self/fd/4", "boot_args": "panic=-1"},
  "drives": [],
  "machine-config": {"vcpu_count": 1, "mem_size_mib": 32}
}"#;

/// A memory file that everybody may read.
fn memory(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o444))?;
    Ok(file.into())
}
