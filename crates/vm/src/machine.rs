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

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use firebuild_sys::pidfd;
use firebuild_sys::process::Exit;
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::agent::ChannelEnd;
use crate::backend::{exit_reason, is_noise};
use crate::console::Console;
use crate::net::bridge::Joined;
use crate::plan::Role;
use crate::remainder::Remainder;
use crate::run_dir::RunDir;
use crate::tail::Tail;

/// Bytes of a process's output that are kept.
const LOG_BYTES: usize = 8 * 1024;
/// Lines of it that an error shows.
const LOG_LINES: usize = 8;
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

/// How a machine ended.
#[derive(Debug)]
pub struct MachineEnd {
    /// How the VMM ended; `None` if it never ran.
    pub exit: Option<Exit>,
    /// What that means, where the VMM's documentation gives its exit codes a meaning.
    pub reason: Option<&'static str>,
    /// Whether this program ended it.
    pub killed: bool,
    /// What the VMM and its helpers said last, a line each, after `role: `.
    pub log: Vec<String>,
    /// The last lines of the console.
    pub console: Vec<String>,
    /// What could not be cleaned up.
    pub cleanup: Vec<CleanupError>,
}

impl MachineEnd {
    fn panicked(&self) -> bool {
        // `kernel/panic.c`
        let said = |line: &String| line.contains("Kernel panic - not syncing");
        self.console.iter().any(said)
    }

    /// How the VMM ended, in words, with what it said last; for a machine that ended without an exit record.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = match self.exit {
            None => "the VMM never ran".to_owned(),
            Some(_) if self.killed => "the machine was killed".to_owned(),
            Some(Exit::Code(0)) if self.panicked() => {
                "the kernel of the guest gave up with a panic".to_owned()
            }
            Some(Exit::Code(0)) => "the guest restarted or powered off without a report".to_owned(),
            Some(exit) => {
                let reason = self.reason.map(|reason| format!(": {reason}"));
                format!("the VMM {}{}", exit_words(exit), reason.unwrap_or_default())
            }
        };
        for line in &self.log {
            words.push_str("\n  ");
            words.push_str(line);
        }
        words
    }
}

/// Something that stayed behind.
#[derive(Debug)]
pub struct CleanupError {
    what: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl CleanupError {
    pub(crate) fn new(
        what: String,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            what,
            source: source.into(),
        }
    }
}

impl fmt::Display for CleanupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot clean up {}", self.what)
    }
}

impl std::error::Error for CleanupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
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

fn exit_words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("ended with status {code}"),
        Exit::Signal(number) => format!("was killed by signal {number}"),
    }
}

/// A child with its output.
#[derive(Debug)]
pub(crate) struct Process {
    role: Role,
    pid: Pid,
    pidfd: OwnedFd,
    output: Option<OwnedFd>,
    log: Tail,
    exit: Option<Exit>,
    /// What kills it when this process dies ([`firebuild_sys::spawn::tether`]).
    _tether: Option<OwnedFd>,
}

impl Process {
    pub(crate) fn new(
        role: Role,
        pid: Pid,
        pidfd: OwnedFd,
        output: OwnedFd,
        tether: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&output)?;
        rustix::fs::fcntl_setfl(&output, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self {
            role,
            pid,
            pidfd,
            output: Some(output),
            log: Tail::new(LOG_BYTES),
            exit: None,
            _tether: tether,
        })
    }

    fn pump(&mut self) {
        if self.exit.is_none() {
            // An error means that somebody else reaped it, which nobody does.
            self.exit = pidfd::try_wait(&self.pidfd).unwrap_or(Some(Exit::Signal(0)));
        }
        self.read_output();
    }

    fn read_output(&mut self) {
        let mut buffer = [0; 2048];
        // Bounded, so that a process that writes without end cannot keep the owner here.
        for _ in 0..64 {
            let Some(output) = &self.output else { return };
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => self.output = None,
                Ok(count) => self.log.push(&buffer[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.output = None,
            }
        }
    }

    /// Its last lines, but for those that say nothing.
    fn last_words(&self, backend: &str) -> Vec<String> {
        let mut lines = self.log.lines(usize::MAX);
        lines.retain(|line| !is_noise(backend, line));
        lines.split_off(lines.len().saturating_sub(LOG_LINES))
    }

    fn kill(&self) -> io::Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        match pidfd::signal(&self.pidfd, Signal::KILL) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(()),
            result => result,
        }
    }

    /// Gives it until the deadline to end by itself, then kills it, and reaps it.
    fn end_by(&mut self, deadline: Instant) -> io::Result<()> {
        self.pump();
        while self.exit.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.kill()?;
                self.exit = Some(pidfd::wait(&self.pidfd)?);
                break;
            }
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            fds.extend(
                self.output
                    .as_ref()
                    .map(|output| PollFd::new(output, PollFlags::IN)),
            );
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.pump();
        }
        self.read_output();
        Ok(())
    }
}
