//! Processes of our own: fork, wait, death with the parent.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, OFlags, statat};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, waitid};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It left with this code, 0 to 255.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The code that a shell would give: the code itself, or 128 and the signal.
    #[must_use]
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    pub(crate) fn of(status: &WaitIdStatus) -> Self {
        if let Some(code) = status.exit_status() {
            return Self::Code(code);
        }
        Self::Signal(status.terminating_signal().unwrap_or(0))
    }
}

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The child; a copy of everything, with the same descriptors.
    Child,
    /// The parent, with the child to wait for.
    Parent(Pid),
}

/// Whether the calling process has exactly one thread.
///
/// # Errors
/// When `/proc` is not there.
pub fn has_one_thread() -> io::Result<bool> {
    // The directory has `.`, `..` and one directory for each thread (`proc_pid_task(5)`).
    Ok(statat(CWD, "/proc/self/task", AtFlags::empty())?.st_nlink == 3)
}

/// Duplicates the calling process: `fork(2)`.
///
/// Sound only in a process with one thread, because a second one could hold a lock (of the allocator, for one) that
/// nobody would release in the child; that is checked. Made for the small helpers that a program starts of itself.
///
/// # Errors
/// `EDEADLK` ([`io::ErrorKind::Deadlock`]) for a process with several threads, `EAGAIN` above a limit.
pub fn fork() -> io::Result<Fork> {
    if !has_one_thread()? {
        return Err(io::Error::from(rustix::io::Errno::DEADLK));
    }
    // SAFETY: this is the only thread, so the child finds every lock free and all memory consistent.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(
            Pid::from_raw(pid).expect("fork gives a positive id to the parent"),
        )),
    }
}

/// Waits for a child to end and reaps it.
///
/// # Errors
/// `ECHILD` when it is no child of the caller.
pub fn wait(child: Pid) -> io::Result<Exit> {
    loop {
        match waitid(WaitId::Pid(child), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(Exit::of(&status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Leaves at once, without destructors, exit handlers or flushing: `_exit(2)`.
///
/// For the child of a [`fork`], whose buffers and temporary files belong to its parent.
pub fn leave(code: i32) -> ! {
    // SAFETY: `_exit` takes any code and does not return.
    unsafe { libc::_exit(code) }
}

/// Asks for `SIGKILL` when the parent ends: `PR_SET_PDEATHSIG(2const)`.
///
/// The kernel forgets it when the caller changes its ids or executes a set-id program: call it after that. `parent` is who
/// must still be the parent, `None` where its id is not visible (the parent is outside of the pid namespace).
///
/// # Errors
/// `ESRCH` when the parent has ended already, so that the signal will never come.
pub fn die_with_parent(parent: Option<Pid>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() == parent {
        Ok(())
    } else {
        Err(rustix::io::Errno::SRCH.into())
    }
}

/// Makes orphaned descendants children of the caller: `PR_SET_CHILD_SUBREAPER(2const)`.
///
/// # Errors
/// Those of `prctl(2)`.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

/// Replaces the program of this process; returns only to say why it could not: `execve(2)`.
///
/// `program` is a path, not looked up anywhere, and what is no program is not given to a shell. Signals are unblocked and
/// have their default actions, as a new program expects.
#[must_use]
pub fn exec(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    crate::signal::default_all();
    if let Err(error) = crate::signal::unblock_all() {
        return error;
    }
    // SAFETY: three strings or lists of strings that end with NUL or null, and live until the call replaces everything
    // or returns.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Marks all descriptors from `first` on as closed on exec, whoever opened them: `close_range(2)`.
///
/// # Errors
/// `ENOSYS` before Linux 5.9, `EINVAL` for the flag before 5.11.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the flag changes what exec does and closes nothing now, so every descriptor stays what its owner thinks.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A second descriptor for the standard input of this process, which is replaced by `/dev/null`.
///
/// For a helper that talks to its parent over its standard input and whose own children shall not.
///
/// # Errors
/// When `/dev/null` cannot be opened.
pub fn take_stdin() -> io::Result<std::os::fd::OwnedFd> {
    let taken = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    rustix::stdio::dup2_stdin(null.as_fd())?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::{Exit, exec, fork, has_one_thread};

    #[test]
    fn a_test_has_threads_and_may_not_fork() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(!has_one_thread().unwrap());
                assert_eq!(fork().unwrap_err().kind(), std::io::ErrorKind::Deadlock);
            });
        });
    }

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let error = exec(c"/no/such/program", &[], &[]);
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn codes_are_those_of_a_shell() {
        assert_eq!(Exit::Code(3).shell_code(), 3);
        assert_eq!(Exit::Signal(9).shell_code(), 137);
    }
}
