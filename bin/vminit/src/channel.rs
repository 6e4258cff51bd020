//! The channel to the host: finding it, and moving bytes between it and the multiplexer.
//!
//! A virtio-serial port is a character device that one process opens. While nobody holds the other end, writing gives
//! `EAGAIN`, reading gives 0 and poll(2) gives `POLLHUP` at once; so a port whose host is away is not polled but looked at
//! from time to time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use firebuild_guest_proto::{
    Channel, Event, FailureReason, GuestMessage, HostMessage, Limits, Mux, Role,
};
use firebuild_sys::vsock;
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::InitError;
use crate::journal::Journal;
use crate::wait::Devices;

/// How often to look whether the host is back.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Reads from the channel in one turn, so that a host that never stops does not keep us from the rest.
const READS_PER_TURN: usize = 16;

/// The connection to the host.
#[derive(Debug)]
pub(crate) struct Link {
    fd: Option<OwnedFd>,
    /// Whether a host that has gone can come back.
    reconnects: bool,
    gone_since: Option<Instant>,
    pub(crate) mux: Mux,
    buffer: Vec<u8>,
}

impl Link {
    /// Finds and opens the channel. The host may open as many streams as `limits` says.
    pub(crate) fn open(
        channel: &Channel,
        devices: &Devices,
        limits: Limits,
    ) -> Result<Link, InitError> {
        let (fd, reconnects) = match channel {
            Channel::VirtioSerial { name } => (open_port(name, devices)?, true),
            Channel::Vsock { port } => (open_vsock(*port, devices)?, false),
        };
        Ok(Link {
            fd: Some(fd),
            reconnects,
            gone_since: None,
            mux: Mux::new(Role::Guest, limits),
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Queues a message. One that does not fit is told and lost: the host does not take its messages.
    pub(crate) fn send(&mut self, message: &GuestMessage, journal: &mut Journal) {
        let sent = message.encode().map_err(|error| error.to_string());
        let sent = sent.and_then(|bytes| {
            self.mux
                .send_control(&bytes)
                .map_err(|error| error.to_string())
        });
        if let Err(problem) = sent {
            journal.debug(&format!("a message to the host is lost: {problem}"));
        }
    }

    /// The descriptor and what to wait for; none while the host is away.
    pub(crate) fn interest(&mut self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        if self.gone_since.is_some() {
            return None;
        }
        let mut flags = PollFlags::IN;
        if !self.mux.output().is_empty() {
            flags |= PollFlags::OUT;
        }
        self.fd.as_ref().map(|fd| (fd.as_fd(), flags))
    }

    /// When to call [`Link::turn`] although nothing was reported.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        if self.fd.is_some() && self.gone_since.is_some() {
            Some(Instant::now() + LOOK_AGAIN)
        } else {
            None
        }
    }

    /// How long the host has been away.
    pub(crate) fn gone_for(&self) -> Duration {
        self.gone_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Moves what can be moved without waiting.
    pub(crate) fn turn(&mut self, journal: &mut Journal) {
        self.flush(journal);
        for _ in 0..READS_PER_TURN {
            let Some(fd) = &self.fd else { return };
            match rustix::io::read(fd, &mut self.buffer[..]) {
                Ok(0) => return self.host_left(),
                Ok(count) => {
                    self.gone_since = None;
                    if let Err(error) = self.mux.receive(&self.buffer[..count]) {
                        journal.error(&format!("the channel is closed: {error}"));
                        return self.close();
                    }
                }
                Err(Errno::AGAIN) => {
                    self.gone_since = None;
                    return;
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    journal.error(&format!("cannot read from the channel: {error}"));
                    return self.close();
                }
            }
        }
    }

    /// Writes what the host takes now.
    pub(crate) fn flush(&mut self, journal: &mut Journal) {
        loop {
            let Some(fd) = &self.fd else { return };
            let bytes = self.mux.output();
            if bytes.is_empty() {
                return;
            }
            match rustix::io::write(fd, bytes) {
                Ok(count) => self.mux.written(count),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => {
                    journal.error(&format!("cannot write to the channel: {error}"));
                    return self.close();
                }
            }
        }
    }

    /// The next message of the host.
    pub(crate) fn next_message(&mut self, journal: &mut Journal) -> Option<HostMessage> {
        loop {
            match self.mux.next_event()? {
                // The message that follows says what for.
                Event::Opened(_) => {}
                Event::Control(bytes) => match HostMessage::decode(&bytes) {
                    Ok(message) => return Some(message),
                    Err(error) => {
                        journal.warning(&format!("a message of the host is skipped: {error}"))
                    }
                },
            }
        }
    }

    fn host_left(&mut self) {
        if self.reconnects {
            self.gone_since.get_or_insert_with(Instant::now);
        } else {
            self.close();
        }
    }

    fn close(&mut self) {
        self.fd = None;
        self.gone_since.get_or_insert_with(Instant::now);
    }
}

fn open_port(name: &str, devices: &Devices) -> Result<OwnedFd, InitError> {
    let node = devices.find(|| port_node(name)).ok_or_else(|| {
        let text = format!(
            "no virtio-serial port named {name} has appeared (is its driver among the kernel's modules?)"
        );
        InitError::new(FailureReason::Setup, text)
    })?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(&node, flags, Mode::empty()).map_err(|error| {
        InitError::setup(format!("cannot open the channel {}", node.display()), error)
    })
}

/// The device node of the port with this name, once name and node are there.
fn port_node(name: &str) -> Option<PathBuf> {
    for entry in fs_err::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
        let found = fs_err::read_to_string(entry.path().join("name")).unwrap_or_default();
        if found.trim_end() == name {
            let node = PathBuf::from("/dev").join(entry.file_name());
            return node.exists().then_some(node);
        }
    }
    None
}

fn open_vsock(port: u32, devices: &Devices) -> Result<OwnedFd, InitError> {
    let mut last = None;
    let fd = devices.find(|| match vsock::connect(vsock::HOST_CID, port) {
        Ok(fd) => Some(Ok(fd)),
        // The device is not there yet.
        Err(error) if is_missing(&error) => {
            last = Some(error);
            None
        }
        Err(error) => Some(Err(error)),
    });
    let step = || format!("cannot connect to port {port} of the host by vsock");
    let fd = match (fd, last) {
        (Some(Ok(fd)), _) => fd,
        (Some(Err(error)), _) | (None, Some(error)) => return Err(InitError::setup(step(), error)),
        (None, None) => return Err(InitError::new(FailureReason::Setup, step())),
    };
    rustix::io::ioctl_fionbio(&fd, true).map_err(|error| InitError::setup(step(), error))?;
    Ok(fd)
}

fn is_missing(error: &std::io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NODEV | Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
    )
}
