//! Starting the application, and programs beside it: streams, identity, place, program.

use std::ffi::{CString, OsString};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use firebuild_accounts::Identity;
use firebuild_guest_proto::{EnvVar, FailureReason, RunConfig, StreamId, WindowSize};
use firebuild_sys::process::{Fork, fork, leave};
use firebuild_sys::pty;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, setrlimit};

use crate::error::InitError;
use crate::program::{self, DEFAULT_PATH};

/// Limits of open descriptors, soft and hard: what systemd gives a service, and so Docker its containers.
const OPEN_FILES: (u64, u64) = (1024, 524_288);
/// The longest report of a child that could not start.
const MAX_REPORT_BYTES: usize = 16 * 1024;

/// An application that runs.
#[derive(Debug)]
pub(crate) struct Application {
    pub(crate) pid: Pid,
    /// What it prints, each with the stream that carries it.
    pub(crate) outputs: Vec<(StreamId, OwnedFd)>,
    /// Where its input goes; none if it reads from `/dev/null`.
    pub(crate) input: Option<OwnedFd>,
    /// The controlling end of its terminal, for sizes.
    pub(crate) terminal: Option<OwnedFd>,
}

/// What the child is given for its standard streams.
struct ChildStreams {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    terminal: bool,
}

/// What every program of the application finds: who it is, its environment, its place. Made before the fork, so that the
/// child only calls the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    identity: Identity,
    env: Vec<CString>,
    path: OsString,
    cwd: CString,
}

/// Starts the application. All of its set-up has happened when this returns: the program runs, or the error says why not.
pub(crate) fn start(
    config: &RunConfig,
    surroundings: &Surroundings,
) -> Result<Application, InitError> {
    let (streams, mut application_ends) = match config.terminal {
        Some(size) => terminal(size)?,
        None => pipes(config.stdin)?,
    };
    application_ends.pid = execute(&config.argv, surroundings, streams)?;
    Ok(application_ends)
}

/// Starts a program beside the application, with what it prints in one pipe and nothing to read.
pub(crate) fn beside(
    argv: &[String],
    surroundings: &Surroundings,
) -> Result<(Pid, OwnedFd), InitError> {
    let broken = |error: rustix::io::Errno| InitError::setup("cannot make a pipe", error);
    let (output, stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(broken)?;
    unblock(&output)?;
    let stderr = stdout
        .try_clone()
        .map_err(|error| InitError::setup("cannot make a pipe", error))?;
    let streams = ChildStreams {
        stdin: no_input()?,
        stdout,
        stderr,
        terminal: false,
    };
    Ok((execute(argv, surroundings, streams)?, output))
}

/// Starts a program as a child of this process, and comes back when it has been executed.
fn execute(
    argv: &[String],
    surroundings: &Surroundings,
    streams: ChildStreams,
) -> Result<Pid, InitError> {
    let (pid, mut report) = make(argv, surroundings, streams, None)?;
    loop {
        match report.poll() {
            None => {}
            Some(Ok(())) => return Ok(pid),
            Some(Err(error)) => {
                let _ = firebuild_sys::process::wait(pid);
                return Err(error);
            }
        }
    }
}

/// Makes the process of a program beside the application; [`Start::poll`] tells whether the program runs. `group` is
/// `cgroup.procs` of the control group that it joins.
pub(crate) fn begin(
    argv: &[String],
    surroundings: &Surroundings,
    streams: Streams,
    group: Option<OwnedFd>,
) -> Result<Start, InitError> {
    let (streams, mut application) = match streams {
        Streams::Terminal(size) => terminal(size)?,
        Streams::Pipes { stdin } => pipes(stdin)?,
        Streams::Nothing => nothing()?,
    };
    let (pid, report) = make(argv, surroundings, streams, group)?;
    report
        .watch()
        .map_err(|error| InitError::setup("cannot watch the start of a program", error))?;
    application.pid = pid;
    Ok(Start {
        application,
        report,
    })
}

/// What a program beside the application has for its standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// A terminal.
    Terminal(WindowSize),
    /// Pipes; without `stdin` it reads from `/dev/null`.
    Pipes { stdin: bool },
    /// `/dev/null` three times.
    Nothing,
}

/// A program on its way: the process is there, and what follows may still fail.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) application: Application,
    report: Report,
}

/// What a child has to say until its program is executed.
#[derive(Debug)]
struct Report {
    pipe: std::fs::File,
    failure: Vec<u8>,
}

/// Makes a process that becomes a program.
fn make(
    argv: &[String],
    surroundings: &Surroundings,
    streams: ChildStreams,
    group: Option<OwnedFd>,
) -> Result<(Pid, Report), InitError> {
    let argv: Vec<CString> = argv
        .iter()
        .map(|argument| text(argument.as_bytes()))
        .collect::<Result<_, _>>()?;
    own_streams(&streams, &surroundings.identity);
    let (report, child_report) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| InitError::setup("cannot make a pipe", error))?;
    let forked = fork().map_err(|error| InitError::setup("cannot start a process", error))?;
    let pid = match forked {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            let (reason, text) = child(&argv, surroundings, &streams, group.as_ref());
            let report = [&[code(reason)], text.as_bytes()].concat();
            let _ = rustix::io::write(&child_report, &report);
            leave(reason.exit_code().into());
        }
    };
    drop((streams, child_report, group));
    Ok((
        pid,
        Report {
            pipe: report.into(),
            failure: Vec::new(),
        },
    ))
}

impl Start {
    /// Whether the program runs, if that is known. The child of a program that does not run is still to be reaped.
    pub(crate) fn poll(&mut self) -> Option<Result<(), InitError>> {
        self.report.poll()
    }

    /// What to wait for before it is asked again.
    pub(crate) fn report(&self) -> BorrowedFd<'_> {
        self.report.pipe.as_fd()
    }
}

impl Report {
    /// Whether the program runs, if that is known: reads once from the child's report, which ends when the program has
    /// been executed. The child of a program that does not run is still to be reaped.
    fn poll(&mut self) -> Option<Result<(), InitError>> {
        let mut buffer = [0; 1024];
        match self.pipe.read(&mut buffer) {
            Ok(0) => {}
            Ok(count) if self.failure.len() < MAX_REPORT_BYTES => {
                self.failure.extend_from_slice(&buffer[..count]);
                return None;
            }
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) =>
            {
                return None;
            }
            Err(error) => {
                return Some(Err(InitError::setup(
                    "cannot watch a program's start",
                    error,
                )));
            }
        }
        Some(match self.failure.split_first() {
            None => Ok(()),
            Some((first, text)) => Err(InitError::new(
                reason_of(*first),
                String::from_utf8_lossy(text),
            )),
        })
    }

    /// Lets [`Report::poll`] return at once.
    fn watch(&self) -> rustix::io::Result<()> {
        rustix::io::ioctl_fionbio(&self.pipe, true)
    }
}

fn text(text: &[u8]) -> Result<CString, InitError> {
    CString::new(text)
        .map_err(|error| InitError::setup("a text of the configuration holds NUL", error))
}

impl Surroundings {
    /// Who it is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The working directory.
    pub(crate) fn directory(&self) -> String {
        self.cwd.to_string_lossy().into_owned()
    }

    /// The variables, by name and value.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let texts = self
            .env
            .iter()
            .map(|entry| entry.to_string_lossy().into_owned());
        texts
            .filter_map(|text| {
                let (name, value) = text.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            })
            .collect()
    }

    /// Where a program is.
    pub(crate) fn look_up(&self, argv: &[String]) -> Result<String, InitError> {
        let name = argv.first().map(String::as_str).unwrap_or_default();
        program::look_up(name, &self.path).map_err(|(reason, text)| InitError::new(reason, text))
    }

    /// Those of the configuration; its working directory is made if it is missing.
    pub(crate) fn new(config: &RunConfig, identity: Identity) -> Result<Surroundings, InitError> {
        let cwd = if config.cwd.is_empty() {
            "/"
        } else {
            &config.cwd
        };
        crate::mounts::make_directory(cwd, 0o755)?;
        let has_terminal = config.terminal.is_some();
        Surroundings::of(&config.env, &config.hostname, cwd, has_terminal, identity)
    }

    /// Those of a program with these variables, each name once.
    pub(crate) fn of(
        env: &[EnvVar],
        hostname: &str,
        cwd: &str,
        has_terminal: bool,
        identity: Identity,
    ) -> Result<Surroundings, InitError> {
        let mut env: Vec<(&str, Vec<u8>)> = env
            .iter()
            .map(|variable| (variable.name.as_str(), variable.value.clone().into_bytes()))
            .collect();
        let home = identity.home.clone().into_os_string().into_vec();
        let mut defaults = vec![
            ("PATH", DEFAULT_PATH.as_bytes().to_vec()),
            ("HOSTNAME", hostname.as_bytes().to_vec()),
            ("HOME", home),
        ];
        if has_terminal {
            defaults.push(("TERM", b"xterm".to_vec()));
        }
        for (name, value) in defaults {
            if !env.iter().any(|(known, _)| *known == name) {
                env.push((name, value));
            }
        }
        let path = env
            .iter()
            .find(|(name, _)| *name == "PATH")
            .map(|(_, value)| value.clone())
            .unwrap_or_default();
        Ok(Surroundings {
            identity,
            env: env
                .iter()
                .map(|(name, value)| text(&[name.as_bytes(), b"=", value].concat()))
                .collect::<Result<_, _>>()?,
            path: OsString::from_vec(path),
            cwd: text(cwd.as_bytes())?,
        })
    }
}

/// Ours and the child's ends of a terminal.
fn terminal(size: WindowSize) -> Result<(ChildStreams, Application), InitError> {
    let broken = |error: std::io::Error| InitError::setup("cannot make a terminal", error);
    let pty = pty::open().map_err(broken)?;
    pty::set_size(
        &pty.controller,
        pty::Size {
            rows: size.rows,
            columns: size.columns,
        },
    )
    .map_err(broken)?;
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(broken);
    unblock(&pty.controller)?;
    let streams = ChildStreams {
        stdin: copy(&pty.terminal)?,
        stdout: copy(&pty.terminal)?,
        stderr: pty.terminal,
        terminal: true,
    };
    let ours = Application {
        pid: Pid::INIT,
        outputs: vec![(StreamId::STDOUT, copy(&pty.controller)?)],
        input: Some(copy(&pty.controller)?),
        terminal: Some(pty.controller),
    };
    Ok((streams, ours))
}

/// Ours and the child's ends of pipes.
fn pipes(with_input: bool) -> Result<(ChildStreams, Application), InitError> {
    let pipe = || {
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| InitError::setup("cannot make a pipe", error))
    };
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    let (stdin, input) = if with_input {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (no_input()?, None)
    };
    for fd in [&out_read, &err_read].into_iter().chain(&input) {
        unblock(fd)?;
    }
    let streams = ChildStreams {
        stdin,
        stdout: out_write,
        stderr: err_write,
        terminal: false,
    };
    let outputs = vec![(StreamId::STDOUT, out_read), (StreamId::STDERR, err_read)];
    Ok((
        streams,
        Application {
            pid: Pid::INIT,
            outputs,
            input,
            terminal: None,
        },
    ))
}

/// A terminal for an application that somebody else starts: our ends and the application's, which is its user's.
pub(crate) fn terminal_of(
    size: WindowSize,
    identity: &Identity,
) -> Result<(Application, OwnedFd), InitError> {
    let (streams, application) = terminal(size)?;
    own_streams(&streams, identity);
    Ok((application, streams.stderr))
}

fn no_input() -> Result<OwnedFd, InitError> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| InitError::setup("cannot open /dev/null", error))
}

/// The child's ends where there is nobody to talk to.
fn nothing() -> Result<(ChildStreams, Application), InitError> {
    let broken = |error: std::io::Error| InitError::setup("cannot open /dev/null", error);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| broken(error.into()))?;
    let streams = ChildStreams {
        stdin: null.try_clone().map_err(broken)?,
        stdout: null.try_clone().map_err(broken)?,
        stderr: null,
        terminal: false,
    };
    Ok((
        streams,
        Application {
            pid: Pid::INIT,
            outputs: Vec::new(),
            input: None,
            terminal: None,
        },
    ))
}

fn unblock(fd: &OwnedFd) -> Result<(), InitError> {
    rustix::io::ioctl_fionbio(fd, true)
        .map_err(|error| InitError::setup("cannot set up a stream", error))
}

/// Gives the streams to the application's user, who may want to open them again (`/dev/stdout`), as runc does.
fn own_streams(streams: &ChildStreams, identity: &Identity) {
    for fd in [&streams.stdin, &streams.stdout, &streams.stderr] {
        let is_ours = rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_rdev == 0 || streams.terminal);
        if is_ours {
            // Only a convenience; a file system that refuses it is no reason not to start.
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(identity.uid)), None);
        }
    }
}

/// The child, from the fork to its program. Returns only if that fails.
fn child(
    argv: &[CString],
    surroundings: &Surroundings,
    streams: &ChildStreams,
    group: Option<&OwnedFd>,
) -> (FailureReason, String) {
    if let Err((step, error)) = become_application(surroundings, streams, group) {
        return (FailureReason::Setup, format!("{step}: {error}"));
    }
    program::run(argv, &surroundings.env, &surroundings.path)
}

fn become_application(
    surroundings: &Surroundings,
    streams: &ChildStreams,
    group: Option<&OwnedFd>,
) -> Result<(), (&'static str, std::io::Error)> {
    let told =
        |step: &'static str| move |error: rustix::io::Errno| (step, std::io::Error::from(error));
    if let Some(group) = group {
        // 0 stands for the writer.
        rustix::io::write(group, b"0").map_err(told("cannot join the control group"))?;
    }
    if streams.terminal {
        pty::become_controlling(streams.stdin.as_fd())
            .map_err(|error| ("cannot take the terminal", error))?;
    } else {
        rustix::process::setsid().map_err(told("cannot make a session"))?;
    }
    rustix::stdio::dup2_stdin(&streams.stdin).map_err(told("cannot set stdin"))?;
    rustix::stdio::dup2_stdout(&streams.stdout).map_err(told("cannot set stdout"))?;
    rustix::stdio::dup2_stderr(&streams.stderr).map_err(told("cannot set stderr"))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // The agent beside another init is spared when memory ends; what it starts is not.
    if rustix::process::getppid().is_some_and(|parent| !parent.is_init()) {
        let _ = fs_err::write("/proc/self/oom_score_adj", "0");
    }
    let (soft, hard) = OPEN_FILES;
    let limit = Rlimit {
        current: Some(soft),
        maximum: Some(hard),
    };
    setrlimit(Resource::Nofile, limit).map_err(told("cannot set the limit of open files"))?;
    // As root: the directory may be one that only its owner enters.
    rustix::process::chdir(surroundings.cwd.as_c_str())
        .map_err(told("cannot enter the working directory"))?;
    let groups: Vec<Gid> = surroundings
        .identity
        .groups
        .iter()
        .map(|gid| Gid::from_raw(*gid))
        .collect();
    rustix::thread::set_thread_groups(&groups).map_err(told("cannot set the groups"))?;
    let (uid, gid) = (
        Uid::from_raw(surroundings.identity.uid),
        Gid::from_raw(surroundings.identity.gid),
    );
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(told("cannot set the group"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(told("cannot set the user"))
}

/// A reason as one byte for the pipe; [`reason_of`] reads it.
fn code(reason: FailureReason) -> u8 {
    reason.exit_code()
}

fn reason_of(code: u8) -> FailureReason {
    match code {
        126 => FailureReason::CannotExecute,
        127 => FailureReason::NotFound,
        _ => FailureReason::Setup,
    }
}
