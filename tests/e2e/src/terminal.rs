//! A terminal for a program under test, and somebody in front of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long something may take to appear on the screen, in seconds.
const PATIENCE: i64 = 60;

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Terminal {
    screen: File,
    terminal: OwnedFd,
    seen: String,
}

impl Terminal {
    /// A terminal of a size.
    ///
    /// # Panics
    /// When the kernel has none.
    #[must_use]
    pub fn new(rows: u16, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags).expect("there are terminals");
        grantpt(&controller).expect("it is ours");
        unlockpt(&controller).expect("it is ours");
        let terminal = ioctl_tiocgptpeer(&controller, flags).expect("it has another end");
        let terminal = Self {
            screen: File::from(controller),
            terminal,
            seen: String::new(),
        };
        terminal.resize(rows, columns);
        terminal
    }

    /// Gives it another size. Nobody is told.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.terminal, size).expect("a terminal has a size");
    }

    /// The end for the program.
    ///
    /// # Panics
    /// When no descriptor is left.
    #[must_use]
    pub fn end(&self) -> OwnedFd {
        self.terminal.try_clone().expect("descriptors are left")
    }

    /// Whether it is as a shell leaves it: lines are edited and shown.
    ///
    /// # Panics
    /// When it cannot be asked.
    #[must_use]
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.terminal)
            .expect("it is a terminal")
            .local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Types something.
    ///
    /// # Panics
    /// When the terminal does not take it.
    pub fn type_in(&mut self, text: &str) {
        self.screen
            .write_all(text.as_bytes())
            .expect("a terminal takes what is typed");
    }

    /// Waits until something is on the screen; it and what was there before it are forgotten.
    ///
    /// # Panics
    /// When it does not come.
    pub fn expect(&mut self, wanted: &str) {
        let mut buffer = [0; 1024];
        let end = loop {
            if let Some(at) = self.seen.find(wanted) {
                break at + wanted.len();
            }
            let mut fds = [PollFd::new(&self.screen, PollFlags::IN)];
            let timeout = Timespec {
                tv_sec: PATIENCE,
                tv_nsec: 0,
            };
            let ready = poll(&mut fds, Some(&timeout)).expect("poll works");
            assert!(ready > 0, "{wanted:?} did not come:\n{}", self.seen);
            let count = self.screen.read(&mut buffer).unwrap_or(0);
            assert!(count > 0, "{wanted:?} did not come:\n{}", self.seen);
            self.seen
                .push_str(&String::from_utf8_lossy(&buffer[..count]));
        };
        self.seen.drain(..end);
    }
}
