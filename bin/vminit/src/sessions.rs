//! Sessions: what a host asks for beside the application (`firebuild_guest_proto::session`).
//!
//! ```text
//!   Reading ──work is whole──▶ Starting ──program runs──▶ Running ──ended, drained──▶ Reporting ──ends are sent──▶ gone
//!      └────── it cannot be started ──────┴───────────────────────────────────────────────▲
//! ```
//!
//! Every session is a process: a program of the image, or this one again for what is no program of the image
//! ([`helper`]). PID 1 moves bytes and never waits for any of them. When whoever asked has gone, the processes of the
//! session are killed, all of those in its control group where the kernel has one.

mod copy;
mod group;
mod helper;
mod processes;
mod sample;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{Command, Stdio as ChildStdio};

use firebuild_guest_proto::message::one_line;
use firebuild_guest_proto::session::{ExecWork, HeadReader, MAX_SESSIONS};
use firebuild_guest_proto::{
    EnvVar, ExitRecord, ExitStatus, FailureReason, GuestMessage, Incoming, Limits, Mux, RunConfig,
    SessionOrder, SessionWork, Signal, StreamId, WindowSize,
};
use firebuild_sys::signal::{send, send_group};
use firebuild_sys::{pty, spawn};
use rustix::event::PollFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use crate::clock;
use crate::error::InitError;
use crate::journal::Journal;
use crate::launch::{self, Application, Start, Streams, Surroundings};
use crate::stdio::{Ids, Stdio};
use crate::supervise::oom_kills;
use crate::user;
use group::Group;
pub(crate) use helper::main as helper_main;

/// What the host may open on the channel: three streams for each session, and some that have not ended yet.
pub(crate) fn limits() -> Limits {
    Limits {
        peer_streams: 4 * MAX_SESSIONS,
        ..Limits::default()
    }
}

/// What programs beside the application have in common with it.
#[derive(Debug)]
pub(crate) struct Common {
    env: Vec<EnvVar>,
    user: String,
    cwd: String,
    hostname: String,
}

impl Common {
    pub(crate) fn of(config: &RunConfig) -> Common {
        let cwd = if config.cwd.is_empty() {
            "/"
        } else {
            &config.cwd
        };
        Common {
            env: config.env.clone(),
            user: config.user.clone(),
            cwd: cwd.to_owned(),
            hostname: config.hostname.clone(),
        }
    }
}

/// All that are open.
#[derive(Debug)]
pub(crate) struct Sessions {
    common: Common,
    open: Vec<Session>,
    /// Control groups whose processes outlive their session: what a program left in the background.
    left: Vec<Group>,
    messages: Vec<GuestMessage>,
}

#[derive(Debug)]
struct Session {
    order: SessionOrder,
    group: Option<Group>,
    state: State,
    /// How its process has ended, once it has.
    ended: Option<ExitRecord>,
    /// How many processes the kernel had killed for want of memory when it began.
    oom_kills: u64,
}

#[derive(Debug)]
enum State {
    /// The work is still coming.
    Reading(HeadReader),
    /// The process is there, the program may not be executed yet.
    Starting {
        start: Start,
        detach: bool,
    },
    Running(Running),
    /// Over; the ends of its streams are on their way.
    Reporting(ExitRecord),
    Over,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    stdio: Stdio,
    terminal: Option<OwnedFd>,
}

impl Sessions {
    pub(crate) fn new(common: Common) -> Sessions {
        Sessions {
            common,
            open: Vec::new(),
            left: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Opens one.
    pub(crate) fn open(&mut self, order: SessionOrder) {
        let state = if self.open.len() < MAX_SESSIONS {
            State::Reading(HeadReader::default())
        } else {
            let text = format!("{MAX_SESSIONS} sessions are open already");
            State::Reporting(failure(FailureReason::Setup, &text))
        };
        self.open.push(Session {
            order,
            group: None,
            state,
            ended: None,
            oom_kills: oom_kills(),
        });
    }

    /// Sends a signal to the processes of one.
    pub(crate) fn signal(&mut self, number: u32, signal: Signal, journal: &mut Journal) {
        let pid = self.find(number).and_then(|session| session.pid());
        if let Some(pid) = pid
            && let Err(error) = send_group(pid, signal.number().into())
        {
            journal.debug(&format!("cannot signal session {number}: {error}"));
        }
    }

    /// Gives the terminal of one another size.
    pub(crate) fn resize(&mut self, number: u32, size: WindowSize, journal: &mut Journal) {
        let terminal = self.find(number).and_then(|session| match &session.state {
            State::Starting { start, .. } => start.application.terminal.as_ref(),
            State::Running(running) => running.terminal.as_ref(),
            _ => None,
        });
        let size = pty::Size {
            rows: size.rows,
            columns: size.columns,
        };
        if let Some(terminal) = terminal
            && let Err(error) = pty::set_size(terminal, size)
        {
            journal.debug(&format!(
                "cannot size the terminal of session {number}: {error}"
            ));
        }
    }

    /// Ends one whose client has gone.
    pub(crate) fn close(&mut self, number: u32, mux: &mut Mux) {
        if let Some(at) = self.open.iter().position(|one| one.order.session == number) {
            let mut session = self.open.swap_remove(at);
            session.kill();
            session.close_streams(mux);
            self.left.extend(session.group.take());
        }
    }

    /// A process has ended; says whether it was one of ours.
    pub(crate) fn ended(&mut self, pid: Pid, status: ExitStatus) -> bool {
        let Some(session) = self.open.iter_mut().find(|one| one.pid() == Some(pid)) else {
            return false;
        };
        let killed = ExitStatus::Signaled {
            signal: Signal::KILL,
            core_dumped: false,
        };
        let oom_killed = status == killed && oom_kills() > session.oom_kills;
        session.ended = Some(ExitRecord {
            oom_killed,
            ..record(status)
        });
        true
    }

    /// Moves what can be moved without waiting; says whether anything was.
    pub(crate) fn turn(&mut self, mux: &mut Mux) -> bool {
        let mut moved = false;
        for session in &mut self.open {
            moved |= session.turn(&self.common, mux, &mut self.messages);
        }
        let over = |session: &mut Session| matches!(session.state, State::Over);
        for mut session in self.open.extract_if(.., over) {
            self.left.extend(session.group.take());
        }
        if !self.left.is_empty() {
            self.left.retain(|group| !group.remove());
        }
        moved
    }

    /// Whether none is open: all of them are over, and that has been told.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What there is to tell the host.
    pub(crate) fn take_messages(&mut self) -> Vec<GuestMessage> {
        std::mem::take(&mut self.messages)
    }

    /// The descriptors to wait for.
    pub(crate) fn interest<'a>(&'a self, mux: &Mux) -> Vec<(BorrowedFd<'a>, PollFlags)> {
        let mut fds = Vec::new();
        for session in &self.open {
            match &session.state {
                State::Starting { start, .. } => fds.push((start.report(), PollFlags::IN)),
                State::Running(running) => fds.extend(running.stdio.interest(mux)),
                _ => {}
            }
        }
        fds
    }

    fn find(&self, number: u32) -> Option<&Session> {
        self.open.iter().find(|one| one.order.session == number)
    }
}

impl Session {
    fn pid(&self) -> Option<Pid> {
        // The number of a process that has been reaped may be another's by now.
        match &self.state {
            _ if self.ended.is_some() => None,
            State::Starting { start, .. } => Some(start.application.pid),
            State::Running(running) => Some(running.pid),
            _ => None,
        }
    }

    fn ids(&self) -> Ids {
        let [stdin, stdout, stderr] = self.order.streams();
        Ids {
            stdin,
            stdout,
            stderr,
        }
    }

    fn kill(&mut self) {
        // All that the program started, as far as the kernel can tell; else what shares its process group.
        let killed = self.group.as_ref().is_some_and(Group::kill);
        if let Some(pid) = self.pid()
            && !killed
        {
            let kill = Signal::KILL.number().into();
            let _ = send_group(pid, kill);
            let _ = send(pid, kill);
        }
    }

    fn close_streams(&self, mux: &mut Mux) {
        let ids = self.ids();
        mux.stop(ids.stdin);
        mux.end(ids.stdout);
        mux.end(ids.stderr);
    }

    /// One step; says whether anything moved.
    fn turn(&mut self, common: &Common, mux: &mut Mux, messages: &mut Vec<GuestMessage>) -> bool {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Reading(reader) => self.read(reader, common, mux, messages),
            State::Starting { start, detach } => self.started(start, detach, mux, messages),
            State::Running(running) => self.run(running, mux),
            State::Reporting(record) => {
                self.close_streams(mux);
                // Puts what there is into frames, so that the record comes after the last of it.
                mux.output();
                let ids = self.ids();
                if mux.is_sent(ids.stdout) && mux.is_sent(ids.stderr) {
                    let session = self.order.session;
                    messages.push(GuestMessage::SessionEnded { session, record });
                    return true;
                }
                self.state = State::Reporting(record);
                false
            }
            State::Over => false,
        }
    }

    fn read(
        &mut self,
        mut reader: HeadReader,
        common: &Common,
        mux: &mut Mux,
        messages: &mut Vec<GuestMessage>,
    ) -> bool {
        let input = self.ids().stdin;
        let taken = match mux.peek(input) {
            Incoming::Pending => {
                self.state = State::Reading(reader);
                return false;
            }
            Incoming::Ended => Err("its work was cut off".to_owned()),
            Incoming::Bytes(bytes) => reader
                .take::<SessionWork>(bytes)
                .map_err(|error| error.to_string()),
        };
        self.state = match taken {
            Ok((used, work)) => {
                mux.consume(input, used);
                match work {
                    None => State::Reading(reader),
                    Some(work) => self
                        .begin(work, common, mux, messages)
                        .unwrap_or_else(|error| State::Reporting(failed(&error))),
                }
            }
            Err(problem) => State::Reporting(failure(FailureReason::Setup, &problem)),
        };
        true
    }

    fn begin(
        &mut self,
        work: SessionWork,
        common: &Common,
        mux: &mut Mux,
        messages: &mut Vec<GuestMessage>,
    ) -> Result<State, InitError> {
        let SessionWork::Exec(work) = work else {
            let application = start_helper(&work)?;
            messages.push(self.runs(application.pid));
            return Ok(State::Running(self.running(application, mux)));
        };
        self.group = Group::make(self.order.session);
        let detach = work.detach;
        let start = start_program(work, common, self.group.as_ref())?;
        Ok(State::Starting { start, detach })
    }

    fn started(
        &mut self,
        mut start: Start,
        detach: bool,
        mux: &mut Mux,
        messages: &mut Vec<GuestMessage>,
    ) -> bool {
        self.state = match start.poll() {
            None => {
                self.state = State::Starting { start, detach };
                return false;
            }
            Some(Err(error)) => State::Reporting(failed(&error)),
            Some(Ok(())) => {
                let application = start.application;
                messages.push(self.runs(application.pid));
                if detach {
                    State::Reporting(record(ExitStatus::Exited { code: 0 }))
                } else {
                    State::Running(self.running(application, mux))
                }
            }
        };
        true
    }

    fn runs(&self, pid: Pid) -> GuestMessage {
        GuestMessage::SessionStarted {
            session: self.order.session,
            pid: pid.as_raw_nonzero().get().unsigned_abs(),
        }
    }

    fn running(&self, application: Application, mux: &mut Mux) -> Running {
        let ids = self.ids();
        let own = |id| {
            if id == StreamId::STDOUT {
                ids.stdout
            } else {
                ids.stderr
            }
        };
        let outputs = application.outputs.into_iter();
        let outputs = outputs.map(|(id, fd)| (own(id), fd)).collect();
        let is_terminal = application.terminal.is_some();
        Running {
            pid: application.pid,
            stdio: Stdio::new(ids, outputs, application.input, is_terminal, mux),
            terminal: application.terminal,
        }
    }

    fn run(&mut self, mut running: Running, mux: &mut Mux) -> bool {
        let moved = running.stdio.turn(mux);
        // What the program wrote before its end is in its pipes by then; a child that it left behind is not waited for.
        let is_drained =
            running.stdio.outputs_ended() || (!moved && !running.stdio.is_blocked(mux));
        if is_drained && let Some(record) = self.ended.clone() {
            running.stdio.abandon(mux);
            self.state = State::Reporting(record);
            return true;
        }
        self.state = State::Running(running);
        moved
    }
}

fn start_program(
    work: ExecWork,
    common: &Common,
    group: Option<&Group>,
) -> Result<Start, InitError> {
    let cannot = |text: String| InitError::new(FailureReason::CannotExecute, text);
    let identity = user::resolve(work.user.as_deref().unwrap_or(&common.user))?;
    let mut env = common.env.clone();
    env.retain(|known| !work.unset.contains(&known.name));
    for variable in work.env {
        match env.iter_mut().find(|known| known.name == variable.name) {
            Some(known) => *known = variable,
            None => env.push(variable),
        }
    }
    let cwd = work.cwd.as_deref().unwrap_or(&common.cwd);
    if !std::path::Path::new(cwd).is_dir() {
        return Err(cannot(format!("the working directory {cwd} is not there")));
    }
    let streams = match work.terminal {
        _ if work.detach => Streams::Nothing,
        Some(size) => Streams::Terminal(size),
        None => Streams::Pipes { stdin: work.stdin },
    };
    let has_terminal = matches!(streams, Streams::Terminal(_));
    let surroundings = Surroundings::of(&env, &common.hostname, cwd, has_terminal, identity)?;
    launch::begin(
        &work.argv,
        &surroundings,
        streams,
        group.and_then(Group::door),
    )
}

/// Starts this program again for what is none of the image's; the work is an argument, which holds no secrets.
fn start_helper(work: &SessionWork) -> Result<Application, InitError> {
    let broken = |error: std::io::Error| InitError::setup("cannot start a process", error);
    let text = serde_json::to_string(work).map_err(|error| broken(error.into()))?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| broken(error.into()));
    let (stdin, input) = pipe()?;
    let (stdout_end, stdout) = pipe()?;
    let (stderr_end, stderr) = pipe()?;
    for fd in [&input, &stdout_end, &stderr_end] {
        rustix::io::ioctl_fionbio(fd, true).map_err(|error| broken(error.into()))?;
    }
    // By the link, since the file has no name any more.
    let mut command = Command::new("/proc/self/exe");
    command
        .args([helper::NAME, &text])
        .env_clear()
        .current_dir("/")
        .stdin(ChildStdio::from(stdin))
        .stdout(ChildStdio::from(stdout))
        .stderr(ChildStdio::from(stderr));
    spawn::new_session(&mut command);
    let child = command.spawn().map_err(broken)?;
    Ok(Application {
        pid: Pid::from_child(&child),
        outputs: vec![
            (StreamId::STDOUT, stdout_end),
            (StreamId::STDERR, stderr_end),
        ],
        input: Some(input),
        terminal: None,
    })
}

fn record(status: ExitStatus) -> ExitRecord {
    ExitRecord {
        status,
        oom_killed: false,
        finished_unix_ns: clock::unix_ns(),
    }
}

fn failed(error: &InitError) -> ExitRecord {
    failure(error.reason(), &error.chain())
}

fn failure(reason: FailureReason, text: &str) -> ExitRecord {
    record(ExitStatus::Failed {
        reason,
        message: one_line(text),
    })
}
