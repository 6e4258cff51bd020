//! From a plan to a running machine: one function for all backends.
//!
//! What fails, fails whole: processes that run already are killed and reaped, files that were written are removed.
//! Children get the descriptors of the plan and no others, the user of the plan, no capabilities, no core dumps, and
//! `SIGKILL` when the thread that launched them ends. So **launch from the thread that will live as long as the machine**.

use fs_err::os::unix::fs::OpenOptionsExt;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebuild_sys::confine::{Confinement, Credentials, confine};
use firebuild_sys::{pidfd, spawn};
use firebuild_usernet::meter::{Limit, Rate};
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use crate::agent::ChannelEnd;
use crate::console::Console;
use crate::hardware::{InterfaceLimits, RateLimiter, TokenBucket};
use crate::machine::{Machine, Process};
use crate::net::ports::{PortError, check_free};
use crate::net::{bridge, guard};
use crate::places::PlaceError;
use crate::plan::{
    Access, CHANNEL_HOST, CHANNEL_LISTENER, CONSOLE_HOST, CONTROL_HOST, Descriptor, FIRST_FD,
    INITRD, LaunchPlan, METRICS_HOST, PlannedFile, PlannedProcess, Role, RunAs,
};
use crate::remainder;
use crate::run_dir::RunDir;
use crate::spec::InitrdPart;

/// How long a helper process may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// A machine that could not be started.
#[derive(Debug)]
pub struct LaunchError {
    kind: LaunchErrorKind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaunchErrorKind {
    /// A published port is not free.
    Port,
    /// A file cannot be written.
    Write(PathBuf),
    /// A file cannot be opened.
    Open(PathBuf),
    /// A place cannot be made.
    Place,
    /// A file is not readable for the user that the machine runs as.
    NotReadable {
        /// The file.
        path: PathBuf,
        /// The user.
        uid: u32,
    },
    /// A descriptor cannot be made; its name in the plan.
    Descriptor(String),
    /// A process cannot be started; the program.
    Spawn(PathBuf),
    /// A process ended before it was ready.
    Ended {
        /// What it is for.
        role: Role,
        /// The program.
        program: PathBuf,
        /// How it ended and what it said last.
        words: String,
    },
    /// A process was not ready in time.
    NotReady {
        /// The program.
        program: PathBuf,
    },
    /// The VMM does not take a part of the machine.
    Api {
        /// The request.
        request: String,
        /// What the VMM and its log said, beside the source of the error.
        words: String,
    },
}

impl LaunchError {
    fn new(kind: LaunchErrorKind) -> Self {
        Self { kind, source: None }
    }

    fn io(kind: LaunchErrorKind, source: io::Error) -> Self {
        Self {
            kind,
            source: Some(Box::new(source)),
        }
    }

    /// What to match on.
    #[must_use]
    pub fn kind(&self) -> &LaunchErrorKind {
        &self.kind
    }
}

impl From<PlaceError> for LaunchError {
    fn from(source: PlaceError) -> Self {
        Self {
            kind: LaunchErrorKind::Place,
            source: Some(Box::new(source)),
        }
    }
}

impl From<PortError> for LaunchError {
    fn from(source: PortError) -> Self {
        Self {
            kind: LaunchErrorKind::Port,
            source: Some(Box::new(source)),
        }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            LaunchErrorKind::Port => f.write_str("cannot start the machine"),
            LaunchErrorKind::Place => f.write_str("cannot make what the machine needs"),
            LaunchErrorKind::Api { request, words } if words.is_empty() => {
                write!(f, "the VMM did not do {request}")
            }
            LaunchErrorKind::Api { request, words } => {
                write!(f, "the VMM did not do {request}\n  {words}")
            }
            LaunchErrorKind::Write(path) => write!(f, "cannot write {}", path.display()),
            LaunchErrorKind::Open(path) => write!(f, "cannot open {}", path.display()),
            LaunchErrorKind::NotReadable { path, uid } => write!(
                f,
                "{} cannot be read by uid {uid}, which the machine runs as; give it the mode 0644",
                path.display()
            ),
            LaunchErrorKind::Descriptor(name) => write!(f, "cannot make the descriptor {name}"),
            LaunchErrorKind::Spawn(program) => write!(f, "cannot start {}", program.display()),
            LaunchErrorKind::Ended {
                role,
                program,
                words,
            } => {
                write!(f, "the {role} process {} {words}", program.display())
            }
            LaunchErrorKind::NotReady { program } => {
                write!(
                    f,
                    "{} was not ready within {} s",
                    program.display(),
                    READY_TIMEOUT.as_secs()
                )
            }
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// Does what the plan says. The run dir goes with the machine: [`Machine::finish`] removes it.
///
/// # Errors
/// The first step that fails; everything done before it is undone.
pub fn launch(plan: &LaunchPlan, dir: RunDir) -> Result<Machine, LaunchError> {
    check_free(&plan.ports)?;
    let mut machine = Machine::new(plan.id.clone(), plan.backend.clone(), dir);
    let started = start(plan, &mut machine);
    match started {
        Ok(()) => Ok(machine),
        Err(error) => {
            // The reason for the end is known; what the clean-up may find besides does not replace it.
            let _ = machine.finish();
            Err(error)
        }
    }
}

fn start(plan: &LaunchPlan, machine: &mut Machine) -> Result<(), LaunchError> {
    if let Some(dir) = machine.run_dir() {
        let path = dir.path().to_owned();
        remainder::record(&path, &plan.remainders)
            .map_err(|source| LaunchError::io(LaunchErrorKind::Write(path), source))?;
    }
    machine.set_remainders(plan.remainders.clone());
    for file in &plan.files {
        write_file(file)?;
        machine.remove_at_end(file.path.clone());
    }
    for place in &plan.places {
        place.make()?;
    }
    let user = plan
        .processes
        .iter()
        .find_map(|process| process.run_as.clone());
    let mut descriptors = Descriptors::open(&plan.descriptors, user.as_ref())?;
    for guard in &plan.guards {
        let guest = descriptors.take(&guard.guest)?;
        let network = descriptors.take(&guard.network)?;
        let limits = limits(&guard.limits);
        let thread = match guard.tap {
            true => guard::shape(guest, network, limits),
            false => guard::spawn(guest, network, limits),
        };
        let thread = thread.map_err(|source| {
            LaunchError::io(LaunchErrorKind::Descriptor(guard.guest.clone()), source)
        })?;
        machine.add_guard(thread);
    }
    if let Some(fd) = descriptors.take_if_there(CONSOLE_HOST) {
        let log = &plan.console;
        let console = Console::open(fd, log, plan.console_limit).map_err(|source| {
            LaunchError::io(
                LaunchErrorKind::Write(log.path.clone().unwrap_or_default()),
                source,
            )
        })?;
        machine.set_console(console);
    }
    if let (Some(fd), Some(path)) = (descriptors.take_if_there(METRICS_HOST), &plan.metrics) {
        let metrics = Console::of_metrics(fd, path)
            .map_err(|source| LaunchError::io(LaunchErrorKind::Write(path.clone()), source))?;
        machine.set_metrics(metrics);
    }
    machine.set_channel(match descriptors.take_if_there(CHANNEL_LISTENER) {
        Some(listener) => Some(ChannelEnd::Listening(listener)),
        None => descriptors
            .take_if_there(CHANNEL_HOST)
            .map(ChannelEnd::Connected),
    });
    machine.set_control(descriptors.take_if_there(CONTROL_HOST));
    if let Some(memory) = descriptors.get(INITRD) {
        let kept = memory.try_clone();
        machine.set_initrd(
            kept.map_err(|e| LaunchError::io(LaunchErrorKind::Descriptor(INITRD.to_owned()), e))?,
        );
    }
    let mut awaited = Vec::new();
    for planned in &plan.processes {
        let process = start_process(planned, &mut descriptors)?;
        let index = machine.add_process(process);
        if let Some(name) = planned.ready.as_deref() {
            awaited.push((planned, index, descriptors.take(name)?));
        }
    }
    // While one gets ready, the next one starts: none of them waits for another.
    for (planned, index, ready) in awaited {
        wait_ready(planned, machine, index, &ready)?;
    }
    if let Some(monitor) = &plan.monitor {
        let connection = descriptors.take(&monitor.connection)?;
        api::command(monitor, plan, machine, connection)?;
    }
    if let Some(api) = &plan.api {
        let connection = api::configure(api, plan, machine)?;
        machine.set_control(Some(connection));
    }
    Ok(())
}

/// What the guard of a connection lets pass.
fn limits(wanted: &InterfaceLimits) -> guard::Limits {
    let rate = |bucket: TokenBucket| Rate {
        size: bucket.size,
        refill: Duration::from_millis(bucket.refill_time),
        burst: bucket.one_time_burst.unwrap_or(0),
    };
    let limit = |limiter: &Option<RateLimiter>| {
        let limiter = limiter.clone().unwrap_or_default();
        Limit {
            bytes: limiter.bandwidth.map(rate),
            frames: limiter.ops.map(rate),
        }
    };
    guard::Limits {
        from_guest: limit(&wanted.tx),
        to_guest: limit(&wanted.rx),
    }
}

fn write_file(file: &PlannedFile) -> Result<(), LaunchError> {
    let failed = |source| LaunchError::io(LaunchErrorKind::Write(file.path.clone()), source);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(file.mode);
    let mut written = options.open(&file.path).map_err(failed)?;
    written.write_all(file.contents.as_bytes()).map_err(failed)
}

/// Open descriptors by their names in the plan.
struct Descriptors(BTreeMap<String, OwnedFd>);

impl Descriptors {
    fn open(planned: &[Descriptor], user: Option<&RunAs>) -> Result<Self, LaunchError> {
        let mut made = BTreeMap::new();
        for descriptor in planned {
            match descriptor {
                Descriptor::Open { name, path, access } => {
                    made.insert(name.clone(), open_file(path, *access, name, user)?);
                }
                Descriptor::Tap {
                    name,
                    link,
                    netns,
                    plain,
                } => {
                    let tap = bridge::open_tap(link, netns.as_deref(), *plain);
                    made.insert(name.clone(), tap.map_err(|e| failed(name, e))?);
                }
                Descriptor::Memory { name, parts } => {
                    made.insert(name.clone(), fill_memory(name, parts, user)?);
                }
                Descriptor::SocketPair {
                    names: [a, b],
                    send_buffer_bytes,
                } => {
                    let pair = socketpair(
                        AddressFamily::UNIX,
                        SocketType::STREAM,
                        SocketFlags::CLOEXEC,
                        None,
                    );
                    let (one, other) = pair.map_err(|e| failed(a, e.into()))?;
                    for end in [&one, &other] {
                        if let Some(bytes) = send_buffer_bytes {
                            set_send_buffer(end, *bytes);
                        }
                    }
                    made.insert(a.clone(), one);
                    made.insert(b.clone(), other);
                }
                Descriptor::Pipe { read, write } => {
                    let (one, other) =
                        pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(read, e.into()))?;
                    if let Some(user) = user {
                        // A child that opens it by /proc/self/fd needs to own it.
                        give_to(&other, user).map_err(|e| failed(write, e))?;
                    }
                    made.insert(read.clone(), one);
                    made.insert(write.clone(), other);
                }
                Descriptor::File {
                    name,
                    path,
                    parts,
                    owner,
                } => {
                    made.insert(name.clone(), paths::file(name, path, parts, *owner)?);
                }
                Descriptor::NamedPipe {
                    write,
                    read,
                    path,
                    owner,
                } => {
                    let (one, other) = paths::named_pipe(read, path, *owner)?;
                    made.insert(read.clone(), one);
                    made.insert(write.clone(), other);
                }
                Descriptor::Listener { name, path, owner } => {
                    made.insert(name.clone(), paths::listener(name, path, *owner)?);
                }
            }
        }
        Ok(Self(made))
    }

    fn get(&self, name: &str) -> Option<&OwnedFd> {
        self.0.get(name)
    }

    fn take_if_there(&mut self, name: &str) -> Option<OwnedFd> {
        self.0.remove(name)
    }

    fn take(&mut self, name: &str) -> Result<OwnedFd, LaunchError> {
        self.0
            .remove(name)
            .ok_or_else(|| LaunchError::new(LaunchErrorKind::Descriptor(name.to_owned())))
    }
}

/// Asks for a send buffer of this size. A smaller one costs speed and nothing else.
fn set_send_buffer(socket: &OwnedFd, bytes: usize) {
    if sockopt::set_socket_send_buffer_size_force(socket, bytes).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, bytes);
    }
}

fn failed(name: &str, source: io::Error) -> LaunchError {
    LaunchError::io(LaunchErrorKind::Descriptor(name.to_owned()), source)
}

fn open_file(
    path: &Path,
    access: Access,
    name: &str,
    user: Option<&RunAs>,
) -> Result<OwnedFd, LaunchError> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(access == Access::ReadWrite);
    // A disk image may be replaced by a FIFO while it is looked at; opening must not wait.
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options
        .open(path)
        .map_err(|e| LaunchError::io(LaunchErrorKind::Open(path.to_owned()), e))?;
    let found = file.metadata().map_err(|e| failed(name, e))?;
    if let Some(user) = user
        && name == "kernel"
        && !may_read(&found, user)
    {
        return Err(LaunchError::new(LaunchErrorKind::NotReadable {
            path: path.to_owned(),
            uid: user.uid,
        }));
    }
    Ok(file.into_file().into())
}

/// Whether this user may open the file anew, as QEMU does with its kernel.
fn may_read(found: &std::fs::Metadata, user: &RunAs) -> bool {
    let mode = found.permissions().mode();
    if found.uid() == user.uid {
        mode & 0o400 != 0
    } else if found.gid() == user.gid || user.groups.contains(&found.gid()) {
        mode & 0o040 != 0
    } else {
        mode & 0o004 != 0
    }
}

fn fill_memory(
    name: &str,
    parts: &[InitrdPart],
    user: Option<&RunAs>,
) -> Result<OwnedFd, LaunchError> {
    let fd =
        rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(|e| failed(name, e.into()))?;
    let mut memory = std::fs::File::from(fd);
    fill(&mut memory, name, parts)?;
    memory
        .set_permissions(std::fs::Permissions::from_mode(0o600))
        .map_err(|e| failed(name, e))?;
    let fd = OwnedFd::from(memory);
    if let Some(user) = user {
        give_to(&fd, user).map_err(|e| failed(name, e))?;
    }
    Ok(fd)
}

/// Writes archives one after the other.
fn fill(memory: &mut std::fs::File, name: &str, parts: &[InitrdPart]) -> Result<(), LaunchError> {
    for part in parts {
        match part {
            InitrdPart::File { path } => {
                let opened = fs::File::open(path);
                let mut file =
                    opened.map_err(|e| LaunchError::io(LaunchErrorKind::Open(path.clone()), e))?;
                io::copy(&mut file, memory).map_err(|e| failed(name, e))?;
            }
            InitrdPart::Private { contents, .. } => {
                for piece in contents.expose() {
                    memory.write_all(piece).map_err(|e| failed(name, e))?;
                }
            }
        }
        // A cpio archive begins at a multiple of four bytes; the kernel skips zeros between two of them.
        let length = memory.stream_position().map_err(|e| failed(name, e))?;
        let padding = usize::try_from(length.next_multiple_of(4) - length).expect("less than four");
        memory
            .write_all(&[0; 4][..padding])
            .map_err(|e| failed(name, e))?;
    }
    memory.rewind().map_err(|e| failed(name, e))
}

fn give_to(fd: &OwnedFd, user: &RunAs) -> io::Result<()> {
    let uid = rustix::fs::Uid::from_raw(user.uid);
    let gid = rustix::fs::Gid::from_raw(user.gid);
    Ok(rustix::fs::fchown(fd, Some(uid), Some(gid))?)
}

fn start_process(
    planned: &PlannedProcess,
    descriptors: &mut Descriptors,
) -> Result<Process, LaunchError> {
    let spawn_failed =
        |source| LaunchError::io(LaunchErrorKind::Spawn(planned.program.clone()), source);
    let (log, log_end) = match &planned.log {
        Some(log) => (descriptors.take(&log.read)?, descriptors.take(&log.write)?),
        None => pipe_with(PipeFlags::CLOEXEC).map_err(|e| spawn_failed(e.into()))?,
    };
    let stdout = match &planned.stdout {
        Some(name) => descriptors.take(name)?,
        None => log_end.try_clone().map_err(spawn_failed)?,
    };
    let mut fds = Vec::with_capacity(planned.fds.len());
    for inherited in &planned.fds {
        fds.push((descriptors.take(&inherited.name)?, inherited.number));
    }
    let last = planned
        .fds
        .iter()
        .map(|fd| fd.number)
        .max()
        .unwrap_or(FIRST_FD - 1);

    let mut command = Command::new(&planned.program);
    command
        .args(&planned.args)
        .env_clear()
        .envs(&planned.env)
        .current_dir(&planned.cwd);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(log_end));
    let tether = planned
        .tethered
        .then(|| spawn::tether(&mut command))
        .transpose()
        .map_err(spawn_failed)?;
    spawn::pass_fds(&mut command, fds).map_err(spawn_failed)?;
    // No Ctrl+C of a terminal: the machine's owner decides what it means.
    spawn::new_session(&mut command);
    let credentials = planned.run_as.as_ref().map(|user| Credentials {
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
    });
    let close_from = u32::try_from(last + 1).expect("descriptor numbers are not negative");
    confine(
        &mut command,
        Confinement {
            credentials,
            bind_low_ports: planned.bind_low_ports,
            close_from,
        },
    );
    let child = command.spawn().map_err(spawn_failed)?;
    let pid = Pid::from_child(&child);
    // Nobody but this process reaps the child, so the number cannot have become another process.
    let pidfd = pidfd::open(pid).map_err(spawn_failed)?;
    Process::new(planned.role, pid, pidfd, log, tether).map_err(spawn_failed)
}

/// Waits until the process writes to its ready pipe, ends, or takes too long.
fn wait_ready(
    planned: &PlannedProcess,
    machine: &mut Machine,
    index: usize,
    ready: &OwnedFd,
) -> Result<(), LaunchError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LaunchError::new(LaunchErrorKind::NotReady {
                program: planned.program.clone(),
            }));
        }
        let mut fds = [PollFd::new(ready, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: left.min(Duration::from_millis(250)).subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(source) => {
                return Err(LaunchError::io(
                    LaunchErrorKind::Spawn(planned.program.clone()),
                    source.into(),
                ));
            }
        }
        // Its own byte, or the end of the pipe because it ended.
        if fds[0].revents().contains(PollFlags::IN) {
            return Ok(());
        }
        if let Some(words) = machine.process_ended(index) {
            let (role, program) = (planned.role, planned.program.clone());
            return Err(LaunchError::new(LaunchErrorKind::Ended {
                role,
                program,
                words,
            }));
        }
        if fds[0].revents().contains(PollFlags::HUP) {
            // It let go of the pipe and is about to end; its end is not a moment away.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

mod api;
mod paths;

#[cfg(test)]
mod tests;
