//! The host's end of a channel: connected from the start, or a socket to which the guest will connect.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::SocketFlags;

/// The host's end of a channel.
#[derive(Debug)]
pub enum ChannelEnd {
    /// A connection; the guest's device is at its other end (QEMU).
    Connected(OwnedFd),
    /// A socket to which the VMM connects when the guest opens the channel (Firecracker's vsock).
    Listening(OwnedFd),
}

impl From<OwnedFd> for ChannelEnd {
    fn from(connection: OwnedFd) -> Self {
        Self::Connected(connection)
    }
}

impl ChannelEnd {
    /// The connection, or where it will come from; neither blocks.
    pub(super) fn open(self) -> io::Result<(Option<OwnedFd>, Option<OwnedFd>)> {
        let (Self::Connected(fd) | Self::Listening(fd)) = &self;
        let flags = rustix::fs::fcntl_getfl(fd)?;
        rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(match self {
            Self::Connected(fd) => (Some(fd), None),
            Self::Listening(fd) => (None, Some(fd)),
        })
    }
}

/// The connection, if somebody has connected.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        match rustix::net::accept_with(listener, flags) {
            Ok(connection) => return Ok(Some(connection)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
