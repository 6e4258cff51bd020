//! The socket between a sandbox's two halves: frames with descriptors.
//!
//! ```text
//!  u32 length of the body | u8 kind | body …        descriptors come with the first byte
//! ```
//!
//! Both ends are this program, and what runs in a step never sees the socket; the limits guard against mistakes.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest body. A job with its secrets and its environment is the largest frame.
const MAX_BODY: usize = 64 << 20;

/// How many descriptors one frame carries at most; the kernel takes 253.
pub const MAX_FDS: usize = 64;

const HEADER: usize = 5;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message as JSON.
    Message,
    /// Some entries of a layer (see [`crate::codec`]).
    Entries,
}

/// A received frame.
#[derive(Debug)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub body: Vec<u8>,
    /// The descriptors that came along.
    pub fds: Vec<OwnedFd>,
}

/// One end of the socket.
#[derive(Debug)]
pub struct Link(UnixStream);

impl Link {
    /// The two ends of a new socket; the other one becomes a child's standard input.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (mine, other) = UnixStream::pair()?;
        Ok((Self(mine), other.into()))
    }

    /// The end that this process was given.
    pub fn new(socket: OwnedFd) -> Self {
        Self(UnixStream::from(socket))
    }

    /// Says that nothing more will be sent: the other side is to give up what it does.
    pub fn close_sending(&self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Sends a message, with descriptors.
    pub fn say(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(message).map_err(io::Error::other)?;
        self.send(Kind::Message, &body, fds)
    }

    /// Sends a frame.
    pub fn send(&self, kind: Kind, body: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let length = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= MAX_BODY);
        let length = length.ok_or_else(|| {
            io::Error::other(format!("a frame of {} bytes is too long", body.len()))
        })?;
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4] = kind as u8;

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other(format!(
                "{} descriptors are too many for a frame",
                fds.len()
            )));
        }
        let parts = [IoSlice::new(&header), IoSlice::new(body)];
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL)
        })?;
        let rest_of_header = header.get(sent..).unwrap_or_default();
        (&self.0).write_all(rest_of_header)?;
        (&self.0).write_all(&body[sent.saturating_sub(HEADER).min(body.len())..])
    }

    /// Waits for the next frame; none at the end.
    pub fn receive(&self) -> io::Result<Option<Frame>> {
        let mut header = [0; HEADER];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut header)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        (&self.0).read_exact(&mut header[received.bytes..])?;
        let [a, b, c, d, kind] = header;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let kind = match kind {
            0 => Kind::Message,
            1 => Kind::Entries,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("unknown kind of frame {kind}"),
                ));
            }
        };
        if length > MAX_BODY {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a frame of {length} bytes is too long"),
            ));
        }
        let mut body = vec![0; length];
        (&self.0).read_exact(&mut body)?;
        Ok(Some(Frame { kind, body, fds }))
    }

    /// Waits for a message.
    pub fn hear<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        match self.receive()? {
            Some(frame) => Ok(Some((frame.message()?, frame.fds))),
            None => Ok(None),
        }
    }
}

impl Frame {
    /// The message that the frame is.
    pub fn message<T: DeserializeOwned>(&self) -> io::Result<T> {
        if self.kind != Kind::Message {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message was expected, entries came",
            ));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::{Kind, Link};

    #[test]
    fn frames_and_descriptors_arrive_in_order() {
        let (one, other) = Link::pair().unwrap();
        let two = Link::new(other);
        let big = vec![7u8; 3 << 20];
        let (read, write) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                one.say(&"first", &[]).unwrap();
                one.say(&2u32, &[read.as_fd(), write.as_fd()]).unwrap();
                one.send(Kind::Entries, &big, &[]).unwrap();
                one.send(Kind::Entries, &[], &[]).unwrap();
                one.close_sending();
            });
            assert_eq!(two.hear::<String>().unwrap().unwrap().0, "first");
            let (number, mut fds) = two.hear::<u32>().unwrap().unwrap();
            assert_eq!((number, fds.len()), (2, 2));
            rustix::io::write(fds.pop().unwrap(), b"hello").unwrap();
            assert_eq!(two.receive().unwrap().unwrap().body, big);
            let empty = two.receive().unwrap().unwrap();
            assert_eq!((empty.kind, empty.body.len()), (Kind::Entries, 0));
            assert!(empty.message::<u32>().is_err());
            assert!(two.receive().unwrap().is_none());
        });
        drop(write);
        let mut text = String::new();
        let mut read = read;
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
}
