use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

use super::{
    Direction, Event, Incoming, Limits, MAX_CONTROL_BYTES, Mux, OUTPUT_BYTES, ProtocolError, Role,
    SendError,
};
use crate::frame::{Frame, PREAMBLE, StreamId};

const SMALL: Limits = Limits {
    window_bytes: 64,
    send_buffer_bytes: 40,
    peer_streams: 4,
};

/// Moves at most `most` bytes from one side to the other and says how many that were.
fn carry(from: &mut Mux, to: &mut Mux, most: usize) -> usize {
    let bytes = from.output();
    let bytes = bytes[..bytes.len().min(most)].to_vec();
    from.written(bytes.len());
    to.receive(&bytes).unwrap();
    bytes.len()
}

fn settle(a: &mut Mux, b: &mut Mux) {
    while carry(a, b, usize::MAX) + carry(b, a, usize::MAX) > 0 {}
}

fn pair(limits: Limits) -> (Mux, Mux) {
    (Mux::new(Role::Host, limits), Mux::new(Role::Guest, limits))
}

fn read(mux: &mut Mux, id: StreamId, most: usize) -> Vec<u8> {
    let Incoming::Bytes(bytes) = mux.peek(id) else {
        return Vec::new();
    };
    let bytes = bytes[..bytes.len().min(most)].to_vec();
    mux.consume(id, bytes.len());
    bytes
}

/// Frames for one side, after the preamble.
fn wire(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = PREAMBLE.to_vec();
    for frame in frames {
        frame.encode(&mut bytes);
    }
    bytes
}

fn give(frames: &[Frame<'_>]) -> Result<Mux, ProtocolError> {
    let mut guest = Mux::new(Role::Guest, SMALL);
    guest.receive(&wire(frames))?;
    Ok(guest)
}

#[test]
fn bytes_and_control_cross_both_ways() {
    let (mut host, mut guest) = pair(Limits::default());
    assert_eq!(host.write(StreamId::STDIN, b"in"), Ok(2));
    assert_eq!(guest.write(StreamId::STDOUT, b"out"), Ok(3));
    host.end(StreamId::STDIN);
    guest.send_control(b"{}").unwrap();
    settle(&mut host, &mut guest);
    assert_eq!(host.next_event(), Some(Event::Control(b"{}".to_vec())));
    assert_eq!(host.next_event(), None);
    assert_eq!(read(&mut guest, StreamId::STDIN, 9), b"in");
    assert_eq!(guest.peek(StreamId::STDIN), Incoming::Ended);
    assert_eq!(read(&mut host, StreamId::STDOUT, 9), b"out");
    assert_eq!(host.peek(StreamId::STDOUT), Incoming::Pending);
    assert!(host.is_idle() && guest.is_idle());
}

#[test]
fn a_stalled_reader_blocks_no_other_stream_and_no_control() {
    let (mut host, mut guest) = pair(SMALL);
    let mut written = 0;
    for _ in 0..100 {
        written += guest.write(StreamId::STDOUT, &[1; 50]).unwrap();
        settle(&mut host, &mut guest);
    }
    // A window at the host, a buffer here, and then no more.
    assert_eq!(written, 64 + 40);
    assert_eq!(guest.room(StreamId::STDOUT), Some(0));
    guest.write(StreamId::STDERR, &[2; 30]).unwrap();
    guest.send_control(b"x").unwrap();
    settle(&mut host, &mut guest);
    assert_eq!(read(&mut host, StreamId::STDERR, 99), vec![2; 30]);
    assert_eq!(host.next_event(), Some(Event::Control(b"x".to_vec())));
    assert!(
        !guest.is_idle() && !guest.is_sent(StreamId::STDOUT) && guest.is_sent(StreamId::STDERR)
    );
    assert_eq!(read(&mut host, StreamId::STDOUT, 64), vec![1; 64]);
    settle(&mut host, &mut guest);
    assert_eq!(read(&mut host, StreamId::STDOUT, 64), vec![1; 40]);
    settle(&mut host, &mut guest);
    assert!(guest.is_idle());
}

#[test]
fn control_goes_before_data_that_waits() {
    let (mut host, mut guest) = pair(Limits::default());
    for _ in 0..3 {
        guest.write(StreamId::STDOUT, &[0; 60_000]).unwrap();
        settle(&mut guest, &mut host);
    }
    guest.write(StreamId::STDOUT, &[0; 60_000]).unwrap();
    guest.send_control(b"now").unwrap();
    carry(&mut guest, &mut host, 32);
    assert_eq!(host.next_event(), Some(Event::Control(b"now".to_vec())));
}

#[test]
fn what_is_sent_after_is_sent_arrives_after() {
    let (mut host, mut guest) = pair(Limits::default());
    guest.write(StreamId::STDOUT, &[7; 1000]).unwrap();
    guest.end(StreamId::STDOUT);
    assert!(!guest.is_sent(StreamId::STDOUT));
    guest.output();
    assert!(guest.is_sent(StreamId::STDOUT));
    guest.send_control(b"exit").unwrap();
    while host.next_event().is_none() {
        assert!(carry(&mut guest, &mut host, 1) > 0);
    }
    assert_eq!(read(&mut host, StreamId::STDOUT, 2000).len(), 1000);
    assert_eq!(host.peek(StreamId::STDOUT), Incoming::Ended);
}

#[test]
fn a_stopped_stream_is_a_closed_pipe_for_its_writer() {
    let (mut host, mut guest) = pair(SMALL);
    guest.write(StreamId::STDOUT, &[1; 40]).unwrap();
    host.stop(StreamId::STDOUT);
    settle(&mut host, &mut guest);
    assert_eq!(
        guest.write(StreamId::STDOUT, b"x"),
        Err(SendError::Closed(StreamId::STDOUT))
    );
    assert_eq!(guest.room(StreamId::STDOUT), None);
    assert!(guest.is_idle());
    assert_eq!(host.peek(StreamId::STDOUT), Incoming::Ended);
}

#[test]
fn opened_streams_come_before_the_control_that_names_them() {
    let (mut host, mut guest) = pair(SMALL);
    let to_guest = host.open(Direction::ToGuest).unwrap();
    let to_host = host.open(Direction::ToHost).unwrap();
    host.send_control(b"exec").unwrap();
    host.write(to_guest, b"hello").unwrap();
    settle(&mut host, &mut guest);
    assert_eq!(guest.next_event(), Some(Event::Opened(to_guest)));
    assert_eq!(guest.next_event(), Some(Event::Opened(to_host)));
    assert_eq!(guest.next_event(), Some(Event::Control(b"exec".to_vec())));
    assert_eq!(read(&mut guest, to_guest, 9), b"hello");
    guest.write(to_host, b"there").unwrap();
    guest.end(to_host);
    let of_guest = guest.open(Direction::ToHost).unwrap();
    assert_ne!(of_guest, to_host);
    settle(&mut host, &mut guest);
    assert_eq!(read(&mut host, to_host, 9), b"there");
    assert_eq!(host.peek(to_host), Incoming::Ended);
    assert_eq!(host.next_event(), Some(Event::Opened(of_guest)));
}

#[test]
fn each_broken_rule_has_its_error() {
    let (stdin, stdout, stranger) = (
        StreamId::STDIN,
        StreamId::STDOUT,
        StreamId::from_raw(3 << 2),
    );
    let theirs = |number: u32| StreamId::from_raw(number << 2);
    let cases: [(&[Frame<'_>], ProtocolError); 12] = [
        (
            &[Frame::Data(stdout, b"a")],
            ProtocolError::UnknownStream(stdout),
        ),
        (
            &[Frame::Data(stranger, b"a")],
            ProtocolError::UnknownStream(stranger),
        ),
        (
            &[Frame::Credit(stdin, 1)],
            ProtocolError::UnknownStream(stdin),
        ),
        (&[Frame::Stop(stdin)], ProtocolError::UnknownStream(stdin)),
        (&[Frame::End(stdout)], ProtocolError::UnknownStream(stdout)),
        (
            &[Frame::Data(stdin, &[0; 65])],
            ProtocolError::WindowExceeded(stdin),
        ),
        (
            &[Frame::Credit(stdout, 1)],
            ProtocolError::TooMuchCredit(stdout),
        ),
        (
            &[
                Frame::Data(stdin, b"a"),
                Frame::End(stdin),
                Frame::Data(stdin, b"a"),
            ],
            ProtocolError::AfterEnd(stdin),
        ),
        (
            &[
                Frame::Data(stdin, b"a"),
                Frame::End(stdin),
                Frame::End(stdin),
            ],
            ProtocolError::AfterEnd(stdin),
        ),
        (&[Frame::Open(stdin)], ProtocolError::BadOpen(stdin)),
        (
            &[Frame::Open(theirs(17)), Frame::Open(theirs(16))],
            ProtocolError::BadOpen(theirs(16)),
        ),
        (
            &[
                Frame::Open(theirs(16)),
                Frame::Open(theirs(17)),
                Frame::Open(theirs(18)),
                Frame::Open(theirs(19)),
                Frame::Open(theirs(20)),
            ],
            ProtocolError::TooManyStreams(4),
        ),
    ];
    for (frames, expected) in cases {
        assert_eq!(give(frames).unwrap_err(), expected, "{frames:?}");
    }
}

#[test]
fn what_was_under_way_for_a_closed_stream_is_dropped() {
    let mut guest = give(&[Frame::Data(StreamId::STDIN, b"a")]).unwrap();
    guest.stop(StreamId::STDIN);
    let late = [
        Frame::Data(StreamId::STDIN, b"b"),
        Frame::End(StreamId::STDIN),
    ];
    guest.receive(&wire(&late)[PREAMBLE.len()..]).unwrap();
    guest.end(StreamId::STDOUT);
    guest.output();
    guest
        .receive(&wire(&[Frame::Credit(StreamId::STDOUT, 9)])[PREAMBLE.len()..])
        .unwrap();
}

#[test]
fn control_that_nobody_takes_is_bounded() {
    let mut guest = Mux::new(Role::Guest, SMALL);
    guest.receive(&PREAMBLE).unwrap();
    let flood = wire(&[Frame::Control(&[0; 1000])])[PREAMBLE.len()..].to_vec();
    let taken = (0..2000)
        .take_while(|_| guest.receive(&flood).is_ok())
        .count();
    assert!(taken * 1000 <= MAX_CONTROL_BYTES);

    let mut sender = Mux::new(Role::Guest, SMALL);
    let sent = (0..2000)
        .take_while(|_| sender.send_control(&[0; 1000]).is_ok())
        .count();
    assert!((900..1100).contains(&sent));
    assert_eq!(
        sender.send_control(b"x".repeat(65_537).as_slice()),
        Err(SendError::BadControl { bytes: 65_537 })
    );
}

#[test]
fn a_peer_that_opens_and_takes_nothing_is_cut_off() {
    let mut guest = Mux::new(Role::Guest, SMALL);
    guest.receive(&PREAMBLE).unwrap();
    for number in 16..1_000_000 {
        let id = StreamId::from_raw(number << 2);
        if guest
            .receive(&wire(&[Frame::Open(id)])[PREAMBLE.len()..])
            .is_err()
        {
            return;
        }
        while guest.next_event().is_some() {}
        guest.stop(id);
    }
    panic!("never cut off");
}

#[derive(Debug, Clone)]
enum Step {
    Write {
        host: bool,
        stream: usize,
        bytes: Vec<u8>,
    },
    Read {
        host: bool,
        stream: usize,
        most: usize,
    },
    Carry {
        to_guest: bool,
        most: usize,
    },
    Control {
        host: bool,
        byte: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop::collection::vec(any::<u8>(), 1..90);
    let step = prop_oneof![
        (any::<bool>(), 0usize..3, bytes).prop_map(|(host, stream, bytes)| Step::Write {
            host,
            stream,
            bytes
        }),
        (any::<bool>(), 0usize..3, 1usize..90).prop_map(|(host, stream, most)| Step::Read {
            host,
            stream,
            most
        }),
        (any::<bool>(), 1usize..200).prop_map(|(to_guest, most)| Step::Carry { to_guest, most }),
        (any::<bool>(), any::<u8>()).prop_map(|(host, byte)| Step::Control { host, byte }),
    ];
    prop::collection::vec(step, 0..300)
}

/// One side of the property test, with what it wrote and what it got.
struct Side {
    mux: Mux,
    outgoing: Vec<StreamId>,
    incoming: Vec<StreamId>,
    wrote: Vec<Vec<u8>>,
    got: Vec<Vec<u8>>,
    control_sent: Vec<u8>,
    control_got: Vec<u8>,
}

impl Side {
    fn new(mux: Mux, outgoing: Vec<StreamId>, incoming: Vec<StreamId>) -> Side {
        let (wrote, got) = (
            vec![Vec::new(); outgoing.len()],
            vec![Vec::new(); incoming.len()],
        );
        Side {
            mux,
            outgoing,
            incoming,
            wrote,
            got,
            control_sent: Vec::new(),
            control_got: Vec::new(),
        }
    }

    fn write(&mut self, stream: usize, bytes: &[u8]) {
        let stream = stream % self.outgoing.len();
        let taken = self.mux.write(self.outgoing[stream], bytes).unwrap();
        self.wrote[stream].extend_from_slice(&bytes[..taken]);
    }

    fn read(&mut self, stream: usize, most: usize) {
        let stream = stream % self.incoming.len();
        let bytes = read(&mut self.mux, self.incoming[stream], most);
        self.got[stream].extend_from_slice(&bytes);
    }

    fn check(&mut self) {
        while let Some(event) = self.mux.next_event() {
            if let Event::Control(bytes) = event {
                self.control_got.extend_from_slice(&bytes);
            }
        }
        for receiver in self.mux.streams.receivers.values() {
            assert!(receiver.queue.len() <= 64, "no more than a window is held");
            assert!(
                receiver.queue.len() + receiver.consumed as usize + receiver.allowance as usize
                    <= 64
            );
        }
        for sender in self.mux.streams.senders.values() {
            assert!(sender.queue.len() <= 40 && sender.credit <= 64);
        }
        assert!(self.mux.out.len() <= OUTPUT_BYTES + MAX_CONTROL_BYTES);
    }
}

proptest! {
    #[test]
    fn every_byte_arrives_in_order_whatever_the_interleaving(steps in steps()) {
        let (mut host, mut guest) = pair(SMALL);
        let down = host.open(Direction::ToGuest).unwrap();
        let up = guest.open(Direction::ToHost).unwrap();
        settle(&mut host, &mut guest);
        let (to_guest, to_host) = (vec![StreamId::STDIN, down], vec![StreamId::STDOUT, StreamId::STDERR, up]);
        let mut host = Side::new(host, to_guest.clone(), to_host.clone());
        let mut guest = Side::new(guest, to_host, to_guest);
        for step in steps {
            match step {
                Step::Write { host: true, stream, bytes } => host.write(stream, &bytes),
                Step::Write { host: false, stream, bytes } => guest.write(stream, &bytes),
                Step::Read { host: true, stream, most } => host.read(stream, most),
                Step::Read { host: false, stream, most } => guest.read(stream, most),
                Step::Carry { to_guest: true, most } => drop(carry(&mut host.mux, &mut guest.mux, most)),
                Step::Carry { to_guest: false, most } => drop(carry(&mut guest.mux, &mut host.mux, most)),
                Step::Control { host: to_guest, byte } => {
                    let side = if to_guest { &mut host } else { &mut guest };
                    side.mux.send_control(&[byte]).unwrap();
                    side.control_sent.push(byte);
                }
            }
            host.check();
            guest.check();
        }
        for side in [&mut host, &mut guest] {
            for id in side.outgoing.clone() {
                side.mux.end(id);
            }
        }
        loop {
            let moved = carry(&mut host.mux, &mut guest.mux, 50) + carry(&mut guest.mux, &mut host.mux, 50);
            for stream in 0..3 {
                host.read(stream, 33);
                guest.read(stream, 33);
            }
            host.check();
            guest.check();
            if moved == 0 && host.mux.is_idle() && guest.mux.is_idle() {
                break;
            }
        }
        assert_eq!(host.wrote, guest.got);
        assert_eq!(guest.wrote, host.got);
        assert_eq!(host.control_sent, guest.control_got);
        assert_eq!(guest.control_sent, host.control_got);
        for (side, ids) in [(&host, &host.incoming), (&guest, &guest.incoming)] {
            assert!(ids.iter().all(|id| side.mux.peek(*id) == Incoming::Ended));
        }
    }

    #[test]
    fn hostile_frames_never_panic_and_never_pile_up(raw in prop::collection::vec(
        (0u8..8, prop_oneof![0u32..90, any::<u32>()], prop::collection::vec(any::<u8>(), 0..80)), 0..100)) {
        let mut guest = Mux::new(Role::Guest, SMALL);
        guest.receive(&PREAMBLE).unwrap();
        for (kind, stream, payload) in raw {
            let mut bytes = vec![0xfb, 0x01, kind, 0];
            bytes.extend_from_slice(&stream.to_le_bytes());
            bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&payload);
            let outcome = guest.receive(&bytes);
            while guest.next_event().is_some() {}
            let held: usize = guest.streams.receivers.values().map(|receiver| receiver.queue.len()).sum();
            assert!(held <= 64 * 5);
            if outcome.is_err() {
                break;
            }
        }
    }
}
