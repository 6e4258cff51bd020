//! The streams and the control of one connection: what frames do to them, and which frames they want to send.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::{
    Direction, Event, Limits, MAX_CONTROL_BYTES, OUTPUT_BYTES, ProtocolError, Role, SendError,
};
use crate::frame::{Frame, PREAMBLE, StreamId};
use crate::queue::ByteQueue;

/// Numbers of streams below this one are given out by the protocol.
const FIRST_FREE_NUMBER: u32 = 16;
/// The longest payload of a data frame that we send: streams take turns at this grain.
const DATA_BYTES: usize = 16 * 1024;

/// A stream that we write.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) queue: ByteQueue,
    pub(super) credit: u32,
    pub(super) end_wanted: bool,
}

/// A stream that we read.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) queue: ByteQueue,
    /// What the peer may still send.
    pub(super) allowance: u32,
    /// What was consumed and not yet given back.
    pub(super) consumed: u32,
    pub(super) ended: bool,
}

/// All of a connection but the decoder, so that a frame can borrow from that while it changes this.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) role: Role,
    pub(super) limits: Limits,
    pub(super) senders: BTreeMap<StreamId, Sender>,
    pub(super) receivers: BTreeMap<StreamId, Receiver>,
    /// The next number for a stream of ours, by direction.
    pub(super) next_number: [u32; 2],
    /// The highest number that the peer used, by direction.
    pub(super) peer_number: [u32; 2],
    pub(super) events: VecDeque<Event>,
    pub(super) event_bytes: usize,
    /// Frames that go before data.
    pub(super) urgent: Vec<u8>,
    /// The stream that sent last.
    pub(super) last_served: Option<StreamId>,
}

pub(super) fn weight(event: &Event) -> usize {
    // An allowance for the queue itself, so that many small events count too.
    match event {
        Event::Control(bytes) => bytes.len() + 32,
        Event::Opened(_) => 32,
    }
}

fn direction(id: StreamId) -> Direction {
    if id.raw() & 1 == 0 {
        Direction::ToGuest
    } else {
        Direction::ToHost
    }
}

fn opener(id: StreamId) -> Role {
    if id.raw() & 2 == 0 {
        Role::Host
    } else {
        Role::Guest
    }
}

fn number(id: StreamId) -> u32 {
    id.raw() >> 2
}

impl Streams {
    pub(super) fn new(role: Role, limits: Limits) -> Streams {
        let mut streams = Streams {
            role,
            limits,
            senders: BTreeMap::new(),
            receivers: BTreeMap::new(),
            next_number: [FIRST_FREE_NUMBER; 2],
            peer_number: [FIRST_FREE_NUMBER - 1; 2],
            events: VecDeque::new(),
            event_bytes: 0,
            urgent: PREAMBLE.to_vec(),
            last_served: None,
        };
        for id in [StreamId::STDIN, StreamId::STDOUT, StreamId::STDERR] {
            streams.add(id);
        }
        streams
    }

    fn is_outgoing(&self, id: StreamId) -> bool {
        (self.role == Role::Host) == (direction(id) == Direction::ToGuest)
    }

    fn add(&mut self, id: StreamId) {
        let window = self.limits.window_bytes;
        if self.is_outgoing(id) {
            self.senders.insert(
                id,
                Sender {
                    queue: ByteQueue::default(),
                    credit: window,
                    end_wanted: false,
                },
            );
        } else {
            let receiver = Receiver {
                queue: ByteQueue::default(),
                allowance: window,
                consumed: 0,
                ended: false,
            };
            self.receivers.insert(id, receiver);
        }
    }

    pub(super) fn open(&mut self, direction: Direction) -> Result<StreamId, SendError> {
        if self.urgent.len() >= MAX_CONTROL_BYTES {
            return Err(SendError::ControlFull);
        }
        let number = &mut self.next_number[direction as usize];
        if *number > u32::MAX >> 2 {
            return Err(SendError::NoMoreStreams);
        }
        let opener_bit = u32::from(self.role == Role::Guest) << 1;
        let id = StreamId::from_raw(*number << 2 | opener_bit | direction as u32);
        *number += 1;
        self.add(id);
        Frame::Open(id).encode(&mut self.urgent);
        Ok(id)
    }

    pub(super) fn handle(&mut self, frame: Frame<'_>) -> Result<(), ProtocolError> {
        match frame {
            Frame::Control(bytes) => self.event(Event::Control(bytes.to_vec())),
            Frame::Open(id) => self.peer_opens(id),
            Frame::Data(id, bytes) => self.data(id, bytes),
            Frame::Credit(id, bytes) => self.credit(id, bytes),
            Frame::End(id) => self.peer_ends(id),
            Frame::Stop(id) => {
                self.known(id, true)?;
                self.senders.remove(&id);
                Ok(())
            }
        }
    }

    fn event(&mut self, event: Event) -> Result<(), ProtocolError> {
        self.event_bytes += weight(&event);
        self.events.push_back(event);
        if self.event_bytes > MAX_CONTROL_BYTES {
            Err(ProtocolError::Flooded)
        } else {
            Ok(())
        }
    }

    fn peer_opens(&mut self, id: StreamId) -> Result<(), ProtocolError> {
        let newest = &mut self.peer_number[direction(id) as usize];
        if opener(id) == self.role || number(id) <= *newest {
            return Err(ProtocolError::BadOpen(id));
        }
        *newest = number(id);
        let role = self.role;
        let of_peer = |id: &&StreamId| opener(**id) != role && number(**id) >= FIRST_FREE_NUMBER;
        let open = self
            .senders
            .keys()
            .chain(self.receivers.keys())
            .filter(of_peer)
            .count();
        if open >= self.limits.peer_streams {
            return Err(ProtocolError::TooManyStreams(self.limits.peer_streams));
        }
        self.add(id);
        self.event(Event::Opened(id))
    }

    /// Checks that a stream is or was open and goes the right way.
    fn known(&self, id: StreamId, outgoing: bool) -> Result<(), ProtocolError> {
        let was_open = if number(id) < FIRST_FREE_NUMBER {
            [StreamId::STDIN, StreamId::STDOUT, StreamId::STDERR].contains(&id)
        } else if opener(id) == self.role {
            number(id) < self.next_number[direction(id) as usize]
        } else {
            number(id) <= self.peer_number[direction(id) as usize]
        };
        if was_open && self.is_outgoing(id) == outgoing {
            Ok(())
        } else {
            Err(ProtocolError::UnknownStream(id))
        }
    }

    fn data(&mut self, id: StreamId, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.known(id, false)?;
        // What was under way when we stopped the stream is dropped.
        let Some(receiver) = self.receivers.get_mut(&id) else {
            return Ok(());
        };
        if receiver.ended {
            return Err(ProtocolError::AfterEnd(id));
        }
        let left = u32::try_from(bytes.len())
            .ok()
            .and_then(|count| receiver.allowance.checked_sub(count));
        receiver.allowance = left.ok_or(ProtocolError::WindowExceeded(id))?;
        receiver.queue.push(bytes);
        Ok(())
    }

    fn credit(&mut self, id: StreamId, bytes: u32) -> Result<(), ProtocolError> {
        self.known(id, true)?;
        let Some(sender) = self.senders.get_mut(&id) else {
            return Ok(());
        };
        match sender.credit.checked_add(bytes) {
            Some(credit) if credit <= self.limits.window_bytes => sender.credit = credit,
            _ => return Err(ProtocolError::TooMuchCredit(id)),
        }
        Ok(())
    }

    fn peer_ends(&mut self, id: StreamId) -> Result<(), ProtocolError> {
        self.known(id, false)?;
        let Some(receiver) = self.receivers.get_mut(&id) else {
            return Ok(());
        };
        if receiver.ended {
            return Err(ProtocolError::AfterEnd(id));
        }
        receiver.ended = true;
        if receiver.queue.is_empty() {
            self.receivers.remove(&id);
        }
        Ok(())
    }

    pub(super) fn consume(&mut self, id: StreamId, count: usize) {
        let Some(receiver) = self.receivers.get_mut(&id) else {
            return;
        };
        let count = count.min(receiver.queue.len());
        receiver.queue.consume(count);
        if receiver.ended {
            if receiver.queue.is_empty() {
                self.receivers.remove(&id);
            }
            return;
        }
        receiver.consumed += u32::try_from(count).expect("no more than a window is queued");
        // Not for each byte, but before the peer runs dry.
        if receiver.consumed >= (self.limits.window_bytes / 4).max(1) {
            Frame::Credit(id, receiver.consumed).encode(&mut self.urgent);
            receiver.allowance += receiver.consumed;
            receiver.consumed = 0;
        }
    }

    /// Puts into `out` what may go: control first, then a frame of each stream in turn.
    pub(super) fn fill(&mut self, out: &mut ByteQueue) {
        let mut bytes = std::mem::take(&mut self.urgent);
        let data_start = bytes.len();
        while bytes.len() - data_start < OUTPUT_BYTES {
            let Some(id) = self.next_ready() else { break };
            self.last_served = Some(id);
            self.serve(id, &mut bytes);
        }
        out.push(&bytes);
        // The buffer goes back, so that it is not made anew each time.
        bytes.clear();
        if bytes.capacity() <= 2 * OUTPUT_BYTES {
            self.urgent = bytes;
        }
    }

    /// The first stream after the last served one that has something to send.
    fn next_ready(&self) -> Option<StreamId> {
        let ready = |(_, sender): &(&StreamId, &Sender)| {
            if sender.queue.is_empty() {
                sender.end_wanted
            } else {
                sender.credit > 0
            }
        };
        let after = self.last_served.map_or(Bound::Unbounded, Bound::Excluded);
        let mut later = self.senders.range((after, Bound::Unbounded));
        later
            .find(ready)
            .or_else(|| self.senders.iter().find(ready))
            .map(|(id, _)| *id)
    }

    fn serve(&mut self, id: StreamId, out: &mut Vec<u8>) {
        let Some(sender) = self.senders.get_mut(&id) else {
            return;
        };
        let credit = usize::try_from(sender.credit).unwrap_or(usize::MAX);
        let count = sender.queue.len().min(DATA_BYTES).min(credit);
        if count > 0 {
            Frame::Data(id, &sender.queue.as_slice()[..count]).encode(out);
            sender.queue.consume(count);
            sender.credit -= u32::try_from(count).expect("no more than the credit");
        }
        if sender.queue.is_empty() && sender.end_wanted {
            Frame::End(id).encode(out);
            self.senders.remove(&id);
        }
    }
}
