//! The monitor process of a detached instance.
//!
//! `run -d` starts this very program again with a hidden first argument and three descriptors: the order
//! (memory that has no name), the lock of the instance, and a pipe for news. The monitor leads a session
//! of its own, has `/dev/null` for its standard streams and next to nothing in its environment.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use firebuild_sys::signal::SignalFd;
use firebuild_sys::spawn::{new_session, pass_fds, take_inherited};
use rustix::fs::MemfdFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::conclude::own;
use super::front::{Front, SignalMeaning};
use super::order::Order;
use super::report::Reporter;
use crate::error::{Cause, Error};
use crate::instance::{Instances, Owned};
use crate::paths::Paths;
use crate::run::{RunError, RunErrorKind};

/// The first argument of a monitor.
pub const HELPER: &str = "monitor";

const ORDER: i32 = 3;
const LOCK: i32 = 4;
const REPORT: i32 = 5;
/// An order holds an environment and lists of modules and ports.
const LARGEST_ORDER: u64 = 32 << 20;
/// What a monitor needs of the environment: where programs are, where temporary files go.
const KEPT: [&str; 3] = ["PATH", "TMPDIR", "LANG"];
/// `SIGHUP`, `SIGINT`, `SIGTERM`, `signal(7)`: asks a monitor to end.
const ASKING: [i32; 3] = [1, 2, 15];

/// Starts a monitor. The instance and its lock are its own from now on; news come through the pipe.
pub(crate) fn spawn(owned: Owned, order: &Order) -> Result<OwnedFd, RunError> {
    let failed = |cause: Cause| {
        Error::caused(
            RunErrorKind::Monitor,
            "cannot start the monitor of the VM",
            cause,
        )
    };
    let short = owned.instance().id().short().to_owned();
    let memory = order_in_memory(order).map_err(failed)?;
    let (news, reporter) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("firebuild")
        .args([HELPER, &short])
        .env_clear()
        .envs(
            KEPT.iter()
                .filter_map(|&name| Some((name, std::env::var_os(name)?))),
        )
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let (_, lock) = owned.into_lock();
    pass_fds(
        &mut command,
        vec![(memory, ORDER), (lock, LOCK), (reporter, REPORT)],
    )
    .map_err(|error| failed(error.into()))?;
    new_session(&mut command);
    // Nobody waits for it: it outlives this process, and init reaps it.
    command.spawn().map_err(|error| failed(error.into()))?;
    Ok(news)
}

fn order_in_memory(order: &Order) -> Result<OwnedFd, Cause> {
    let memory = rustix::fs::memfd_create("order", MemfdFlags::CLOEXEC)?;
    let mut memory = File::from(memory);
    memory.write_all(&serde_json::to_vec(order)?)?;
    memory.rewind()?;
    Ok(memory.into())
}

/// The whole life of a monitor process; call it first thing in `main` when the first argument is
/// [`HELPER`]. `vminit` is the guest init. Gives the exit code.
pub fn helper_main(vminit: &'static [u8]) -> u8 {
    match monitor(vminit) {
        Ok(()) => 0,
        // It has been reported; nobody reads this code.
        Err(_) => 1,
    }
}

fn monitor(vminit: &'static [u8]) -> Result<(), Cause> {
    let order = take_inherited(ORDER)?;
    let lock = take_inherited(LOCK)?;
    let reporter = Reporter::new(take_inherited(REPORT)?);
    // Before any thread is made.
    let signals = SignalFd::new(&ASKING)?;
    let mut text = Vec::new();
    File::from(order)
        .take(LARGEST_ORDER)
        .read_to_end(&mut text)?;
    let order: Order = serde_json::from_slice(&text)?;
    // It holds the values of variables.
    text.fill(0);
    std::hint::black_box(&text);
    let instances = Instances::in_directories(order.instances.clone(), order.runtime.clone());
    let owned = instances.adopt(&order.id, lock)?;
    let front = Front {
        stdin: None,
        stdout: None,
        stderr: None,
        raw: None,
        terminal: None,
        signals,
        resized: false,
        meaning: SignalMeaning::Stop,
        reporter: Some(reporter),
        notices: &mut |_| {},
    };
    // The `run` that waits holds the kernel and the image until the machine is launched.
    own(owned, &order, vminit, None, front)?;
    Ok(())
}

/// Removes an instance whose monitor could not be started.
pub(crate) fn abandon(paths: &Paths, order: &Order) {
    let instance = Instances::new(paths).find(order.id.as_str());
    if let Ok(Some(owned)) = instance.and_then(|instance| instance.try_own()) {
        // The error that led here is told; this one would hide it.
        let _ = owned.remove();
    }
}
