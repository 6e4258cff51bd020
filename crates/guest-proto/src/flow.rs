//! Bytes on their way between a descriptor that does not block and a stream of the multiplexer; both sides need it.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};

use crate::frame::StreamId;
use crate::mux::{Incoming, Mux};

/// How much is read at once. A pipe holds as much.
const CHUNK_BYTES: usize = 64 * 1024;

/// A descriptor whose bytes go to a stream, or take those of one.
#[derive(Debug)]
struct Flow {
    id: StreamId,
    file: File,
    outward: bool,
}

/// Descriptors that do not block, each with the stream that its bytes belong to.
#[derive(Debug)]
pub struct Flows {
    flows: Vec<Flow>,
    buffer: Vec<u8>,
}

impl Default for Flows {
    fn default() -> Flows {
        Flows {
            flows: Vec::new(),
            buffer: vec![0; CHUNK_BYTES],
        }
    }
}

impl Flows {
    /// What `file` gives goes to the peer.
    pub fn outward(&mut self, id: StreamId, file: impl Into<File>) {
        self.add(id, file.into(), true);
    }

    /// What the peer sends goes to `file`.
    pub fn inward(&mut self, id: StreamId, file: impl Into<File>) {
        self.add(id, file.into(), false);
    }

    fn add(&mut self, id: StreamId, file: File, outward: bool) {
        self.flows.push(Flow { id, file, outward });
    }

    /// The descriptors that can be served now, and whether each is to be read (else written).
    pub fn interest<'a>(&'a self, mux: &Mux) -> Vec<(&'a File, bool)> {
        let wanted = |flow: &&Flow| {
            if flow.outward {
                mux.room(flow.id) != Some(0)
            } else {
                !matches!(mux.peek(flow.id), Incoming::Pending)
            }
        };
        let files = self.flows.iter().filter(wanted);
        files.map(|flow| (&flow.file, flow.outward)).collect()
    }

    /// Moves what can be moved without waiting; says whether anything was. `ended` gets what the peer sends no more to: a
    /// socket wants to be told, a pipe is closed by being dropped.
    pub fn turn(&mut self, mux: &mut Mux, mut ended: impl FnMut(File)) -> bool {
        let (mut moved, buffer) = (false, &mut self.buffer);
        let over = |flow: &mut Flow| {
            let outcome = if flow.outward {
                outward(mux, flow.id, &mut flow.file, buffer)
            } else {
                inward(mux, flow.id, &mut flow.file)
            };
            moved |= outcome != Moved::Nothing;
            outcome == Moved::Ended
        };
        for flow in self.flows.extract_if(.., over) {
            if !flow.outward {
                ended(flow.file);
            }
        }
        moved
    }
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// Nothing can be moved now.
    Nothing,
    /// Some bytes were.
    Some,
    /// The flow is over: its source has ended or its taker wants no more. Both ends have been told.
    Ended,
}

/// Moves what `from` has into an outgoing stream. `buffer` is room to work in, at least a byte.
pub fn outward(mux: &mut Mux, id: StreamId, from: &mut impl Read, buffer: &mut [u8]) -> Moved {
    let Some(room) = mux.room(id) else {
        return Moved::Ended;
    };
    let most = room.min(buffer.len());
    if most == 0 {
        return Moved::Nothing;
    }
    match from.read(&mut buffer[..most]) {
        Ok(count) if count > 0 => match mux.write(id, &buffer[..count]) {
            Ok(_) => Moved::Some,
            Err(_) => Moved::Ended,
        },
        Err(error) if is_for_later(error.kind()) => Moved::Nothing,
        // The end, or what is as good as the end.
        Ok(_) | Err(_) => {
            mux.end(id);
            Moved::Ended
        }
    }
}

/// Moves what has come on an incoming stream to `to`. At the end `to` is to be closed.
pub fn inward(mux: &mut Mux, id: StreamId, to: &mut impl Write) -> Moved {
    let written = match mux.peek(id) {
        Incoming::Pending => return Moved::Nothing,
        Incoming::Ended => return Moved::Ended,
        Incoming::Bytes(bytes) => to.write(bytes),
    };
    match written {
        Ok(count) if count > 0 => {
            mux.consume(id, count);
            Moved::Some
        }
        Err(error) if is_for_later(error.kind()) => Moved::Nothing,
        // Nobody takes it any more.
        Ok(_) | Err(_) => {
            mux.stop(id);
            Moved::Ended
        }
    }
}

/// Moves what has come on an incoming stream of one connection to an outgoing stream of another, with end and stop.
pub fn relay(from: &mut Mux, incoming: StreamId, to: &mut Mux, outgoing: StreamId) -> Moved {
    let Some(room) = to.room(outgoing) else {
        from.stop(incoming);
        return Moved::Ended;
    };
    let count = match from.peek(incoming) {
        Incoming::Pending => 0,
        Incoming::Ended => {
            to.end(outgoing);
            return Moved::Ended;
        }
        Incoming::Bytes(bytes) => to
            .write(outgoing, &bytes[..bytes.len().min(room)])
            .unwrap_or(0),
    };
    from.consume(incoming, count);
    if count == 0 {
        Moved::Nothing
    } else {
        Moved::Some
    }
}

fn is_for_later(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::{Moved, inward, outward, relay};
    use crate::frame::StreamId;
    use crate::mux::{Direction, Event, Incoming, Limits, Mux, Role};

    fn deliver(from: &mut Mux, to: &mut Mux) {
        let bytes = from.output().to_vec();
        to.receive(&bytes).unwrap();
        from.written(bytes.len());
    }

    #[test]
    fn bytes_and_ends_get_across() {
        let (mut host, mut guest) = (
            Mux::new(Role::Host, Limits::default()),
            Mux::new(Role::Guest, Limits::default()),
        );
        let id = host.open(Direction::ToGuest).unwrap();
        let mut source: &[u8] = b"hello";
        let mut buffer = [0; 3];
        assert_eq!(
            outward(&mut host, id, &mut source, &mut buffer),
            Moved::Some
        );
        assert_eq!(
            outward(&mut host, id, &mut source, &mut buffer),
            Moved::Some
        );
        assert_eq!(
            outward(&mut host, id, &mut source, &mut buffer),
            Moved::Ended
        );
        deliver(&mut host, &mut guest);
        assert_eq!(guest.next_event(), Some(Event::Opened(id)));
        let mut taken = Vec::new();
        assert_eq!(inward(&mut guest, id, &mut taken), Moved::Some);
        assert_eq!(inward(&mut guest, id, &mut taken), Moved::Ended);
        assert_eq!(taken, b"hello");
    }

    #[test]
    fn a_taker_that_has_gone_stops_the_sender() {
        let (mut host, mut guest) = (
            Mux::new(Role::Host, Limits::default()),
            Mux::new(Role::Guest, Limits::default()),
        );
        let id = host.open(Direction::ToGuest).unwrap();
        host.write(id, b"hello").unwrap();
        deliver(&mut host, &mut guest);
        let mut full: &mut [u8] = &mut [];
        assert_eq!(inward(&mut guest, id, &mut full), Moved::Ended);
        deliver(&mut guest, &mut host);
        assert_eq!(
            outward(&mut host, id, &mut &b"more"[..], &mut [0; 8]),
            Moved::Ended
        );
    }

    #[test]
    fn a_relay_carries_bytes_ends_and_stops_at_the_slower_pace() {
        let limits = Limits::default();
        let make = |role| Mux::new(role, limits);
        // near -> (far_in | far_out) -> end: the middle is where a monitor stands.
        let (mut near, mut far_in) = (make(Role::Host), make(Role::Guest));
        let (mut far_out, mut end) = (make(Role::Host), make(Role::Guest));
        let id = StreamId::STDIN;
        let (mut written, mut seen) = (0, Vec::new());
        let total = 1 << 20;
        for turn in 0.. {
            if written < total {
                let piece = [u8::try_from(written % 251).unwrap(); 997];
                written += near.write(id, &piece).unwrap();
            } else {
                near.end(id);
            }
            deliver(&mut near, &mut far_in);
            let moved = relay(&mut far_in, id, &mut far_out, id);
            deliver(&mut far_in, &mut near);
            deliver(&mut far_out, &mut end);
            // The end is slow: it looks at every third turn only.
            if turn % 3 == 0
                && let Incoming::Bytes(bytes) = end.peek(id)
            {
                seen.extend_from_slice(bytes);
                let count = bytes.len();
                end.consume(id, count);
            }
            deliver(&mut end, &mut far_out);
            if moved == Moved::Ended {
                break;
            }
        }
        while let Incoming::Bytes(bytes) = end.peek(id) {
            seen.extend_from_slice(bytes);
            let count = bytes.len();
            end.consume(id, count);
            deliver(&mut end, &mut far_out);
            deliver(&mut far_out, &mut end);
        }
        assert_eq!(end.peek(id), Incoming::Ended);
        assert_eq!(seen.len(), written);

        // Who stops reading stops the writer at the other end.
        let (mut far_out, mut end) = (make(Role::Host), make(Role::Guest));
        let (mut near, mut far_in) = (make(Role::Host), make(Role::Guest));
        deliver(&mut far_out, &mut end);
        end.stop(id);
        deliver(&mut end, &mut far_out);
        assert_eq!(relay(&mut far_in, id, &mut far_out, id), Moved::Ended);
        deliver(&mut far_in, &mut near);
        deliver(&mut near, &mut far_in);
        assert_eq!(near.room(id), None);
    }
}
