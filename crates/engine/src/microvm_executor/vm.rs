//! One VM of a build: the thread that owns it, and its end for other threads.
//!
//! The thread launches the machine, since that dies with the thread that launched it, and moves bytes between the channel
//! and the pipes of tasks. Other threads see pipes. When the machine ends, the pipes do, and [`Vm::death`] says why.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use firebuild_build::cancel::Cancel;
use firebuild_build::exec::{ExecError, ExecErrorKind};
use firebuild_guest_proto::flow::Flows;
use firebuild_guest_proto::{ExitStatus, MessageLevel, StreamId, TaskSocket};
use firebuild_oci::Digest;
use firebuild_vm::{Agent, AgentEvent, Machine, MachineState, TaskFiles};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};

use super::launch::{Launched, Wanted};
use super::layers::Held;
use super::{host, stopped};

/// How long a guest may take until it takes tasks; generous, for emulation on a busy host.
const BOOT: Duration = Duration::from_secs(120);
/// How often the guest is asked whether it lives.
const PING: Duration = Duration::from_secs(10);
/// How long it may be silent when it was asked.
const SILENCE: Duration = Duration::from_secs(90);
/// How often a wait for a boot looks whether it was stopped.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of the guest that an error shows.
const LINES: usize = 8;

/// A VM that takes tasks.
#[derive(Debug)]
pub(super) struct Vm {
    commands: Option<Sender<Command>>,
    wake: OwnedFd,
    death: Arc<OnceLock<String>>,
    thread: Option<JoinHandle<()>>,
    tasks: AtomicU32,
    /// The chain that its disk shows.
    pub(super) image: Option<Digest>,
    /// Whether it has a network.
    pub(super) network: bool,
    /// Most bytes that a guest could have to give back.
    pub(super) disk_bytes: u64,
    /// What it has of chains and caches.
    pub(super) held: Mutex<Held>,
    notices: Mutex<Vec<String>>,
}

/// Notices of a VM that takes tasks, or why there is none.
type Readiness = Result<Vec<String>, ExecError>;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    Start {
        task: u32,
        files: TaskFiles,
        sockets: Vec<(PathBuf, TaskSocket)>,
    },
    /// Nobody waits for the task any more.
    Stop(u32),
}

impl Vm {
    /// Starts a VM and waits until it takes tasks.
    pub(super) fn start(
        wanted: Wanted,
        image: Option<Digest>,
        cancel: &Cancel,
    ) -> Result<Self, ExecError> {
        let (commands, orders) = channel();
        let (ready, answer) = sync_channel(1);
        let (woken, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|error| host("cannot make a pipe", error))?;
        let death = Arc::new(OnceLock::new());
        let (network, disk_bytes) = (wanted.network, wanted.options.disk_bytes);
        let told = Arc::clone(&death);
        let thread = std::thread::Builder::new()
            .name("build-vm".to_owned())
            .spawn(move || own(&wanted, orders, &woken, ready, &told))
            .map_err(|error| host("cannot start a thread for a VM", error))?;
        let vm = Self {
            commands: Some(commands),
            wake,
            death,
            thread: Some(thread),
            tasks: AtomicU32::new(0),
            image,
            network,
            disk_bytes,
            held: Mutex::default(),
            notices: Mutex::default(),
        };
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(Ok(notices)) => {
                    *vm.notices.lock().unwrap_or_else(PoisonError::into_inner) = notices;
                    return Ok(vm);
                }
                Ok(Err(error)) => return Err(error),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) if cancel.is_raised() => {
                    return Err(stopped());
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Err(vm.dead()),
            }
        }
    }

    /// Whether it has ended.
    pub(super) fn is_dead(&self) -> bool {
        self.death.get().is_some()
    }

    /// The error for a VM that has ended.
    pub(super) fn dead(&self) -> ExecError {
        let why = self.death.get().map_or("it is gone", String::as_str);
        ExecError::new(
            ExecErrorKind::Host,
            format!("the VM of the build has ended: {why}"),
        )
    }

    /// A number that no other task has.
    pub(super) fn number(&self) -> u32 {
        self.tasks.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the thread something.
    pub(super) fn tell(&self, command: Command) -> Result<(), ExecError> {
        let sent = self.commands.as_ref().map(|to| to.send(command));
        if !matches!(sent, Some(Ok(()))) {
            return Err(self.dead());
        }
        // A full pipe wakes as well.
        let _ = rustix::io::write(&self.wake, b"!");
        Ok(())
    }

    /// Things to tell once.
    pub(super) fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Vm {
    /// The machine has ended when this returns.
    fn drop(&mut self) {
        self.commands = None;
        let _ = rustix::io::write(&self.wake, b"!");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread.
fn own(
    wanted: &Wanted,
    orders: Receiver<Command>,
    woken: &OwnedFd,
    ready: SyncSender<Readiness>,
    death: &OnceLock<String>,
) {
    let launched = match wanted.launch() {
        Ok(launched) => launched,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let Launched {
        machine,
        agent,
        notices,
    } = launched;
    let mut owner = Owner {
        machine,
        agent,
        flows: Flows::default(),
        tasks: HashMap::new(),
        ready: Some((ready, notices)),
        lines: Vec::new(),
        heard: Instant::now(),
        asked: None,
    };
    let why = owner.run(&orders, woken);
    let Owner {
        machine,
        flows,
        ready,
        lines,
        ..
    } = owner;
    let end = machine.finish();
    let mut words = match why {
        Some(why) => why,
        None => end.words(),
    };
    let console = end.console.len().saturating_sub(LINES);
    for line in lines.iter().chain(end.console.iter().skip(console)) {
        words.push_str("\n  ");
        words.push_str(line);
    }
    let _ = death.set(words.clone());
    if let Some((ready, _)) = ready {
        let text = format!("the VM of the build did not start: {words}");
        let _ = ready.send(Err(ExecError::new(ExecErrorKind::Host, text)));
    }
    // Last: the ends of the pipes are how others learn of it.
    drop((flows, orders));
}

#[derive(Debug)]
struct Task {
    result: StreamId,
    sockets: Vec<PathBuf>,
}

struct Owner {
    machine: Machine,
    agent: Agent,
    flows: Flows,
    tasks: HashMap<u32, Task>,
    /// Whom to tell that tasks are taken, until that is so.
    ready: Option<(SyncSender<Readiness>, Vec<String>)>,
    /// What the guest init complained about.
    lines: Vec<String>,
    /// When the guest was heard last.
    heard: Instant,
    /// When it was asked whether it lives, if it has not answered.
    asked: Option<Instant>,
}

impl Owner {
    /// Until the machine ends or is to end; why, unless the machine knows better.
    fn run(&mut self, orders: &Receiver<Command>, woken: &OwnedFd) -> Option<String> {
        let begun = Instant::now();
        loop {
            let now = u64::try_from(Timestamp::now().as_nanosecond()).ok();
            if let Err(error) = self.agent.pump(now).and_then(|()| self.events()) {
                return Some(chain(&error));
            }
            let mut buffer = [0; 64];
            while matches!(rustix::io::read(woken, &mut buffer), Ok(1..)) {}
            loop {
                match orders.try_recv() {
                    Ok(command) => {
                        if let Err(error) = self.obey(command) {
                            return Some(chain(&error));
                        }
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Some("it was ended".to_owned()),
                }
            }
            let moved = self.agent.turn(&mut self.flows);
            if self.machine.pump() == MachineState::Ended {
                return None;
            }
            if self.ready.is_some() && begun.elapsed() > BOOT {
                return Some(format!("it was not ready within {} s", BOOT.as_secs()));
            }
            if let Err(why) = self.is_alive() {
                return Some(why);
            }
            if moved {
                continue;
            }
            if let Err(error) = self.wait(woken) {
                return Some(format!("cannot wait for it: {error}"));
            }
        }
    }

    fn events(&mut self) -> Result<(), firebuild_vm::agent::AgentError> {
        while let Some(event) = self.agent.next_event()? {
            match event {
                AgentEvent::Configured => {
                    // Nothing in it is a secret of the user; the memory is worth freeing, and no more.
                    let _ = self.machine.wipe_initrd();
                }
                AgentEvent::Ready => {
                    if let Some((ready, notices)) = self.ready.take() {
                        let _ = ready.send(Ok(notices));
                    }
                    self.heard = Instant::now();
                }
                AgentEvent::Connect { task, socket } => {
                    let path = self
                        .tasks
                        .get(&task)
                        .and_then(|task| task.sockets.get(usize::try_from(socket).ok()?));
                    let ends = path.and_then(|path| reach(path).ok());
                    self.agent.connect((task, socket), ends, &mut self.flows)?;
                }
                AgentEvent::Pong => {
                    self.heard = Instant::now();
                    self.asked = None;
                }
                AgentEvent::Log {
                    level: MessageLevel::Error | MessageLevel::Warning,
                    text,
                } if self.lines.len() < LINES => self.lines.push(text),
                AgentEvent::Exited(record) => {
                    if let ExitStatus::Failed { message, .. } = record.status {
                        self.lines.push(message);
                    }
                    self.agent.acknowledge_exit()?;
                }
                AgentEvent::Greeted { .. }
                | AgentEvent::Log { .. }
                | AgentEvent::Started { .. }
                | AgentEvent::Health(_)
                | AgentEvent::SessionStarted { .. }
                | AgentEvent::SessionEnded { .. }
                | AgentEvent::Closed => {}
            }
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) -> Result<(), firebuild_vm::agent::AgentError> {
        match command {
            Command::Start {
                task,
                files,
                sockets,
            } => {
                let (paths, looks) = sockets.into_iter().unzip();
                let result = self.agent.start_task(task, files, looks, &mut self.flows)?;
                self.tasks.insert(
                    task,
                    Task {
                        result,
                        sockets: paths,
                    },
                );
            }
            Command::Stop(task) => {
                if let Some(task) = self.tasks.remove(&task) {
                    self.agent.stop(task.result);
                }
            }
        }
        Ok(())
    }

    /// Asks the guest now and then whether it lives.
    fn is_alive(&mut self) -> Result<(), String> {
        if self.ready.is_some() {
            return Ok(());
        }
        match self.asked {
            Some(asked) if asked.elapsed() > SILENCE => Err(format!(
                "its guest has not answered for {} s",
                SILENCE.as_secs()
            )),
            None if self.heard.elapsed() > PING => {
                self.asked = Some(Instant::now());
                self.agent.ping().map_err(|error| chain(&error))
            }
            _ => Ok(()),
        }
    }

    fn wait(&self, woken: &OwnedFd) -> rustix::io::Result<()> {
        let mut fds = self.agent.interest(&self.flows);
        fds.push(PollFd::new(woken, PollFlags::IN));
        fds.extend(self.agent.poll_fd());
        self.machine.poll_fds(&mut fds);
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        match poll(&mut fds, Some(&second)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Two descriptors of a connection to a socket of the host.
fn reach(path: &std::path::Path) -> io::Result<(File, File)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(fd.as_fd(), &SocketAddrUnix::new(path)?)?;
    let other = fd.try_clone()?;
    Ok((File::from(fd), File::from(other)))
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
