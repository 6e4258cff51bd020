//! Leaving and joining namespaces: `unshare(2)`, `setns(2)`.
#![allow(unsafe_code)]

use std::io;
use std::ops::BitOr;
use std::os::fd::BorrowedFd;

use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

/// A set of namespaces (`namespaces(7)`).
///
/// Only namespaces: the flags of `unshare(2)` that split the descriptor table or the address space of a process are not
/// sound in a program with threads and cannot be said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces(u32);

impl Namespaces {
    /// None.
    pub const NONE: Self = Self(0);
    /// Control group root.
    pub const CGROUP: Self = Self(UnshareFlags::NEWCGROUP.bits());
    /// System V IPC and POSIX message queues.
    pub const IPC: Self = Self(UnshareFlags::NEWIPC.bits());
    /// Mounts.
    pub const MOUNT: Self = Self(UnshareFlags::NEWNS.bits());
    /// Network devices, addresses, ports.
    pub const NET: Self = Self(UnshareFlags::NEWNET.bits());
    /// Process ids; takes effect for the children of the caller.
    pub const PID: Self = Self(UnshareFlags::NEWPID.bits());
    /// User and group ids, capabilities. Needs a caller with one thread.
    pub const USER: Self = Self(UnshareFlags::NEWUSER.bits());
    /// Host name.
    pub const UTS: Self = Self(UnshareFlags::NEWUTS.bits());
}

impl BitOr for Namespaces {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Puts the calling thread into new namespaces of its own: `unshare(2)`.
///
/// # Errors
/// `EPERM` without the capability, `ENOSPC` or `EUSERS` above a limit of `/proc/sys/user`, `EINVAL` for a kernel without
/// such namespaces or, with [`Namespaces::USER`], for a caller with several threads.
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    let flags = UnshareFlags::from_bits_retain(namespaces.0);
    // SAFETY: the only unsound flag is CLONE_FILES, which `Namespaces` cannot hold.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Moves the calling thread into the namespace that `link` names, an open file of `/proc/PID/ns`: `setns(2)`.
///
/// # Errors
/// `EINVAL` when the file is no namespace, `EPERM` without the capability in it.
pub fn join(link: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(link, None)?)
}

/// Moves the calling thread into those namespaces of a process that `namespaces` says, all or none.
///
/// # Errors
/// `ESRCH` when the process has ended, `EPERM` without the capability in one of them.
pub fn join_process(pidfd: BorrowedFd<'_>, namespaces: Namespaces) -> io::Result<()> {
    let types = ThreadNameSpaceType::from_bits_retain(namespaces.0);
    Ok(rustix::thread::move_into_thread_name_spaces(pidfd, types)?)
}

#[cfg(test)]
mod tests {
    use super::{Namespaces, unshare};

    #[test]
    fn flags_are_those_of_sched_h() {
        let all = Namespaces::CGROUP
            | Namespaces::IPC
            | Namespaces::MOUNT
            | Namespaces::NET
            | Namespaces::PID
            | Namespaces::USER
            | Namespaces::UTS;
        assert_eq!(all.0, 0x7E02_0000);
    }

    #[test]
    fn nothing_is_left_by_leaving_nothing() {
        unshare(Namespaces::NONE).unwrap();
    }
}
