//! Processes as descriptors: `pidfd_open(2)`.
//!
//! A descriptor of a process, unlike its number, can never mean another process later. It is readable when the process
//! has ended, so one `poll(2)` waits for processes and for anything else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, waitid};

use crate::process::Exit;

/// A descriptor for a process, closed on exec.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn open(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal.
///
/// # Errors
/// `ESRCH` when the process has ended, `EPERM` when it is somebody else's.
pub fn signal(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    Ok(rustix::process::pidfd_send_signal(pidfd, signal)?)
}

/// Sends a signal by number, real-time signals included.
///
/// # Errors
/// As [`signal`]; `EINVAL` for a number that is no signal.
pub fn signal_raw(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    crate::signal::pidfd_send(pidfd, number)
}

/// Waits until a child ends, and reaps it.
///
/// # Errors
/// `ECHILD` when it is no child of the caller.
pub fn wait(pidfd: impl AsFd) -> io::Result<Exit> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(Exit::of(&status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps a child if it has ended; `None` while it runs.
///
/// # Errors
/// As [`wait`].
pub fn try_wait(pidfd: impl AsFd) -> io::Result<Option<Exit>> {
    let status = waitid(
        WaitId::PidFd(pidfd.as_fd()),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    )?;
    Ok(status.as_ref().map(Exit::of))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{Pid, Signal};

    use super::{open, signal, signal_raw, try_wait, wait};
    use crate::process::Exit;
    use std::os::fd::AsFd;

    #[test]
    fn a_child_is_watched_signalled_and_reaped() {
        // Waited for by its descriptor.
        #[allow(clippy::zombie_processes)]
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = open(Pid::from_child(&child)).unwrap();
        assert_eq!(try_wait(&pidfd).unwrap(), None);
        signal_raw(pidfd.as_fd(), 0).unwrap();
        assert!(signal_raw(pidfd.as_fd(), 4711).is_err());
        signal(&pidfd, Signal::KILL).unwrap();
        assert_eq!(wait(&pidfd).unwrap(), Exit::Signal(9));
        assert!(wait(&pidfd).is_err());
    }
}
