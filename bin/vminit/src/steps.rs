//! The guest of a build: tasks in place of an application.
//!
//! ```text
//!   host ── Task, streams ──▶ PID 1 ──pipes──▶ task process (this program again) ──▶ step
//!        ◀─ streams ─────────       ◀─pipes──
//!        ◀─ Connect ─────────       ◀─ a socket of the task     (an SSH agent of the host)
//! ```
//!
//! PID 1 only moves bytes: what a task is and does is `firebuild_sandbox::task`. A task whose result the host stops is
//! killed. The machine ends when the host says so, or has gone.

mod sockets;
mod tasks;

use std::ffi::OsStr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use firebuild_guest_proto::{GuestMessage, Hello, HostMessage, Limits, RootLayout};
use firebuild_sys::signal::SignalFd;
use firebuild_sys::spawn;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::WaitOptions;

use crate::channel::Link;
use crate::clock;
use crate::journal::Journal;
use crate::wait::timespec;
use tasks::Tasks;

/// The argument that makes this program the process of a task.
const TASK: &str = "task";
/// Where that process finds the pipe for its result.
const RESULT: i32 = 3;
/// How long a host that has gone away is waited for.
const HOST_GRACE: Duration = Duration::from_secs(5);
/// Streams that the host may have open: four for a task and two for a connection.
const STREAMS: usize = 1024;

/// What the host may open on the channel; nothing unless the guest runs steps.
pub(crate) fn limits(root: &RootLayout) -> Option<Limits> {
    matches!(root, RootLayout::Steps { .. }).then(|| Limits {
        peer_streams: STREAMS,
        ..Limits::default()
    })
}

/// When this process was started for a task, does it and gives the code to leave with.
pub(crate) fn task_main() -> Option<ExitCode> {
    if std::env::args_os().nth(1).as_deref() != Some(OsStr::new(TASK))
        || rustix::process::getpid().is_init()
    {
        return None;
    }
    let result = spawn::take_inherited(RESULT).ok()?;
    // Who reads the result sees that it is cut.
    Some(match firebuild_sandbox::task::work(result) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Takes tasks until the machine is to end.
pub(crate) fn serve(link: &mut Link, journal: &mut Journal, signals: &SignalFd) {
    journal.debug("tasks are taken");
    link.send(&GuestMessage::Ready, journal);
    let mut tasks = Tasks::default();
    loop {
        for line in journal.take() {
            link.send(&line, journal);
        }
        link.turn(journal);
        while let Some(message) = link.next_message(journal) {
            if !obey(message, &mut tasks, link, journal) {
                return;
            }
        }
        while let Ok(Some(_)) = signals.read() {}
        // Tasks and what their steps leave behind; the ends of pipes tell the host what it needs to know.
        while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::NOHANG) {
            tasks.ended(pid);
        }
        let moved = tasks.turn(&mut link.mux, journal);
        for connect in tasks.take_connects() {
            link.send(&connect, journal);
        }
        if link.gone_for() > HOST_GRACE {
            return journal.error("the host has gone");
        }
        if !moved {
            wait(link, &tasks, signals);
        }
    }
}

/// Does what the host says; false when that is to end.
fn obey(message: HostMessage, tasks: &mut Tasks, link: &mut Link, journal: &mut Journal) -> bool {
    match message {
        HostMessage::Hello(hello) => {
            if let Err(error) = Hello::new(Vec::new(), None).negotiate(&hello) {
                journal.error(&error.to_string());
            }
            if let Some(unix) = hello.unix_ns {
                clock::set(unix, journal);
            }
        }
        HostMessage::Task(order) => {
            if let Err(error) = tasks.start(&order, &mut link.mux) {
                journal.error(&format!("cannot start task {}: {error}", order.task));
            }
        }
        HostMessage::Connected {
            task,
            socket,
            to_guest,
            to_host,
        } => tasks.connected((task, socket), to_guest, to_host, &mut link.mux),
        HostMessage::Ping => link.send(&GuestMessage::Pong, journal),
        HostMessage::Shutdown { .. } | HostMessage::ExitAck => return false,
        HostMessage::Clock { unix_ns } => clock::set(unix_ns, journal),
        HostMessage::Signal { .. }
        | HostMessage::WindowSize(_)
        | HostMessage::Metadata { .. }
        | HostMessage::Session(_)
        | HostMessage::SessionSignal { .. }
        | HostMessage::SessionWindowSize { .. }
        | HostMessage::SessionClose { .. } => {
            journal.warning("a message for an application came, and there is none");
        }
    }
    true
}

fn wait(link: &mut Link, tasks: &Tasks, signals: &SignalFd) {
    let timeout = link
        .wake_at()
        .map(|at| timespec(at.saturating_duration_since(Instant::now())));
    let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
    fds.extend(
        tasks
            .interest(&link.mux)
            .into_iter()
            .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)),
    );
    if let Some((fd, flags)) = link.interest() {
        fds.push(PollFd::from_borrowed_fd(fd, flags));
    }
    // An interrupted wait is a wait that is over.
    let _ = poll(&mut fds, timeout.as_ref());
}
