//! Descriptors that a child inherits, at numbers that the parent chooses.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};

/// Lets the child that `command` starts inherit descriptors, each at the number beside it (3 or more).
///
/// The descriptors belong to `command` from now on and are closed with it. Call it once for a command. In the parent the
/// chosen numbers are kept busy until then, so that no descriptor which the spawning itself needs can be at one of them.
///
/// # Errors
/// `EINVAL` for a number below 3 or one that is given twice; when the process has no descriptor left.
pub fn pass_fds(command: &mut Command, fds: Vec<(OwnedFd, RawFd)>) -> io::Result<()> {
    let Some(above) = fds.iter().map(|(_, number)| *number).max() else {
        return Ok(());
    };
    let repeated = fds
        .iter()
        .enumerate()
        .any(|(index, (_, number))| fds[..index].iter().any(|(_, n)| n == number));
    if repeated || fds.iter().any(|(_, number)| *number < 3) || above >= 1 << 16 {
        return Err(io::Error::from(rustix::io::Errno::INVAL));
    }

    let mut placeholders = Vec::new();
    for (fd, number) in &fds {
        let held = fcntl_dupfd_cloexec(fd, *number)?;
        if held.as_raw_fd() == *number {
            placeholders.push(held);
        }
    }
    let mut raised = vec![-1; fds.len()];
    let place = move || {
        let _held = &placeholders;
        // First out of the way of every target, then to it: a source may have a number that is another's target.
        for (slot, (fd, _)) in raised.iter_mut().zip(&fds) {
            // SAFETY: `fd` is open; F_DUPFD_CLOEXEC makes a new descriptor and touches no memory.
            *slot = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above + 1) };
            if *slot < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (slot, (_, number)) in raised.iter().zip(&fds) {
            // SAFETY: this is the child before exec: what had this number is a placeholder or not needed any more.
            if unsafe { libc::dup2(*slot, *number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec `place` only calls fcntl and dup2, which are async-signal-safe, and writes to memory
    // that was allocated before; `last_os_error` does not allocate.
    unsafe { command.pre_exec(place) };
    Ok(())
}

/// Lets the child lead a session of its own, so that no terminal and no job control of ours reaches it: `setsid(2)`.
pub fn new_session(command: &mut Command) {
    let lead = || {
        // SAFETY: setsid has no memory effects; a fresh child leads no process group, so it cannot fail.
        unsafe { libc::setsid() };
        Ok(())
    };
    // SAFETY: setsid is async-signal-safe.
    unsafe { command.pre_exec(lead) };
}

/// Ties the life of the child that `command` starts to a descriptor: it gets one end of a pair of sockets as its standard
/// input, and when the other end, which this gives, is closed (or the process that holds it dies, however it does), the
/// kernel kills the child with `SIGKILL`.
///
/// The signal of [`confine`](crate::confine::confine) is forgotten when a process changes its user by itself; this one is
/// not (`fcntl(2)`: `F_SETOWN`, `F_SETSIG`, `O_ASYNC`). It lasts through `execve`, as long as the program leaves its
/// standard input alone, but not through a fork. Call it before `confine`: the sender's rights are those of the moment.
///
/// Nothing may ever be written to the end that is given: that would kill, too.
///
/// # Errors
/// When the process has no descriptor left.
pub fn tether(command: &mut Command) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    command.stdin(std::process::Stdio::from(theirs));
    let tie = || {
        // SAFETY: getpid has no effects and cannot fail.
        let child = unsafe { libc::getpid() };
        // SAFETY: takes numbers only.
        check(unsafe { libc::fcntl(0, libc::F_SETOWN, child) })?;
        // SAFETY: takes numbers only.
        check(unsafe { libc::fcntl(0, F_SETSIG, libc::SIGKILL) })?;
        // SAFETY: takes numbers only.
        let flags = unsafe { libc::fcntl(0, libc::F_GETFL) };
        check(flags)?;
        // SAFETY: takes numbers only.
        check(unsafe { libc::fcntl(0, libc::F_SETFL, flags | libc::O_ASYNC) })
    };
    // SAFETY: between fork and exec `tie` makes system calls only; `last_os_error` does not allocate.
    unsafe { command.pre_exec(tie) };
    Ok(ours)
}

/// `linux/fcntl.h` (`asm-generic`); the libc crate has it for some targets only.
const F_SETSIG: libc::c_int = 10;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Takes over a descriptor that the parent left open at a number that both know, and marks it closed on exec.
///
/// For the start of `main`, before anything else opens descriptors. Each number can be taken once.
///
/// # Errors
/// `EBADF` when nothing is open there, when the number is below 3, or when it was taken before.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    let mut taken = TAKEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if number < 3 || taken.contains(&number) {
        return Err(io::Error::from(rustix::io::Errno::BADF));
    }
    // SAFETY: borrowed for one fcntl that only asks whether it is open.
    let seen = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(seen)?;
    // A descriptor of this program's own has the flag; one that came through exec cannot have it.
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(io::Error::from(rustix::io::Errno::BADF));
    }
    // SAFETY: it is open, came from the parent, and is handed out once.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&owned, FdFlags::CLOEXEC)?;
    taken.push(number);
    Ok(owned)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use super::{pass_fds, take_inherited, tether};

    fn pipe_with(text: &[u8]) -> OwnedFd {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::write(&write, text).unwrap();
        read
    }

    #[test]
    fn a_child_finds_descriptors_at_their_numbers() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "cat <&3; cat <&4; cat <&9"])
            .stdout(Stdio::piped());
        pass_fds(
            &mut command,
            vec![
                (pipe_with(b"a"), 4),
                (pipe_with(b"b"), 3),
                (pipe_with(b"c"), 9),
            ],
        )
        .unwrap();
        let mut child = command.spawn().unwrap();
        let mut text = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(text, "bac");
    }

    #[test]
    fn a_program_that_is_not_there_is_still_reported() {
        let mut command = Command::new("/no/such/program");
        pass_fds(
            &mut command,
            (3..12).map(|number| (pipe_with(b""), number)).collect(),
        )
        .unwrap();
        assert_eq!(
            command.spawn().unwrap_err().kind(),
            std::io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_tethered_child_dies_with_the_other_end() {
        use std::os::unix::process::ExitStatusExt;
        let mut command = Command::new("sh");
        // It has executed another program by then, and it says so.
        command
            .args(["-c", "exec sh -c 'echo there; exec sleep 60'"])
            .stdout(Stdio::piped());
        let end = tether(&mut command).unwrap();
        let mut child = command.spawn().unwrap();
        let mut there = [0; 6];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut there)
            .unwrap();
        assert!(child.try_wait().unwrap().is_none());
        drop(end);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn wrong_numbers_are_refused() {
        for numbers in [[2, 5], [5, 5]] {
            let fds = numbers.map(|number| (pipe_with(b""), number)).into();
            assert!(pass_fds(&mut Command::new("true"), fds).is_err());
        }
        assert!(take_inherited(0).is_err());
        assert!(take_inherited(60_000).is_err());
    }
}
