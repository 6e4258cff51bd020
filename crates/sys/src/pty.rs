//! Pseudo-terminals: `pty(7)`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};

/// The two ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    /// What a terminal emulator holds.
    pub controller: OwnedFd,
    /// What a program gets as its standard streams.
    pub terminal: OwnedFd,
}

/// A size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A new pseudo-terminal; both ends are closed on exec and are nobody's controlling terminal.
///
/// # Errors
/// `ENOSPC` when the limit of `/proc/sys/kernel/pty/max` is reached, `ENOENT` without `/dev/ptmx`.
pub fn open() -> io::Result<Pty> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&controller)?;
    rustix::pty::unlockpt(&controller)?;
    // By descriptor, not by name: right in any mount namespace.
    let terminal = rustix::pty::ioctl_tiocgptpeer(&controller, flags)?;
    Ok(Pty {
        controller,
        terminal,
    })
}

/// Tells the kernel, and by `SIGWINCH` the programs, how large the terminal is.
///
/// # Errors
/// `ENOTTY` when the descriptor is no terminal.
pub fn set_size(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// Makes the calling process a session leader with this terminal as its controlling one: `setsid(2)`, `TIOCSCTTY`.
///
/// # Errors
/// `EPERM` when the caller leads a process group already.
pub fn become_controlling(terminal: impl AsFd) -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

#[cfg(test)]
mod tests {
    use super::{Size, open, set_size};

    #[test]
    fn what_one_end_writes_the_other_reads() {
        let pty = open().unwrap();
        set_size(
            &pty.controller,
            Size {
                rows: 7,
                columns: 9,
            },
        )
        .unwrap();
        let size = rustix::termios::tcgetwinsize(&pty.terminal).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (7, 9));
        rustix::io::write(&pty.terminal, b"x").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(rustix::io::read(&pty.controller, &mut buffer).unwrap(), 1);
    }
}
