//! Signals as a descriptor, masks, default actions.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number, as `SIGTERM` is 15.
    pub number: i32,
    /// Who sent it; 0 for the kernel or a process that is not visible here.
    pub sender: i32,
}

/// Signals that are read instead of handled: `signalfd(2)`.
#[derive(Debug)]
pub struct SignalFd {
    fd: OwnedFd,
}

impl SignalFd {
    /// Blocks these signals for the calling thread (and threads and children that it makes later) and gives a descriptor
    /// that is readable when one is pending. Call it before any other thread is started.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals)?;
        mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: `set` is an initialised sigset_t; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave this descriptor to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// The next pending signal, if there is one. Equal standard signals that came close together are one.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub fn read(&self) -> io::Result<Option<Received>> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut buffer = [0u8; SIZE];
        match rustix::io::read(&self.fd, &mut buffer) {
            // signalfd_siginfo begins with ssi_signo, ssi_errno, ssi_code, ssi_pid, 4 bytes each.
            Ok(SIZE) => Ok(Some(Received {
                number: int_at(&buffer, 0),
                sender: int_at(&buffer, 12),
            })),
            Ok(_) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn int_at(buffer: &[u8], offset: usize) -> i32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&buffer[offset..offset + 4]);
    i32::from_ne_bytes(bytes)
}

/// Blocks signals for the calling thread: `pthread_sigmask(3)`.
///
/// # Errors
/// `EINVAL` for a number that is no signal.
pub fn block(signals: &[i32]) -> io::Result<()> {
    mask(libc::SIG_BLOCK, &set_of(signals)?)
}

/// Unblocks all signals of the calling thread.
///
/// # Errors
/// None in practice.
pub fn unblock_all() -> io::Result<()> {
    mask(libc::SIG_SETMASK, &set_of(&[])?)
}

/// Gives every signal its default action again, the ignored ones included: what a new program expects to find.
///
/// Only signals that are *ignored* survive `execve(2)`; handlers do not.
pub fn default_all() {
    for number in 1..=libc::SIGRTMAX() {
        if number == libc::SIGKILL || number == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL is a valid disposition for every signal; what cannot be set (32 and 33, which the C library
        // keeps) is refused and stays as it is.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Sends a signal by number to a process, or with 0 asks whether it is there: `kill(2)`.
///
/// # Errors
/// `ESRCH` when there is no such process, `EPERM`, `EINVAL`.
pub fn send(pid: Pid, number: i32) -> io::Result<()> {
    kill(pid.as_raw_nonzero().get(), number)
}

/// Sends a signal by number to a process group.
///
/// # Errors
/// As [`send`].
pub fn send_group(group: Pid, number: i32) -> io::Result<()> {
    kill(-group.as_raw_nonzero().get(), number)
}

/// Sends a signal to every process that the caller may signal, but itself and process 1: what an init does at the end.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn send_all(number: i32) -> io::Result<()> {
    kill(-1, number)
}

fn kill(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: kill has no memory effects; wrong arguments are refused.
    check(unsafe { libc::kill(pid, number) })
}

pub(crate) fn pidfd_send(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) takes a descriptor, a number, an optional siginfo and no flags.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            number,
            info,
            0u32,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn set_of(signals: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given.
    check(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
    // SAFETY: initialised just above.
    let mut set = unsafe { set.assume_init() };
    for number in signals {
        // SAFETY: an initialised set; a wrong number is refused.
        check(unsafe { libc::sigaddset(&raw mut set, *number) })?;
    }
    Ok(set)
}

fn mask(how: i32, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `set` is initialised; the old mask is not asked for.
    let code = unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code))
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::{SignalFd, block, send};

    #[test]
    fn a_signal_is_read_not_handled() {
        // A thread of its own: the mask is per thread, and the signal goes to the process, whose other threads of the
        // test harness do not block it. A real-time signal sent to the thread stays here.
        std::thread::spawn(|| {
            let signals = SignalFd::new(&[libc::SIGWINCH]).unwrap();
            assert_eq!(signals.read().unwrap(), None);
            // SIGWINCH is ignored by default: whichever thread gets it, nothing dies.
            send(rustix::process::getpid(), libc::SIGWINCH).unwrap();
            let _ = signals.read().unwrap();
        })
        .join()
        .unwrap();
        assert!(block(&[4711]).is_err());
    }

    #[test]
    fn the_layout_of_signalfd_siginfo() {
        assert_eq!(size_of::<libc::signalfd_siginfo>(), 128);
        assert_eq!(offset_of!(libc::signalfd_siginfo, ssi_signo), 0);
        assert_eq!(offset_of!(libc::signalfd_siginfo, ssi_pid), 12);
    }
}
