//! A running passt with the guard before it, for guests whose frames come as packets.
//!
//! One thread starts passt, carries frames and reaps it: passt dies with the thread that started it, so nothing of it
//! stays whatever ends the program.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use firebuild_sys::confine::{Confinement, Credentials, confine};
use firebuild_sys::{pidfd, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};

use crate::guard::{FRAME_BUFFER_BYTES, Framing, Guard, Limits, do_not_block, relay};
use crate::guest::{MTU, passt_args};
use crate::host::HostNetwork;

/// How long passt may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// `nobody`, whom passt becomes when root starts it.
const NOBODY: u32 = 65_534;
/// Numbers of passt's descriptors: its connection, and where it says that it is ready.
const SOCKET: i32 = 3;
const READY: i32 = 4;

/// The network behind a guest. Dropped, passt ends and frames go nowhere.
#[derive(Debug)]
pub struct UserNetwork {
    passt: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl UserNetwork {
    /// Starts passt and the guard for a guest whose frames are read from `frames` and written to it, one at a time.
    /// Nothing is published.
    ///
    /// # Errors
    /// When passt cannot be started, or ends before it is ready: what it said.
    pub fn start(program: &Path, host: &HostNetwork, frames: OwnedFd) -> io::Result<Self> {
        do_not_block(&frames)?;
        // More than the default where the caller may; what does not fit is lost and sent again.
        let _ = sockopt::set_socket_recv_buffer_size_force(&frames, FRAME_BUFFER_BYTES)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&frames, FRAME_BUFFER_BYTES));
        let mut command = Command::new(program);
        command.args(passt_args(&[], host, MTU, SOCKET, READY));
        let (started, start) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("steps-network".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || match run(command) {
                Ok((mut child, network, _log)) => {
                    let pidfd = pidfd::open(Pid::from_child(&child));
                    let failed = pidfd.is_err();
                    let _ = started.send(pidfd);
                    if !failed {
                        // The end of either side is the ordinary end.
                        let framing = [Framing::Packets, Framing::Stream];
                        let _ = relay(
                            [&frames, &network],
                            framing,
                            Guard::default(),
                            Limits::default(),
                        );
                    }
                    let _ = child.kill();
                    let _ = child.wait();
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            })?;
        let passt = start.recv().unwrap_or_else(|_| Err(died()))?;
        Ok(Self {
            passt,
            thread: Some(thread),
        })
    }
}

impl Drop for UserNetwork {
    fn drop(&mut self) {
        // The relay sees the end of its connection, and its thread reaps.
        let _ = pidfd::signal(&self.passt, Signal::KILL);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn died() -> io::Error {
    io::Error::other("the thread of the network has ended")
}

/// Starts passt and waits until it is ready; gives it with our end of its connection, and of what it says, which has to
/// stay open for it.
fn run(mut command: Command) -> io::Result<(Child, OwnedFd, OwnedFd)> {
    let (network, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    for end in [&network, &theirs] {
        // A smaller one costs speed and nothing else.
        let _ = sockopt::set_socket_send_buffer_size_force(end, FRAME_BUFFER_BYTES)
            .or_else(|_| sockopt::set_socket_send_buffer_size(end, FRAME_BUFFER_BYTES));
    }
    do_not_block(&network)?;
    let (ready, ready_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let (log, log_end) = pipe_with(PipeFlags::CLOEXEC)?;
    // Nobody reads once it runs; what does not fit is lost.
    do_not_block(&log_end)?;
    let credentials = rustix::process::geteuid().is_root().then(|| Credentials {
        uid: NOBODY,
        gid: NOBODY,
        groups: Vec::new(),
    });
    if credentials.is_some() {
        // It opens the pipe anew, by name.
        let (uid, gid) = (
            rustix::fs::Uid::from_raw(NOBODY),
            rustix::fs::Gid::from_raw(NOBODY),
        );
        rustix::fs::fchown(&ready_end, Some(uid), Some(gid))?;
    }
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(log_end));
    spawn::pass_fds(&mut command, vec![(theirs, SOCKET), (ready_end, READY)])?;
    // No Ctrl+C of a terminal: it ends with its owner.
    spawn::new_session(&mut command);
    confine(
        &mut command,
        Confinement {
            credentials,
            bind_low_ports: false,
            close_from: READY.unsigned_abs() + 1,
        },
    );
    let mut child = command.spawn()?;
    // Our copies of its descriptors go with it.
    drop(command);
    match wait_ready(&ready) {
        Ok(true) => Ok((child, network, log)),
        Ok(false) => {
            let _ = child.kill();
            let status = child.wait()?;
            let mut words = String::new();
            let _ = std::fs::File::from(log)
                .take(4096)
                .read_to_string(&mut words);
            Err(io::Error::other(format!(
                "passt was not ready ({status}): {}",
                words.trim()
            )))
        }
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Whether passt said that it is ready; not when it ended or took too long.
fn wait_ready(ready: &OwnedFd) -> io::Result<bool> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut fds = [PollFd::from_borrowed_fd(ready.as_fd(), PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let found = fds[0].revents();
        if found.contains(PollFlags::IN) {
            return Ok(true);
        }
        if found.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Ok(false);
        }
    }
}
