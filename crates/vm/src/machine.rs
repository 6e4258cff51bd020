//! `Machine`: a launched VM as its owner holds it.
//!
//! The owner (a monitor, or `firebuild run` in the foreground) has one poll loop. It asks [`Machine::poll_fds`] what to
//! wait for, calls [`Machine::pump`] whenever it wakes up, and [`Machine::finish`] when the VMM has ended:
//!
//! ```text
//! launch ─▶ Machine ─┬─ pump() == Running ──┐
//!                    │◀────── poll ─────────┘
//!                    └─ pump() == Ended ─▶ finish() ─▶ MachineEnd (exit, last words, clean-up errors)
//! ```
//!
//! `finish` may be called at any time and ends what still runs. A machine that is dropped without it is killed too, but
//! nobody learns what went wrong. Clean-up goes on past its first error and reports them all.

mod end;
mod process;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use firebuild_sys::process::Exit;
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::agent::ChannelEnd;
use crate::backend::exit_reason;
use crate::console::Console;
use crate::net::bridge::Joined;
use crate::plan::Role;
use crate::remainder::Remainder;
use crate::run_dir::RunDir;

use end::exit_words;
pub use end::{CleanupError, MachineEnd};
pub(crate) use process::Process;

/// Lines of the console that are handed on: a panic of a kernel with a long trace has some sixty of them.
const CONSOLE_LINES: usize = 400;
/// How long helpers may take to end by themselves once the VMM is gone.
const HELPER_GRACE: Duration = Duration::from_millis(200);

/// A launched VM.
#[derive(Debug)]
pub struct Machine {
    id: String,
    dir: Option<RunDir>,
    processes: Vec<Process>,
    guards: Vec<JoinHandle<()>>,
    console: Option<Console>,
    metrics: Option<Console>,
    channel: Option<ChannelEnd>,
    control: Option<OwnedFd>,
    initrd: Option<OwnedFd>,
    files: Vec<PathBuf>,
    remainders: Vec<Remainder>,
    /// Name of the backend that planned it.
    backend: String,
    network: Option<Joined>,
    killed: bool,
}

/// Whether a machine still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineState {
    /// The VMM runs.
    Running,
    /// The VMM has ended.
    Ended,
}

impl Machine {
    pub(crate) fn new(id: String, backend: String, dir: RunDir) -> Self {
        Self {
            id,
            backend,
            dir: Some(dir),
            processes: Vec::new(),
            guards: Vec::new(),
            console: None,
            metrics: None,
            channel: None,
            control: None,
            initrd: None,
            files: Vec::new(),
            remainders: Vec::new(),
            network: None,
            killed: false,
        }
    }

    pub(crate) fn remove_at_end(&mut self, path: PathBuf) {
        self.files.push(path);
    }

    pub(crate) fn set_remainders(&mut self, remainders: Vec<Remainder>) {
        self.remainders = remainders;
    }

    /// Takes over what the machine has of a private bridge: [`Machine::finish`] gives it back once the VMM has ended.
    pub fn keep_network(&mut self, network: Joined) {
        self.network = Some(network);
    }

    pub(crate) fn add_guard(&mut self, guard: JoinHandle<()>) {
        self.guards.push(guard);
    }

    pub(crate) fn set_console(&mut self, console: Console) {
        self.console = Some(console);
    }

    pub(crate) fn set_metrics(&mut self, metrics: Console) {
        self.metrics = Some(metrics);
    }

    pub(crate) fn set_channel(&mut self, channel: Option<ChannelEnd>) {
        self.channel = channel;
    }

    pub(crate) fn set_control(&mut self, control: Option<OwnedFd>) {
        self.control = control;
    }

    pub(crate) fn set_initrd(&mut self, memory: OwnedFd) {
        self.initrd = Some(memory);
    }

    pub(crate) fn add_process(&mut self, process: Process) -> usize {
        self.processes.push(process);
        self.processes.len() - 1
    }

    /// How the process ended, with its last words; `None` while it runs.
    pub(crate) fn process_ended(&mut self, index: usize) -> Option<String> {
        let process = self.processes.get_mut(index)?;
        process.pump();
        let backend = &self.backend;
        process.exit.map(|exit| {
            let mut words = exit_words(exit);
            if let Exit::Code(code) = exit
                && let Some(reason) = exit_reason(backend, code)
            {
                words.push_str(": ");
                words.push_str(reason);
            }
            for line in process.last_words(backend) {
                words.push_str("\n  ");
                words.push_str(&line);
            }
            words
        })
    }

    /// What the VMM said last, for an error about it.
    pub(crate) fn vmm_words(&mut self) -> String {
        let vmm = self
            .processes
            .iter_mut()
            .find(|process| process.role == Role::Vmm);
        let Some(process) = vmm else {
            return String::new();
        };
        process.pump();
        process.last_words(&self.backend).join("\n  ")
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its run dir; `None` never happens before [`Machine::finish`].
    #[must_use]
    pub fn run_dir(&self) -> Option<&RunDir> {
        self.dir.as_ref()
    }

    /// Process id of the VMM.
    #[must_use]
    pub fn vmm_pid(&self) -> Option<i32> {
        self.vmm().map(|process| process.pid.as_raw_nonzero().get())
    }

    /// Process ids of the VMM and its helpers, for records; a number alone never proves that the process is ours.
    #[must_use]
    pub fn pids(&self) -> Vec<(Role, i32)> {
        self.processes
            .iter()
            .map(|process| (process.role, process.pid.as_raw_nonzero().get()))
            .collect()
    }

    /// Descriptor of the VMM: readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.vmm().map(|process| process.pidfd.as_fd())
    }

    /// The host's end of the guest channel, once; for the agent.
    pub fn take_channel(&mut self) -> Option<ChannelEnd> {
        self.channel.take()
    }

    /// The control connection, once; for [`Backend::control`](crate::backend::Backend::control).
    pub fn take_control(&mut self) -> Option<OwnedFd> {
        self.control.take()
    }

    /// The serial console.
    #[must_use]
    pub fn console(&self) -> Option<&Console> {
        self.console.as_ref()
    }

    /// Adds what to wait for: the ends of processes, their output, the console.
    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        for process in &self.processes {
            if process.exit.is_none() {
                fds.push(PollFd::new(&process.pidfd, PollFlags::IN));
            }
            if let Some(output) = &process.output {
                fds.push(PollFd::new(output, PollFlags::IN));
            }
        }
        let recorded = [&self.console, &self.metrics];
        for fd in recorded.into_iter().flatten().filter_map(Console::fd) {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
    }

    /// Records what the processes and the console wrote, and reaps what has ended. Never blocks; call it at every turn
    /// of the loop.
    pub fn pump(&mut self) -> MachineState {
        for process in &mut self.processes {
            process.pump();
        }
        for recorded in [&mut self.console, &mut self.metrics].into_iter().flatten() {
            recorded.pump();
        }
        let runs = self.vmm().is_some_and(|process| process.exit.is_none());
        if runs {
            MachineState::Running
        } else {
            MachineState::Ended
        }
    }

    /// Whether the network's process has ended while the machine runs: the guest has lost its network.
    #[must_use]
    pub fn network_lost(&self) -> bool {
        self.processes
            .iter()
            .any(|process| process.role == Role::Network && process.exit.is_some())
    }

    /// Wipes the memory that held the initrd and gives it back to the host. For the moment when the guest has said that
    /// it has read its configuration: a guest that restarts would find no initrd, but it is never restarted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn wipe_initrd(&mut self) -> io::Result<()> {
        let Some(memory) = self.initrd.take() else {
            return Ok(());
        };
        let length = rustix::fs::fstat(&memory)?.st_size.unsigned_abs();
        // A hole reads as zeros for everyone, QEMU's mapping included; a shorter file would make its next look a fault.
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&memory, hole, 0, length)?)
    }

    /// Ends the VMM at once. Its end is seen by [`Machine::pump`].
    ///
    /// # Errors
    /// When the kernel refuses; a VMM that has ended already is none.
    pub fn kill(&mut self) -> io::Result<()> {
        self.killed = true;
        for process in &self.processes {
            if process.role == Role::Vmm {
                process.kill()?;
            }
        }
        Ok(())
    }

    /// Waits until the VMM has ended, recording meanwhile.
    ///
    /// # Errors
    /// When `poll(2)` fails.
    pub fn wait(&mut self) -> io::Result<()> {
        while self.pump() == MachineState::Running {
            let mut fds = Vec::new();
            self.poll_fds(&mut fds);
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Ends what still runs, cleans up, and tells how it went.
    #[must_use]
    pub fn finish(mut self) -> MachineEnd {
        let mut cleanup = Vec::new();
        if self.vmm().is_some_and(|process| process.exit.is_none()) {
            self.killed = true;
        }
        self.end_processes(&mut cleanup);
        for recorded in [&mut self.console, &mut self.metrics].into_iter().flatten() {
            recorded.pump();
        }
        let mut log = Vec::new();
        for process in &mut self.processes {
            process.read_output();
            let role = process.role;
            let lines = process.last_words(&self.backend);
            log.extend(lines.into_iter().map(|line| format!("{role}: {line}")));
        }
        let console_lines = self
            .console
            .as_ref()
            .map(|console| console.last_lines(CONSOLE_LINES))
            .unwrap_or_default();
        for (name, recorded) in [
            ("the console log", &mut self.console),
            ("the file of metrics", &mut self.metrics),
        ] {
            if let Some(error) = recorded.as_mut().and_then(Console::take_log_error) {
                cleanup.push(CleanupError::new(name.to_owned(), error));
            }
        }
        let exit = self.vmm().and_then(|process| process.exit);
        let killed = self.killed;
        self.release(&mut cleanup);
        let reason = match exit {
            Some(Exit::Code(code)) => exit_reason(&self.backend, code),
            _ => None,
        };
        MachineEnd {
            exit,
            reason,
            killed,
            log,
            console: console_lines,
            cleanup,
        }
    }

    fn vmm(&self) -> Option<&Process> {
        self.processes
            .iter()
            .find(|process| process.role == Role::Vmm)
    }

    /// The VMM first, since helpers end with it; then what is left of them.
    fn end_processes(&mut self, errors: &mut Vec<CleanupError>) {
        let order = |process: &Process| process.role != Role::Vmm;
        self.processes.sort_by_key(order);
        // Without these ends, the guards and what listens on them see the end of their streams.
        self.channel = None;
        self.control = None;
        let mut deadline = Instant::now();
        for process in &mut self.processes {
            if let Err(error) = process.end_by(deadline) {
                errors.push(CleanupError::new(
                    format!("the {} process", process.role),
                    error,
                ));
            }
            deadline = Instant::now() + HELPER_GRACE;
        }
        for guard in self.guards.drain(..) {
            // A guard does not panic on what it relays; if it did, its streams are closed all the same.
            let _ = guard.join();
        }
    }

    fn release(&mut self, errors: &mut Vec<CleanupError>) {
        self.initrd = None;
        for path in self.files.drain(..) {
            if let Err(error) = remove(&path) {
                errors.push(CleanupError::new(path.display().to_string(), error));
            }
        }
        let mut all_gone = true;
        for remainder in self.remainders.drain(..) {
            if let Err(error) = remainder.remove() {
                all_gone = false;
                errors.push(CleanupError::new(
                    remainder.path().display().to_string(),
                    error,
                ));
            }
        }
        for (what, error) in self.network.take().map(Joined::leave).unwrap_or_default() {
            errors.push(CleanupError::new(what, error));
        }
        // A run dir that lists what is still there is kept for `purge` and the next start, which try again.
        if let Some(dir) = self.dir.take().filter(|_| all_gone) {
            let path = dir.path().display().to_string();
            if let Err(error) = dir.remove() {
                errors.push(CleanupError::new(path, error));
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // After `finish` nothing is left to do. Without it there is nobody to tell the errors to.
        let mut errors = Vec::new();
        self.end_processes(&mut errors);
        self.release(&mut errors);
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
