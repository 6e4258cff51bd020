//! `--init=system`: process 1 is the image's own init, and this init lives on beside it as the agent.
//!
//! ```text
//!   PID 1  all up to here ▸ fork ──▶ exec /sbin/init                 systemd, OpenRC, sysvinit, busybox, …
//!                             └────▶ agent: the supervisor's loop, in a control group of its own
//! ```
//!
//! systemd starts the application as a unit, which writes to named pipes of the agent and tells it by another one how it
//! ended; beside any other init the agent starts the application itself, as soon as the system is up where the init can say
//! so ([`cue`]). The end of the application shuts the machine down in order, and so does the host: the agent asks the
//! init, the init ends what runs, the agent last. That signal is when the agent reports; the rest (file systems, the
//! restart) is the init's.

mod cue;
mod request;
mod unit;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use firebuild_guest_proto::{ExitStatus, FailureReason, RunConfig, Signal, StreamId, WindowSize};
use firebuild_sys::process::{Fork, exec, fork, leave};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use self::cue::Cue;
use self::request::Kind;
use crate::error::InitError;
use crate::files;
use crate::journal::Journal;
use crate::launch::{self, Application, Surroundings};
use crate::mounts::make_directory;

/// Where an image has its init, in this order.
const INITS: [&str; 6] = [
    "/sbin/init",
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
    "/sbin/openrc-init",
    "/sbin/runit-init",
    "/bin/init",
];
/// What the agent and the unit share.
const DIRECTORY: &str = "/run/firebuild";
/// The control group of the agent.
const GROUP: &str = "/sys/fs/cgroup/firebuild";
/// The signal by which the init says that the application may start.
pub(crate) const CUE: i32 = cue::SIGNAL;
/// The longest report of an init that cannot be executed, and the longest line of the unit.
const MAX_TEXT: u64 = 4096;

pub(crate) use cue::cue_main;

/// The init of the image, seen from the agent.
#[derive(Debug)]
pub(crate) struct System {
    kind: Kind,
    /// The application that waits for the init's cue.
    waiting: Option<Box<Waiting>>,
    /// What the unit tells; none without a unit.
    events: Option<OwnedFd>,
    _terminal: Option<OwnedFd>,
    line: Vec<u8>,
    /// The main process of the unit.
    main: Option<Pid>,
    /// How the application ended.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) oom_killed: bool,
    asked: bool,
}

/// An application that starts when the system is up.
#[derive(Debug)]
pub(crate) struct Waiting {
    config: RunConfig,
    surroundings: Surroundings,
}

impl Waiting {
    /// Starts it.
    pub(crate) fn start(self) -> Result<Application, InitError> {
        launch::start(&self.config, &self.surroundings)
    }

    /// Its terminal is to have this size.
    pub(crate) fn resize(&mut self, size: WindowSize) {
        if let Some(old) = &mut self.config.terminal {
            *old = size;
        }
    }
}

/// The agent, and what it watches.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) system: System,
    /// The application, or its pipes; none where the init is all there is.
    pub(crate) application: Option<Application>,
}

/// Hands process 1 over to the image's init. Comes back in the agent.
pub(crate) fn hand_over(
    config: &RunConfig,
    argv: &[String],
    has_application: bool,
    surroundings: &Surroundings,
    journal: &mut Journal,
) -> Result<Handed, InitError> {
    let program = find(argv)?;
    let kind = Kind::of(&program);
    let mut application = None;
    let mut events = None;
    let mut terminal = None;
    if has_application && kind == Kind::Systemd {
        own_run()?;
        let installed = unit::install(config, surroundings, DIRECTORY)?;
        application = Some(installed.application);
        events = Some(installed.events);
        terminal = installed.terminal;
    }
    journal.debug("the image's init takes over");
    let mut argv = argv.to_vec();
    if argv.is_empty() {
        argv.push(program.display().to_string());
    }
    let cue = has_application.then(|| Cue::of(kind)).flatten();
    let mut waiting = None;
    if cue.is_some() {
        // What cannot be found is told now.
        surroundings.look_up(&config.argv)?;
        waiting = Some(Box::new(Waiting {
            config: config.clone(),
            surroundings: surroundings.clone(),
        }));
    }
    become_agent(&program, &argv, cue.as_ref())?;
    join_group(journal);
    if has_application && kind != Kind::Systemd && waiting.is_none() {
        journal.warning(&format!(
            "the image's init {} does not say when the system is up: the application starts beside its boot",
            program.display()
        ));
        application = Some(launch::start(config, surroundings)?);
    }
    Ok(Handed {
        system: System {
            kind,
            waiting,
            events,
            _terminal: terminal,
            line: Vec::new(),
            main: None,
            status: None,
            oom_killed: false,
            asked: false,
        },
        application,
    })
}

/// The program of the init: the one that is named, else the image's.
fn find(argv: &[String]) -> Result<PathBuf, InitError> {
    let named = argv.first().map(PathBuf::from);
    let usable = |path: &Path| {
        fs_err::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let found = match named {
        Some(path) => Some(path).filter(|path| usable(path)),
        None => INITS
            .into_iter()
            .map(PathBuf::from)
            .find(|path| usable(path)),
    };
    found.ok_or_else(|| {
        let what = argv.first().map_or("/sbin/init", String::as_str);
        InitError::new(
            FailureReason::NotFound,
            format!(
                "the image has no init at {what}: take an image with systemd, OpenRC, runit or sysvinit, or --init=vminit"
            ),
        )
    })
}

/// systemd keeps `/run` as it finds it when something is mounted there.
fn own_run() -> Result<(), InitError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", "/run", "tmpfs", flags, Some(c"mode=755"))
        .map_err(|error| InitError::setup("cannot mount memory on /run", error))
}

/// Splits this process: process 1 executes the init, the child comes back as the agent. With `cue` the init is told to
/// give it.
fn become_agent(program: &Path, argv: &[String], cue: Option<&Cue>) -> Result<(), InitError> {
    let broken = |error: Errno| InitError::setup("cannot make a pipe", error);
    let (report, init_report) = pipe_with(PipeFlags::CLOEXEC).map_err(broken)?;
    let forked = fork().map_err(|error| InitError::setup("cannot start a process", error))?;
    if let Fork::Parent(agent) = forked {
        drop(report);
        let told = cue.map_or(Ok(()), |cue| cue.install(agent));
        let problem = match told {
            Ok(()) => execute(program, argv),
            Err(error) => error.to_string(),
        };
        let _ = rustix::io::write(&init_report, problem.as_bytes());
        drop(init_report);
        // The agent tells the host; then the machine is over.
        let _ = firebuild_sys::process::wait(agent);
        rustix::fs::sync();
        let _ = firebuild_sys::reboot::restart();
        leave(1);
    }
    drop(init_report);
    let mut problem = String::new();
    File::from(report)
        .take(MAX_TEXT)
        .read_to_string(&mut problem)
        .map_err(|error| InitError::setup("cannot watch the start of the init", error))?;
    if problem.is_empty() {
        return Ok(());
    }
    Err(InitError::new(FailureReason::CannotExecute, problem))
}

/// Becomes the init; returns only to say why it could not.
fn execute(program: &Path, argv: &[String]) -> String {
    let shown = program.display().to_string();
    let text = |text: &str| std::ffi::CString::new(text).map_err(|error| error.to_string());
    let words: Result<Vec<_>, _> = argv.iter().map(|word| text(word)).collect();
    let env: Result<Vec<_>, _> = ["HOME=/", "TERM=linux"].into_iter().map(text).collect();
    match (text(&shown), words, env) {
        (Ok(path), Ok(words), Ok(env)) => format!("exec {shown}: {}", exec(&path, &words, &env)),
        _ => format!("exec {shown}: its name holds NUL"),
    }
}

/// A control group of its own, so that the init neither counts nor stops the agent with anything else, and no score that
/// makes the kernel choose it when memory ends.
fn join_group(journal: &mut Journal) {
    let joined = fs_err::create_dir_all(GROUP)
        .and_then(|()| fs_err::write(format!("{GROUP}/cgroup.procs"), "0"));
    if let Err(error) = joined {
        journal.debug(&format!(
            "the agent has no control group of its own: {error}"
        ));
    }
    if let Err(error) = fs_err::write("/proc/self/oom_score_adj", "-1000") {
        journal.debug(&format!(
            "the agent can be killed for want of memory: {error}"
        ));
    }
}

impl System {
    /// What to wait for.
    pub(crate) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.events.as_ref().map(AsFd::as_fd)
    }

    /// Asks the init to end everything and restart; once is enough.
    pub(crate) fn shut_down(&mut self, journal: &mut Journal) {
        if std::mem::replace(&mut self.asked, true) {
            return;
        }
        if let Err(error) = self.kind.restart() {
            journal.warning(&format!("cannot ask the init to end: {error}"));
        }
    }

    /// Asks again. In the middle of a boot some inits hear nothing: their control pipe is mounted over, or Ctrl+Alt+Delete has
    /// no meaning yet.
    pub(crate) fn ask_again(&self) {
        let _ = self.kind.restart();
    }

    /// The application that waits for the init's cue, for somebody who starts it.
    pub(crate) fn take_waiting(&mut self) -> Option<Box<Waiting>> {
        self.waiting.take()
    }

    /// The application that waits for the init's cue.
    pub(crate) fn waiting(&mut self) -> Option<&mut Waiting> {
        self.waiting.as_deref_mut()
    }

    /// The process that signals for the application go to, where it is not the agent's child.
    pub(crate) fn main(&self) -> Option<Pid> {
        self.main
    }

    /// Reads what the unit tells; whether the application has ended by it.
    pub(crate) fn turn(&mut self) -> bool {
        let mut buffer = [0; 512];
        let mut ended = false;
        while let Some(events) = &self.events {
            match rustix::io::read(events, &mut buffer) {
                Ok(count) if count > 0 => self.line.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR) => continue,
                _ => break,
            }
            while let Some(end) = self.line.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.line.drain(..=end).collect();
                match unit::event(&String::from_utf8_lossy(&line)) {
                    Some(unit::Event::Started(pid)) => self.main = Some(pid),
                    Some(unit::Event::Ended { status, oom_killed }) => {
                        self.main = None;
                        self.status = Some(status);
                        self.oom_killed = oom_killed;
                        ended = true;
                    }
                    None => {}
                }
            }
            if self.line.len() as u64 > MAX_TEXT {
                self.line.clear();
            }
        }
        ended
    }
}

/// A named pipe of the agent, open for both directions: whoever is at the other end comes and goes.
fn fifo(path: &Path, owner: Option<(u32, u32)>) -> Result<OwnedFd, InitError> {
    let failed = |error: Errno| InitError::setup(format!("cannot make {}", path.display()), error);
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .map_err(failed)?;
    if let Some((uid, gid)) = owner {
        rustix::fs::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(failed)?;
    }
    rustix::fs::open(
        path,
        OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(failed)
}

/// Writes a file of the agent with this mode.
fn write(path: &str, text: &str, mode: u32) -> Result<(), InitError> {
    files::replace(Path::new(path), text.as_bytes())
        .and_then(|()| fs_err::set_permissions(path, PermissionsExt::from_mode(mode)))
        .map_err(|error| InitError::setup(format!("cannot write {path}"), error))
}

/// Makes a directory that the application's user may pass through.
fn directory(path: &str) -> Result<(), InitError> {
    make_directory(path, 0o755)
}

/// The streams of an application that has a unit, by its named pipes.
fn pipes(config: &RunConfig, place: &str, owner: (u32, u32)) -> Result<Application, InitError> {
    let at = |name: &str| Path::new(place).join(name);
    let stdout = fifo(&at("stdout"), Some(owner))?;
    let stderr = fifo(&at("stderr"), Some(owner))?;
    let input = match config.stdin {
        true => Some(fifo(&at("stdin"), Some(owner))?),
        false => None,
    };
    Ok(Application {
        pid: Pid::INIT,
        outputs: vec![(StreamId::STDOUT, stdout), (StreamId::STDERR, stderr)],
        input,
        terminal: None,
    })
}

/// A signal by its number, if there is one.
fn signal_of(number: u8) -> Signal {
    Signal::from_number(number).unwrap_or(Signal::KILL)
}
