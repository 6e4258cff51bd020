//! What the init has to tell: lines for the console and for the host.

use std::os::fd::OwnedFd;

use firebuild_guest_proto::message::one_line;
use firebuild_guest_proto::{GuestMessage, LogLevel, MessageLevel};
use rustix::fs::{Mode, OFlags};

/// More lines than this wait for the channel only if something repeats itself; the rest goes to the console alone.
const MAX_WAITING: usize = 64;

/// Takes lines, writes them to the console at once and keeps them until the channel takes them.
#[derive(Debug)]
pub(crate) struct Journal {
    console: Option<OwnedFd>,
    level: LogLevel,
    waiting: Vec<GuestMessage>,
}

impl Journal {
    /// A journal on the console of the file system that the kernel begins with, which has a node for it on most kernels:
    /// what fails before `/dev` is there is told too.
    pub(crate) fn new() -> Journal {
        Journal {
            console: open_console(),
            level: LogLevel::default(),
            waiting: Vec::new(),
        }
    }

    /// Opens the console, now that its device node is certainly there. A machine may have none.
    pub(crate) fn open_console(&mut self) {
        if let Some(console) = open_console() {
            self.console = Some(console);
        }
    }

    pub(crate) fn set_level(&mut self, level: LogLevel) {
        self.level = level;
    }

    /// Something makes the machine fail.
    pub(crate) fn error(&mut self, text: &str) {
        self.add(MessageLevel::Error, text);
    }

    /// Something is not as it was asked for.
    pub(crate) fn warning(&mut self, text: &str) {
        if self.level >= LogLevel::Warning {
            self.add(MessageLevel::Warning, text);
        }
    }

    /// A step was done; its line begins with the time since the kernel started.
    pub(crate) fn debug(&mut self, text: &str) {
        if self.level >= LogLevel::Debug {
            let milliseconds = crate::clock::uptime_ns() / 1_000_000;
            self.add(MessageLevel::Debug, &format!("{milliseconds} ms: {text}"));
        }
    }

    /// The lines that wait for the host.
    pub(crate) fn take(&mut self) -> Vec<GuestMessage> {
        std::mem::take(&mut self.waiting)
    }

    fn add(&mut self, level: MessageLevel, text: &str) {
        let text = one_line(text);
        if let Some(console) = &self.console {
            let name = match level {
                MessageLevel::Error => "error",
                MessageLevel::Warning => "warning",
                MessageLevel::Debug => "debug",
            };
            write_line(console, &format!("vminit: {name}: {text}\n"));
        }
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push(GuestMessage::Log { level, text });
        }
    }
}

/// The console, never as controlling terminal and never waited for: a console that nobody drains must not stop a machine.
pub(crate) fn open_console() -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open("/dev/console", flags, Mode::empty()).ok()
}

pub(crate) fn write_line(console: &OwnedFd, line: &str) {
    let mut bytes = line.as_bytes();
    while !bytes.is_empty() {
        match rustix::io::write(console, bytes) {
            Ok(count) if count > 0 => bytes = &bytes[count..],
            _ => break,
        }
    }
}
