//! The caller's terminal: raw while an application in the guest has one of its own, and as it was
//! afterwards.

use std::os::fd::{AsFd, OwnedFd};

use firebuild_guest_proto::WindowSize;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// A terminal in raw mode. Dropped, it is as it was.
#[derive(Debug)]
pub(crate) struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Puts a terminal into raw mode; `None` for anything that is no terminal.
    pub(crate) fn enter(terminal: impl AsFd) -> Option<Self> {
        if !isatty(&terminal) {
            return None;
        }
        let terminal = terminal.as_fd().try_clone_to_owned().ok()?;
        let before = tcgetattr(&terminal).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Drain, &raw).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// The size of a terminal; `None` for anything that is no terminal or does not know its size.
pub(crate) fn size(terminal: impl AsFd) -> Option<WindowSize> {
    let size = tcgetwinsize(terminal).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(WindowSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

#[cfg(test)]
mod tests {
    use firebuild_sys::pty;
    use rustix::termios::{LocalModes, tcgetattr};

    use super::{RawMode, size};

    #[test]
    fn raw_while_it_lives_and_restored_after() {
        let pty = pty::open().unwrap();
        let is_cooked = || {
            tcgetattr(&pty.terminal)
                .unwrap()
                .local_modes
                .contains(LocalModes::ICANON | LocalModes::ISIG)
        };
        assert!(is_cooked());
        let raw = RawMode::enter(&pty.terminal).unwrap();
        assert!(!is_cooked());
        drop(raw);
        assert!(is_cooked());

        assert_eq!(size(&pty.terminal), None, "nobody has set one");
        let wanted = pty::Size {
            rows: 40,
            columns: 100,
        };
        pty::set_size(&pty.terminal, wanted).unwrap();
        let seen = size(&pty.terminal).unwrap();
        assert_eq!((seen.rows, seen.columns), (40, 100));
    }

    #[test]
    fn a_pipe_is_no_terminal() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(RawMode::enter(&reader).is_none());
        assert_eq!(size(&reader), None);
    }
}
