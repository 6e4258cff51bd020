//! Frames: the units that cross the channel.
//!
//! ```text
//!   preamble (once, from each side)        frame
//!   00 ff "firebuild/mux" 0a               0   2  fb 01     magic, version of the framing
//!   16 bytes                               2   1  kind      1 control … 6 stop
//!                                          3   1  00        reserved
//!                                          4   4  stream    little-endian; 0 in control frames
//!                                          8   4  length    little-endian; at most 65,536
//!                                          12  …  payload
//! ```
//!
//! A virtio-serial port can deliver bytes that were meant for someone before us. The decoder therefore skips
//! everything up to the preamble, but no more than [`MAX_GARBAGE_BYTES`]; after it, every byte counts and the
//! first wrong one is an error for good.

use std::fmt;

/// The longest payload of a frame, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// The length of a frame's header, in bytes.
pub const HEADER_BYTES: usize = 12;
/// What each side sends first.
pub const PREAMBLE: [u8; 16] = *b"\x00\xfffirebuild/mux\n";
/// How much is skipped at most in search of the preamble, in bytes.
pub const MAX_GARBAGE_BYTES: usize = 256 * 1024;

const MAGIC: [u8; 2] = [0xfb, 0x01];
const MAX_FRAME_BYTES: usize = HEADER_BYTES + MAX_PAYLOAD_BYTES;

/// A stream's number. Streams carry bytes one way; their number says which way and who opened it.
///
/// Bit 0 is the direction (0 to the guest, 1 to the host), bit 1 the side that opened it (0 host, 1 guest), the
/// rest counts up from 1. The numbers below 16 are given out by the protocol and open from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// The application's standard input, to the guest.
    pub const STDIN: StreamId = StreamId(1 << 2);
    /// The application's standard output, to the host; with a terminal, all that it shows.
    pub const STDOUT: StreamId = StreamId(1 << 2 | 1);
    /// The application's standard error, to the host; with a terminal it ends at once.
    pub const STDERR: StreamId = StreamId(2 << 2 | 1);

    /// The id of a number on the wire.
    #[must_use]
    pub fn from_raw(raw: u32) -> StreamId {
        StreamId(raw)
    }

    /// The number on the wire.
    #[must_use]
    pub fn raw(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            StreamId::STDIN => f.write_str("stdin"),
            StreamId::STDOUT => f.write_str("stdout"),
            StreamId::STDERR => f.write_str("stderr"),
            StreamId(raw) => write!(f, "stream {raw}"),
        }
    }
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A control message.
    Control(&'a [u8]),
    /// A new stream.
    Open(StreamId),
    /// Bytes of a stream, at least one.
    Data(StreamId, &'a [u8]),
    /// The sender of the stream may send so many bytes more, at least one.
    Credit(StreamId, u32),
    /// The sender of the stream has sent all.
    End(StreamId),
    /// The receiver of the stream wants no more of it.
    Stop(StreamId),
}

impl Frame<'_> {
    /// Appends the frame's bytes. A payload beyond [`MAX_PAYLOAD_BYTES`] is a mistake of the caller and is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let credit;
        let (kind, stream, payload): (u8, u32, &[u8]) = match *self {
            Frame::Control(payload) => (1, 0, payload),
            Frame::Open(stream) => (2, stream.0, &[]),
            Frame::Data(stream, payload) => (3, stream.0, payload),
            Frame::Credit(stream, bytes) => {
                credit = bytes.to_le_bytes();
                (4, stream.0, &credit)
            }
            Frame::End(stream) => (5, stream.0, &[]),
            Frame::Stop(stream) => (6, stream.0, &[]),
        };
        debug_assert!(
            payload.len() <= MAX_PAYLOAD_BYTES,
            "payload longer than a frame"
        );
        let payload = payload.get(..MAX_PAYLOAD_BYTES).unwrap_or(payload);
        let length = u32::try_from(payload.len()).expect("at most 65,536");
        out.reserve(HEADER_BYTES + payload.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[kind, 0]);
        out.extend_from_slice(&stream.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(payload);
    }
}

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// No preamble within [`MAX_GARBAGE_BYTES`].
    NoPreamble,
    /// A header does not begin with the magic number, or its reserved byte is not zero.
    BadHeader,
    /// A kind that this version does not have.
    UnknownKind(u8),
    /// A length that the kind does not allow.
    BadLength {
        /// The frame's kind.
        kind: u8,
        /// The length in its header.
        length: u32,
    },
    /// A stream's number where none belongs, or a credit of nothing.
    BadField {
        /// The frame's kind.
        kind: u8,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::NoPreamble => {
                write!(f, "no preamble in the first {MAX_GARBAGE_BYTES} bytes")
            }
            FrameError::BadHeader => f.write_str("frame header is malformed"),
            FrameError::UnknownKind(kind) => write!(f, "frame has the unknown kind {kind}"),
            FrameError::BadLength { kind, length } => {
                write!(f, "frame of kind {kind} has the bad length {length}")
            }
            FrameError::BadField { kind } => write!(f, "frame of kind {kind} has a bad field"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Takes bytes as they come and gives frames. Holds at most one frame.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    synced: bool,
    garbage: usize,
    failed: Option<FrameError>,
}

impl Decoder {
    /// A decoder that waits for the preamble.
    #[must_use]
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Takes as many bytes as there is room for and says how many that were; frames that are taken out make room.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        self.buffer.drain(..self.start);
        self.start = 0;
        let count = bytes.len().min(MAX_FRAME_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        count
    }

    /// Whether the preamble has come.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The next whole frame, if it is there.
    ///
    /// # Errors
    /// The first wrong byte; every later call gives the same error.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if !self.synced
            && let Err(error) = self.sync()
        {
            self.failed = Some(error.clone());
            return Err(error);
        }
        if !self.synced {
            return Ok(None);
        }
        let start = self.start;
        match parse(&self.buffer[start..]) {
            Ok(Some((frame, length))) => {
                self.start = start + length;
                Ok(Some(frame))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn sync(&mut self) -> Result<(), FrameError> {
        let bytes = &self.buffer[self.start..];
        if let Some(at) = bytes
            .windows(PREAMBLE.len())
            .position(|window| window == PREAMBLE)
        {
            self.garbage += at;
            self.start += at + PREAMBLE.len();
            self.synced = true;
        } else {
            // What could still become a preamble stays.
            let skipped = bytes.len().saturating_sub(PREAMBLE.len() - 1);
            self.garbage += skipped;
            self.start += skipped;
        }
        if self.garbage > MAX_GARBAGE_BYTES {
            Err(FrameError::NoPreamble)
        } else {
            Ok(())
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        // A wrong beginning is told at once, not when twelve bytes have come.
        let known = bytes.len().min(MAGIC.len());
        return if bytes[..known] == MAGIC[..known] {
            Ok(None)
        } else {
            Err(FrameError::BadHeader)
        };
    };
    let [m0, m1, kind, reserved, s0, s1, s2, s3, l0, l1, l2, l3] = *header;
    if [m0, m1] != MAGIC || reserved != 0 {
        return Err(FrameError::BadHeader);
    }
    let stream = StreamId(u32::from_le_bytes([s0, s1, s2, s3]));
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let bad_length = FrameError::BadLength { kind, length };
    let size = usize::try_from(length).map_err(|_| bad_length.clone())?;
    let allowed = match kind {
        1 | 3 => 1..=MAX_PAYLOAD_BYTES,
        2 | 5 | 6 => 0..=0,
        4 => 4..=4,
        _ => return Err(FrameError::UnknownKind(kind)),
    };
    if !allowed.contains(&size) {
        return Err(bad_length);
    }
    if (kind == 1) != (stream.0 == 0) {
        return Err(FrameError::BadField { kind });
    }
    let Some(payload) = rest.get(..size) else {
        return Ok(None);
    };
    let frame = match kind {
        1 => Frame::Control(payload),
        2 => Frame::Open(stream),
        3 => Frame::Data(stream, payload),
        4 => match payload
            .first_chunk::<4>()
            .map(|bytes| u32::from_le_bytes(*bytes))
        {
            Some(credit) if credit > 0 => Frame::Credit(stream, credit),
            _ => return Err(FrameError::BadField { kind }),
        },
        5 => Frame::End(stream),
        _ => Frame::Stop(stream),
    };
    Ok(Some((frame, HEADER_BYTES + size)))
}

#[cfg(test)]
mod tests;
