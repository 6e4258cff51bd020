//! One step from its root to its end, and what it left.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use firebuild_sys::namespace::{self, Namespaces};
use firebuild_sys::process::{self, Exit, Fork};
use firebuild_sys::{net, pidfd, rlimit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::place::{self, Stub};
use super::{Result, files, program, remove, root};
use crate::job::{
    Failure, FailureKind, MOUNTPOINT, MountJobKind, Reply, Scope, Status, StepJob, UPPER, WORK,
};
use crate::wire::Link;

fn host<E: std::error::Error + 'static>(message: &'static str) -> impl FnOnce(E) -> Failure {
    Failure::because(FailureKind::Host, message)
}

/// What the step's process says before it becomes the step's program.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// Everything is set up; these places were made for mounts.
    Ready(Vec<Stub>),
    Failed(Failure),
}

/// What a step has from who starts it.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Whose ids it has.
    pub scope: Scope,
    /// The soft limit of open files.
    pub open_files: Option<u64>,
}

/// Runs the step, tells how it ended and, when it is asked for, what it changed; leaves nothing but its upper directory,
/// if that.
pub(super) fn run(link: &Link, job: &StepJob, surroundings: Surroundings) -> Result<()> {
    let (status, upper) = perform(job, surroundings, Some(link.as_fd()))?;
    let status = Status::from(status);
    link.say(&Reply::Exited { status }, &[])
        .map_err(Failure::because(
            FailureKind::Cancelled,
            "nobody waits for the step",
        ))?;
    if let Some(upper) = upper.filter(|_| job.capture) {
        files::capture(link, &upper)?;
    }
    super::done(link)
}

/// Runs the step in the calling process, which has one thread and is of no other use afterwards: its standard output and
/// error are the step's, and are let go of. Gives how the step ended and, when it succeeded, its upper directory.
///
/// When `given_up` becomes readable or is closed, the step is killed.
///
/// # Errors
/// When the step could not be run.
pub fn perform(
    job: &StepJob,
    surroundings: Surroundings,
    given_up: Option<BorrowedFd<'_>>,
) -> Result<(Exit, Option<OwnedFd>)> {
    let result = prepare(job).and_then(|()| execute(given_up, job, surroundings));
    let succeeded = matches!(result, Ok((Exit::Code(0), _)));
    // Before the end is told, so that nobody waits for it twice.
    clean_up(job, succeeded)?;
    let (status, stubs) = result?;
    if !succeeded {
        return Ok((status, None));
    }
    let path = job.root.directory.join(UPPER);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let upper = rustix::fs::open(&path, flags, Mode::empty()).map_err(Failure::because(
        FailureKind::Layer,
        "cannot open what the step has changed",
    ))?;
    place::remove_stubs(upper.as_fd(), &stubs);
    Ok((status, Some(upper)))
}

/// Removes what the step's mounts needed, and without success its upper directory, too.
fn clean_up(job: &StepJob, succeeded: bool) -> Result<()> {
    let directory = &job.root.directory;
    let own = if succeeded && job.root.copy {
        vec![directory.join(MOUNTPOINT)]
    } else if succeeded {
        vec![directory.join(WORK)]
    } else {
        vec![directory.clone()]
    };
    let mounts = job.mounts.iter().filter_map(|mount| match &mount.kind {
        MountJobKind::Bind {
            directory, lowers, ..
        } if mount.needs_directory(lowers) => Some(directory.clone()),
        _ => None,
    });
    for path in mounts.chain(own) {
        remove::tree(&path).map_err(Failure::because(
            FailureKind::Host,
            format!("cannot remove {}", path.display()),
        ))?;
    }
    Ok(())
}

/// Makes the directories of an overlay. The root of the new file system has the properties of the one below.
fn prepare(job: &StepJob) -> Result<()> {
    let make = |path: &Path, mode: u32| match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(Failure::caused(
            FailureKind::Host,
            format!("cannot make {}", path.display()),
            &error,
        )),
    };
    let directory = &job.root.directory;
    if job.root.copy {
        make(&directory.join(MOUNTPOINT), 0o700)?;
    } else {
        make(&directory.join(WORK), 0o700)?;
        let upper = directory.join(UPPER);
        make(&upper, 0o755)?;
        if let Some(below) = job.root.lowers.last() {
            like(&upper, below).map_err(host(
                "cannot give the step's root the properties of its base",
            ))?;
        }
    }
    for mount in &job.mounts {
        if let MountJobKind::Bind {
            directory, lowers, ..
        } = &mount.kind
            && mount.needs_directory(lowers)
        {
            make(directory, 0o700)?;
            make(&directory.join(MOUNTPOINT), 0o700)?;
            if !mount.read_only {
                make(&directory.join(WORK), 0o700)?;
                make(&directory.join(UPPER), 0o755)?;
            }
        }
    }
    Ok(())
}

/// Gives a directory the owner, mode, attributes and time of another one.
fn like(directory: &Path, model: &Path) -> rustix::io::Result<()> {
    use rustix::fs::{Gid, Timespec, Timestamps, Uid, fchmod, fchown, futimens};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (to, from) = (
        rustix::fs::open(directory, flags, Mode::empty())?,
        rustix::fs::open(model, flags, Mode::empty())?,
    );
    let stat = rustix::fs::fstat(&from)?;
    fchown(
        &to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0u8; 64 << 10];
    let length = rustix::fs::flistxattr(&from, &mut names).unwrap_or(0);
    let mut value = vec![0u8; 64 << 10];
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        if let Ok(length) = rustix::fs::fgetxattr(&from, name, &mut value) {
            // Labels of the host's policy cannot be set, and need not be.
            let _ =
                rustix::fs::fsetxattr(&to, name, &value[..length], rustix::fs::XattrFlags::empty());
        }
    }
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
    };
    futimens(
        &to,
        &Timestamps {
            last_access: time,
            last_modification: time,
        },
    )
}

/// The pipes between the job process, the guardian and the step.
struct Pipes {
    /// A [`Report`], then the end.
    report: (OwnedFd, OwnedFd),
    /// How the step ended, from the guardian.
    status: (OwnedFd, OwnedFd),
    /// Nothing is ever written: its end says that the job process is gone.
    alive: (OwnedFd, OwnedFd),
}

/// Starts the step and waits for its end.
fn execute(
    given_up: Option<BorrowedFd<'_>>,
    job: &StepJob,
    surroundings: Surroundings,
) -> Result<(Exit, Vec<Stub>)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(host("cannot make a pipe"));
    let pipes = Pipes {
        report: pipe()?,
        status: pipe()?,
        alive: pipe()?,
    };
    namespace::unshare(Namespaces::PID).map_err(host("cannot make a pid namespace"))?;
    let guardian = match process::fork().map_err(host("cannot fork"))? {
        Fork::Child => guard(pipes, job, surroundings),
        Fork::Parent(guardian) => guardian,
    };
    let Pipes {
        report: (report, report_end),
        status: (status, status_end),
        alive: (_, _alive),
    } = pipes;
    drop((report_end, status_end));
    let guardian = Guardian::new(guardian)?;
    // The step's output ends when the step has ended, not when we do.
    silence()?;

    wait_for(given_up, &guardian.pidfd)?;
    guardian.reap()?;
    // Every writer has ended and the pipe holds a whole report (see [`tell`]).
    let mut text = Vec::new();
    std::fs::File::from(report)
        .read_to_end(&mut text)
        .map_err(host("cannot hear the step"))?;
    let stubs = match serde_json::from_slice(&text) {
        Ok(Report::Ready(stubs)) => stubs,
        Ok(Report::Failed(failure)) => return Err(failure),
        Err(_) => {
            return Err(Failure::new(
                FailureKind::Host,
                "the step's process was killed before it began",
            ));
        }
    };
    let mut word = [0; 8];
    let count =
        rustix::io::read(&status, &mut word).map_err(host("cannot hear how the step ended"))?;
    if count < word.len() {
        return Err(Failure::new(
            FailureKind::Host,
            "the step's guardian was killed",
        ));
    }
    Ok((decode(word), stubs))
}

fn encode(exit: Exit) -> [u8; 8] {
    let (kind, value) = match exit {
        Exit::Code(code) => (0i32, code),
        Exit::Signal(signal) => (1, signal),
    };
    let mut word = [0; 8];
    word[..4].copy_from_slice(&kind.to_ne_bytes());
    word[4..].copy_from_slice(&value.to_ne_bytes());
    word
}

fn decode(word: [u8; 8]) -> Exit {
    let [a, b, c, d, e, f, g, h] = word;
    let value = i32::from_ne_bytes([e, f, g, h]);
    if i32::from_ne_bytes([a, b, c, d]) == 0 {
        Exit::Code(value)
    } else {
        Exit::Signal(value)
    }
}

/// Process 1 of the namespace that holds everything which a step starts.
struct Guardian {
    pid: Pid,
    pidfd: OwnedFd,
    reaped: std::cell::Cell<bool>,
}

impl Guardian {
    fn new(pid: Pid) -> Result<Self> {
        match pidfd::open(pid) {
            Ok(pidfd) => Ok(Self {
                pid,
                pidfd,
                reaped: false.into(),
            }),
            Err(error) => {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                let _ = process::wait(pid);
                Err(host("cannot watch the step")(error))
            }
        }
    }

    fn reap(&self) -> Result<()> {
        self.reaped.set(true);
        process::wait(self.pid)
            .map(drop)
            .map_err(host("cannot wait for the step"))
    }
}

impl Drop for Guardian {
    /// Whatever way the job ends, nothing of the step outlives it.
    fn drop(&mut self) {
        if !self.reaped.get() {
            let _ = pidfd::signal(&self.pidfd, Signal::KILL);
            let _ = self.reap();
        }
    }
}

/// Waits until there is something to read, unless the parent gives up before.
fn wait_for(given_up: Option<BorrowedFd<'_>>, what: &OwnedFd) -> Result<()> {
    loop {
        let mut fds = vec![PollFd::new(what, PollFlags::IN)];
        fds.extend(given_up.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(host("cannot wait for the step")(error)),
        }
        // While a step runs the parent says nothing; what is there to read is the end.
        if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            return Err(Failure::new(FailureKind::Cancelled, "the step was stopped"));
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
    }
}

/// Lets go of the step's output streams.
fn silence() -> Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(host("cannot open /dev/null"))?;
    rustix::stdio::dup2_stdout(&null).map_err(host("cannot let go of the step's output"))?;
    rustix::stdio::dup2_stderr(&null).map_err(host("cannot let go of the step's output"))
}

/// The guardian: makes the step's namespaces, starts the step, waits for it. When it ends, all processes below end.
fn guard(pipes: Pipes, job: &StepJob, surroundings: Surroundings) -> ! {
    let Pipes {
        report: (_, report),
        status: (_, status),
        alive: (alive, alive_end),
    } = pipes;
    drop(alive_end);
    // The parent is in another pid namespace and has no number here, alive or not.
    if process::die_with_parent(None).is_err() || is_ended(&alive) {
        process::leave(1);
    }
    let started = (|| {
        let mut namespaces =
            Namespaces::PID | Namespaces::MOUNT | Namespaces::IPC | Namespaces::UTS;
        if job.own_network {
            namespaces = namespaces | Namespaces::NET;
        }
        namespace::unshare(namespaces).map_err(host("cannot make the step's namespaces"))?;
        process::fork().map_err(host("cannot fork"))
    })();
    match started {
        Ok(Fork::Child) => {
            drop((status, alive));
            become_step(report, job, surroundings)
        }
        Ok(Fork::Parent(step)) => {
            drop(report);
            if let Ok(exit) = process::wait(step) {
                let _ = rustix::io::write(&status, &encode(exit));
            }
            process::leave(0)
        }
        Err(failure) => {
            tell(&report, &failed(failure));
            process::leave(1)
        }
    }
}

fn is_ended(pipe: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::IN)];
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&zero)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// As much as a pipe takes without a reader: nobody reads the report before its writer has ended.
const MAX_REPORT: usize = 60 << 10;

/// The report of a step that is about to begin.
fn ready(stubs: Vec<Stub>) -> Result<Vec<u8>> {
    match serde_json::to_vec(&Report::Ready(stubs)) {
        Ok(text) if text.len() <= MAX_REPORT => Ok(text),
        _ => Err(Failure::new(
            FailureKind::Step,
            "the step needs too many or too long places for mounts",
        )),
    }
}

/// The report of a step that cannot begin.
fn failed(mut failure: Failure) -> Vec<u8> {
    failure.messages.truncate(8);
    for message in &mut failure.messages {
        // Characters of JSON may be six times as long.
        *message = message.chars().take(1000).collect();
    }
    serde_json::to_vec(&Report::Failed(failure)).unwrap_or_default()
}

fn tell(report: &OwnedFd, mut text: &[u8]) {
    while !text.is_empty() {
        match rustix::io::write(report, text) {
            Ok(count) => text = &text[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// The step's own process: builds the root, enters it, becomes the step's user, and executes its program.
fn become_step(report: OwnedFd, job: &StepJob, surroundings: Surroundings) -> ! {
    let scope = surroundings.scope;
    let started = (|| {
        // When memory runs out, the step goes before the builder does.
        let _ = fs_err::write("/proc/self/oom_score_adj", "500");
        if job.own_network {
            net::link_up("lo").map_err(host("cannot bring up the step's loopback"))?;
        }
        let root = root::build(job, scope)?;
        if let Some(soft) = surroundings.open_files {
            rlimit::set_open_files(soft).map_err(host("cannot limit the step's open files"))?;
        }
        let program = program::prepare(job, &root, scope)?;
        Ok((program, root.fd, ready(root.stubs)?))
    })();
    match started {
        Ok((program, root, text)) => {
            tell(&report, &text);
            drop((report, root));
            process::leave(program::execute(&program))
        }
        Err(failure) => {
            tell(&report, &failed(failure));
            process::leave(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use firebuild_sys::process::Exit;

    #[test]
    fn a_status_survives_the_pipe() {
        for exit in [Exit::Code(0), Exit::Code(255), Exit::Signal(9)] {
            assert_eq!(decode(encode(exit)), exit);
        }
    }
}
