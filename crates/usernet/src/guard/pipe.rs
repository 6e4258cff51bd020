//! The frames of one direction: read, looked at, written.
//!
//! **No frame follows an opening TCP segment of the guest to passt before passt has read that segment.** The passt of
//! Debian 12 takes the frames of one read together, those of a connection in one go, and looks at the first of them over and
//! over while it counts them off (`tcp_tap_handler` of 2023-03; upstream's "Correctly advance through packets", mended in
//! 2023-09). With SYN and a repeated SYN, or SYN+ACK and anything else, the count passes zero and passt never comes back:
//! the machine has no network any more. So such a segment is the last of what passt finds: a barrier stands behind it until
//! the socket is empty.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use firebuild_sys::unix;
use rustix::io::Errno;

use super::{Framing, Guard, MAX_FRAME_BYTES, opens};
use crate::meter::{Limit, Meter};

/// Bytes held for one direction.
const BUFFER_BYTES: usize = 256 * 1024;
const LENGTH_BYTES: usize = 4;
/// Between two looks whether an opening segment was read; doubled each time up to the second.
const FIRST_LOOK: Duration = Duration::from_micros(50);
const LAST_LOOK: Duration = Duration::from_millis(10);

/// Which way a pipe goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    FromGuest,
    ToGuest,
}

/// Bytes on their way in one direction.
#[derive(Debug)]
pub(super) struct Pipe {
    buffer: Vec<u8>,
    /// Up to here the bytes have been written.
    written: usize,
    /// Up to here the bytes may be written: whole, allowed frames.
    cleared: usize,
    /// Ends of opening segments: what follows waits until they were read.
    barriers: VecDeque<usize>,
    /// How long to wait until the next look at the first of them, once all before it is written.
    look: Duration,
    way: Way,
    from: Framing,
    to: Framing,
    pub(super) meter: Meter,
}

impl Pipe {
    pub(super) fn new(way: Way, from: Framing, to: Framing, limit: Limit) -> Self {
        Self {
            meter: Meter::new(limit, Instant::now()),
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
            cleared: 0,
            barriers: VecDeque::new(),
            look: FIRST_LOOK,
            way,
            from,
            to,
        }
    }

    pub(super) fn wants_input(&self) -> bool {
        // What is written makes room, at the next `fill`; a frame is shorter than the buffer, so there always comes some.
        let needed = match self.from {
            Framing::Stream => 1,
            Framing::Packets => LENGTH_BYTES + MAX_FRAME_BYTES,
        };
        self.buffer.len() - self.written + needed <= BUFFER_BYTES
    }

    /// Whether there is something that may be written now.
    pub(super) fn has_output(&self) -> bool {
        self.written < self.end()
    }

    /// Where what may be written now ends.
    fn end(&self) -> usize {
        self.barriers.front().copied().unwrap_or(self.cleared)
    }

    /// How long to wait for a reader, when something waits for one.
    pub(super) fn look(&self) -> Option<Duration> {
        (self.written == self.end() && self.written < self.cleared).then_some(self.look)
    }

    /// Reads what there is, a stream once; `false` at the end of the stream.
    pub(super) fn fill(&mut self, from: &OwnedFd, guard: &mut Guard) -> io::Result<bool> {
        self.compact();
        if self.from == Framing::Packets {
            self.fill_from_packets(from)?;
            self.clear_frames(guard)?;
            return Ok(true);
        }
        let start = self.buffer.len();
        self.buffer.resize(BUFFER_BYTES, 0);
        let result = rustix::io::read(from, &mut self.buffer[start..]);
        self.buffer.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.clear_frames(guard)?;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn fill_from_packets(&mut self, from: &OwnedFd) -> io::Result<()> {
        let mut end = self.buffer.len();
        self.buffer.resize(BUFFER_BYTES, 0);
        let mut result = Ok(());
        while let Some(room) = self
            .buffer
            .get_mut(end..end + LENGTH_BYTES + MAX_FRAME_BYTES)
        {
            let (length, frame) = room.split_at_mut(LENGTH_BYTES);
            match rustix::io::read(from, frame) {
                Ok(0) => {}
                Ok(count) => {
                    let count32 = u32::try_from(count).unwrap_or(u32::MAX);
                    length.copy_from_slice(&count32.to_be_bytes());
                    end += LENGTH_BYTES + count;
                }
                // A link that is down says so once.
                Err(Errno::INTR | Errno::NETDOWN) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    result = Err(error.into());
                    break;
                }
            }
        }
        self.buffer.truncate(end);
        result
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.written);
        self.cleared -= self.written;
        for barrier in &mut self.barriers {
            *barrier -= self.written;
        }
        self.written = 0;
    }

    /// Moves `cleared` past every whole frame, and takes out those that may not pass.
    fn clear_frames(&mut self, guard: &mut Guard) -> io::Result<()> {
        let mut read = self.cleared;
        let mut kept = self.cleared;
        while let Some(length) = self.buffer[read..].first_chunk::<LENGTH_BYTES>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length == 0 || length > MAX_FRAME_BYTES {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            let end = read + LENGTH_BYTES + length;
            if end > self.buffer.len() {
                break;
            }
            self.meter.count(length as u64, 1);
            let frame = &mut self.buffer[read + LENGTH_BYTES..end];
            let passes = match self.way {
                Way::FromGuest => {
                    let allowed = guard.allows(frame);
                    if allowed {
                        guard.complete(frame);
                    }
                    allowed
                }
                Way::ToGuest => {
                    guard.deliver(frame);
                    true
                }
            };
            let is_opening = self.way == Way::FromGuest && !guard.open && opens(frame);
            if passes {
                if kept != read {
                    self.buffer.copy_within(read..end, kept);
                }
                kept += end - read;
                if is_opening {
                    self.barriers.push_back(kept);
                }
            }
            read = end;
        }
        self.buffer.drain(kept..read);
        self.cleared = kept;
        Ok(())
    }

    /// Puts whole frames before what has not come completely, if there is room for them.
    pub(super) fn insert(&mut self, frames: &mut Vec<u8>) {
        if !frames.is_empty() && self.wants_input() {
            self.cleared += frames.len();
            let at = self.cleared - frames.len();
            self.buffer.splice(at..at, frames.drain(..));
        }
    }

    /// Writes what the other side takes, to a stream once.
    pub(super) fn drain(&mut self, to: &OwnedFd) -> io::Result<()> {
        if self.to == Framing::Packets {
            return self.drain_to_packets(to);
        }
        self.pass_barriers(to);
        let end = self.end();
        if self.written == end {
            return Ok(());
        }
        match rustix::io::write(to, &self.buffer[self.written..end]) {
            Ok(count) => {
                self.written += count;
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the first barrier away when all before it was read.
    fn pass_barriers(&mut self, to: &OwnedFd) {
        if self.barriers.front() != Some(&self.written) {
            return;
        }
        // What is no Unix socket has no passt behind it.
        if unix::unread(to.as_fd()).unwrap_or(0) == 0 {
            self.barriers.pop_front();
            self.look = FIRST_LOOK;
        } else {
            self.look = (self.look * 2).min(LAST_LOOK);
        }
    }

    fn drain_to_packets(&mut self, to: &OwnedFd) -> io::Result<()> {
        while self.written < self.cleared {
            let rest = &self.buffer[self.written..self.cleared];
            let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
                break;
            };
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            let frame = &rest[..length.min(rest.len())];
            match rustix::io::write(to, frame) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                // What a link does not take is lost, as on any network.
                Ok(_) | Err(Errno::NOBUFS | Errno::MSGSIZE | Errno::NETDOWN | Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
            self.written += LENGTH_BYTES + frame.len();
        }
        Ok(())
    }
}
