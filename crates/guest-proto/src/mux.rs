//! The multiplexer: control messages and byte streams over one connection, without I/O.
//!
//! ```text
//!   bytes read ──▶ receive() ──▶ next_event()   control messages, streams that the peer opened
//!                       └──────▶ peek()/consume()          bytes of incoming streams
//!   send_control(), open() ─┐
//!   write(), end(), stop() ─┴──▶ output()/written() ──▶ bytes to write
//! ```
//!
//! *Flow control.* A sender begins with [`Limits::window_bytes`] of credit per stream and pays for each byte; the
//! receiver gives back what its reader has consumed. A reader who stalls holds up his stream and no other, and a peer
//! who sends beyond his credit is cut off.
//!
//! *Priority.* Control messages and credit go before stream data; streams take turns, a frame each. What waits for
//! the connection is bounded: less than [`OUTPUT_BYTES`] of data in frames, [`Limits::send_buffer_bytes`] per stream
//! behind it, [`MAX_CONTROL_BYTES`] of control.
//!
//! *Order.* Bytes of a stream keep their order, control messages keep theirs, but a control message overtakes data
//! written before it. Who needs the other order waits until [`Mux::is_idle`].

mod streams;

use std::fmt;

use crate::frame::{Decoder, Frame, FrameError, MAX_PAYLOAD_BYTES, StreamId};
use crate::queue::ByteQueue;
use streams::{Sender, Streams, weight};

/// How much control may wait in either direction, in bytes.
pub const MAX_CONTROL_BYTES: usize = 1024 * 1024;
/// How much stream data is put into frames ahead of the connection, in bytes.
pub const OUTPUT_BYTES: usize = 64 * 1024;

/// Which side we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that started the machine.
    Host,
    /// The machine.
    Guest,
}

/// The way that the bytes of a stream go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the host to the guest.
    ToGuest,
    /// From the guest to the host.
    ToHost,
}

/// Bounds of a connection. Both sides must have the same window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a stream that may be on their way or unread, at least 1.
    pub window_bytes: u32,
    /// Bytes of a stream that are taken from the writer before they can be sent, at least 1.
    pub send_buffer_bytes: usize,
    /// Streams that the peer may have open at once, beside those of the protocol.
    pub peer_streams: usize,
}

impl Default for Limits {
    /// The limits of protocol version 1: a window of 256 KiB.
    fn default() -> Limits {
        Limits {
            window_bytes: 256 * 1024,
            send_buffer_bytes: 64 * 1024,
            peer_streams: 64,
        }
    }
}

/// Something that the peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It sent a control message.
    Control(Vec<u8>),
    /// It opened a stream; a control message says what for.
    Opened(StreamId),
}

/// What an incoming stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Bytes to take with [`Mux::consume`].
    Bytes(&'a [u8]),
    /// Nothing now; more may come.
    Pending,
    /// Nothing, and nothing will come.
    Ended,
}

/// The peer broke the protocol; the connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Its bytes are no frames.
    Frame(FrameError),
    /// It used a stream that was never open, or one that goes the other way.
    UnknownStream(StreamId),
    /// It opened a stream by a number that is not its own or not new.
    BadOpen(StreamId),
    /// It opened too many streams.
    TooManyStreams(usize),
    /// It sent more than its credit.
    WindowExceeded(StreamId),
    /// It sent after the end.
    AfterEnd(StreamId),
    /// It gave more credit than a window.
    TooMuchCredit(StreamId),
    /// Control piles up: it sends faster than we look, or takes nothing.
    Flooded,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::Frame(_) => f.write_str("the peer's bytes are no frames"),
            ProtocolError::UnknownStream(id) => {
                write!(f, "the peer used {id}, which is not open to it")
            }
            ProtocolError::BadOpen(id) => write!(f, "the peer opened {id} out of turn"),
            ProtocolError::TooManyStreams(most) => {
                write!(f, "the peer opened more than {most} streams")
            }
            ProtocolError::WindowExceeded(id) => {
                write!(f, "the peer sent more on {id} than its credit")
            }
            ProtocolError::AfterEnd(id) => write!(f, "the peer sent on {id} after its end"),
            ProtocolError::TooMuchCredit(id) => {
                write!(f, "the peer gave more credit for {id} than a window")
            }
            ProtocolError::Flooded => {
                write!(f, "more than {MAX_CONTROL_BYTES} bytes of control wait")
            }
        }
    }
}

impl std::error::Error for ProtocolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ProtocolError::Frame(error) => Some(error),
            _ => None,
        }
    }
}

/// Something cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The peer stopped the stream, or it has ended; as with a pipe that nobody reads.
    Closed(StreamId),
    /// The control message is empty or longer than a frame.
    BadControl {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Too much control waits already.
    ControlFull,
    /// All numbers of streams are used up.
    NoMoreStreams,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closed(id) => write!(f, "{id} is closed"),
            SendError::BadControl { bytes } => {
                write!(f, "control message has the bad length {bytes}")
            }
            SendError::ControlFull => f.write_str("too many control messages wait to be sent"),
            SendError::NoMoreStreams => f.write_str("no number is left for a stream"),
        }
    }
}

impl std::error::Error for SendError {}

/// One side of a connection.
#[derive(Debug)]
pub struct Mux {
    decoder: Decoder,
    streams: Streams,
    /// Bytes that go next, in this order.
    out: ByteQueue,
}

impl Mux {
    /// A connection that has just been made; the streams of the protocol are open.
    #[must_use]
    pub fn new(role: Role, limits: Limits) -> Mux {
        let streams = Streams::new(role, limits);
        Mux {
            decoder: Decoder::new(),
            streams,
            out: ByteQueue::default(),
        }
    }

    /// Takes what was read from the connection, in pieces of any size. Take the events out after each call: what
    /// piles up beyond [`MAX_CONTROL_BYTES`] is an error.
    ///
    /// # Errors
    /// The peer broke the protocol. The connection cannot go on; every later call fails too or does nothing good.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        while !bytes.is_empty() {
            let taken = self.decoder.push(bytes);
            bytes = &bytes[taken..];
            while let Some(frame) = self.decoder.next_frame().map_err(ProtocolError::Frame)? {
                self.streams.handle(frame)?;
            }
        }
        // Each stream that the peer opens can cost a frame of ours; who takes none of them is cut off.
        if self.streams.urgent.len() > 2 * MAX_CONTROL_BYTES {
            return Err(ProtocolError::Flooded);
        }
        Ok(())
    }

    /// Whether anything of the peer has been recognised.
    #[must_use]
    pub fn peer_seen(&self) -> bool {
        self.decoder.is_synced()
    }

    /// The next thing that the peer did.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.streams.events.pop_front()?;
        self.streams.event_bytes -= weight(&event);
        Some(event)
    }

    /// Queues a control message.
    ///
    /// # Errors
    /// A message of no bytes or of more than a frame holds; too many that wait.
    pub fn send_control(&mut self, message: &[u8]) -> Result<(), SendError> {
        if message.is_empty() || message.len() > MAX_PAYLOAD_BYTES {
            return Err(SendError::BadControl {
                bytes: message.len(),
            });
        }
        if self.streams.urgent.len() + message.len() > MAX_CONTROL_BYTES {
            return Err(SendError::ControlFull);
        }
        Frame::Control(message).encode(&mut self.streams.urgent);
        Ok(())
    }

    /// Opens a stream. The peer sees it before every control message that is sent after this call.
    ///
    /// # Errors
    /// Too much control waits, or the numbers are used up.
    pub fn open(&mut self, direction: Direction) -> Result<StreamId, SendError> {
        self.streams.open(direction)
    }

    /// Takes bytes for an outgoing stream, as many as there is room for, and says how many.
    ///
    /// # Errors
    /// The stream is closed: the peer stopped it, it was ended, or it never was.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, SendError> {
        let room = self.room(id).ok_or(SendError::Closed(id))?;
        let sender = self
            .streams
            .senders
            .get_mut(&id)
            .ok_or(SendError::Closed(id))?;
        let count = bytes.len().min(room);
        sender.queue.push(&bytes[..count]);
        Ok(count)
    }

    /// How many bytes [`Mux::write`] would take; none for a closed stream.
    #[must_use]
    pub fn room(&self, id: StreamId) -> Option<usize> {
        let sender = self.streams.senders.get(&id)?;
        let most = self.streams.limits.send_buffer_bytes;
        (!sender.end_wanted).then(|| most.saturating_sub(sender.queue.len()))
    }

    /// Ends an outgoing stream after what was written; nothing happens if it is closed.
    pub fn end(&mut self, id: StreamId) {
        if let Some(sender) = self.streams.senders.get_mut(&id) {
            sender.end_wanted = true;
        }
    }

    /// What an incoming stream holds; a stream that is not open has ended.
    #[must_use]
    pub fn peek(&self, id: StreamId) -> Incoming<'_> {
        match self.streams.receivers.get(&id) {
            None => Incoming::Ended,
            Some(receiver) if !receiver.queue.is_empty() => {
                Incoming::Bytes(receiver.queue.as_slice())
            }
            Some(receiver) if receiver.ended => Incoming::Ended,
            Some(_) => Incoming::Pending,
        }
    }

    /// Drops `count` bytes of an incoming stream, which lets the peer send more.
    pub fn consume(&mut self, id: StreamId, count: usize) {
        self.streams.consume(id, count);
    }

    /// Tells the peer that no more of an incoming stream is wanted, and forgets it.
    pub fn stop(&mut self, id: StreamId) {
        if let Some(receiver) = self.streams.receivers.remove(&id)
            && !receiver.ended
        {
            Frame::Stop(id).encode(&mut self.streams.urgent);
        }
    }

    /// The bytes to write to the connection next; empty if there are none that may go.
    pub fn output(&mut self) -> &[u8] {
        if self.out.is_empty() {
            self.streams.fill(&mut self.out);
        }
        self.out.as_slice()
    }

    /// Drops the first `count` bytes of [`Mux::output`]: they are written.
    pub fn written(&mut self, count: usize) {
        self.out.consume(count);
    }

    /// Whether nothing waits to be sent: all that was written is out, each end that was asked for too.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let waits = |sender: &Sender| sender.end_wanted || !sender.queue.is_empty();
        self.out.is_empty()
            && self.streams.urgent.is_empty()
            && !self.streams.senders.values().any(waits)
    }

    /// Whether an outgoing stream has nothing left to put into frames and its end, if asked for, is among them.
    /// What is sent afterwards arrives afterwards, control included.
    #[must_use]
    pub fn is_sent(&self, id: StreamId) -> bool {
        self.streams
            .senders
            .get(&id)
            .is_none_or(|sender| sender.queue.is_empty() && !sender.end_wanted)
    }
}

#[cfg(test)]
mod tests;
