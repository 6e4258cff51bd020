use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

use super::{
    Decoder, Frame, FrameError, HEADER_BYTES, MAX_GARBAGE_BYTES, MAX_PAYLOAD_BYTES, PREAMBLE,
    StreamId,
};

#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Control(Vec<u8>),
    Open(u32),
    Data(u32, Vec<u8>),
    Credit(u32, u32),
    End(u32),
    Stop(u32),
}

impl Owned {
    fn borrow(&self) -> Frame<'_> {
        let id = StreamId::from_raw;
        match self {
            Owned::Control(bytes) => Frame::Control(bytes),
            Owned::Open(stream) => Frame::Open(id(*stream)),
            Owned::Data(stream, bytes) => Frame::Data(id(*stream), bytes),
            Owned::Credit(stream, credit) => Frame::Credit(id(*stream), *credit),
            Owned::End(stream) => Frame::End(id(*stream)),
            Owned::Stop(stream) => Frame::Stop(id(*stream)),
        }
    }
}

fn own(frame: Frame<'_>) -> Owned {
    match frame {
        Frame::Control(bytes) => Owned::Control(bytes.to_vec()),
        Frame::Open(stream) => Owned::Open(stream.raw()),
        Frame::Data(stream, bytes) => Owned::Data(stream.raw(), bytes.to_vec()),
        Frame::Credit(stream, credit) => Owned::Credit(stream.raw(), credit),
        Frame::End(stream) => Owned::End(stream.raw()),
        Frame::Stop(stream) => Owned::Stop(stream.raw()),
    }
}

fn frames() -> impl Strategy<Value = Owned> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..300);
    let stream = || 1u32..;
    prop_oneof![
        bytes().prop_map(Owned::Control),
        stream().prop_map(Owned::Open),
        (stream(), bytes()).prop_map(|(stream, bytes)| Owned::Data(stream, bytes)),
        (stream(), 1u32..).prop_map(|(stream, credit)| Owned::Credit(stream, credit)),
        stream().prop_map(Owned::End),
        stream().prop_map(Owned::Stop),
    ]
}

fn decode_all(bytes: &[u8], step: usize) -> Result<Vec<Owned>, FrameError> {
    let mut decoder = Decoder::new();
    let mut found = Vec::new();
    for mut chunk in bytes.chunks(step) {
        while !chunk.is_empty() {
            let taken = decoder.push(chunk);
            assert!(taken > 0, "a drained decoder has room");
            chunk = &chunk[taken..];
            while let Some(frame) = decoder.next_frame()? {
                found.push(own(frame));
            }
        }
        assert!(decoder.buffer.capacity() <= 2 * (HEADER_BYTES + MAX_PAYLOAD_BYTES));
    }
    Ok(found)
}

proptest! {
    #[test]
    fn frames_round_trip_in_any_pieces(sent in prop::collection::vec(frames(), 0..20), step in 1usize..500,
                                       garbage in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut wire = garbage;
        wire.extend_from_slice(&PREAMBLE);
        for frame in &sent {
            frame.borrow().encode(&mut wire);
        }
        assert_eq!(decode_all(&wire, step).unwrap(), sent);
    }

    #[test]
    fn hostile_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2000), step in 1usize..100,
                                            synced in any::<bool>(), header in any::<bool>()) {
        let mut wire = Vec::new();
        if synced {
            wire.extend_from_slice(&PREAMBLE);
        }
        if header {
            wire.extend_from_slice(&super::MAGIC);
        }
        wire.extend_from_slice(&bytes);
        let _ = decode_all(&wire, step);
    }
}

#[test]
fn the_bytes_of_a_frame_are_pinned() {
    let mut wire = Vec::new();
    Frame::Data(StreamId::STDOUT, b"hi").encode(&mut wire);
    Frame::Credit(StreamId::STDERR, 0x0102).encode(&mut wire);
    assert_eq!(
        wire,
        b"\xfb\x01\x03\0\x05\0\0\0\x02\0\0\0hi\xfb\x01\x04\0\x09\0\0\0\x04\0\0\0\x02\x01\0\0"
    );
}

#[test]
fn each_rule_of_the_header_has_its_error() {
    let cases: [(&[u8], FrameError); 8] = [
        (b"\xfa", FrameError::BadHeader),
        (b"\xfb\x02", FrameError::BadHeader),
        (
            b"\xfb\x01\x03\x01\x05\0\0\0\x01\0\0\0a",
            FrameError::BadHeader,
        ),
        (
            b"\xfb\x01\x07\0\x05\0\0\0\x01\0\0\0a",
            FrameError::UnknownKind(7),
        ),
        (
            b"\xfb\x01\x03\0\x05\0\0\0\x01\0\x01\0",
            FrameError::BadLength {
                kind: 3,
                length: 0x1_0001,
            },
        ),
        (
            b"\xfb\x01\x03\0\x05\0\0\0\0\0\0\0",
            FrameError::BadLength { kind: 3, length: 0 },
        ),
        (
            b"\xfb\x01\x01\0\x05\0\0\0\x01\0\0\0a",
            FrameError::BadField { kind: 1 },
        ),
        (
            b"\xfb\x01\x04\0\x05\0\0\0\x04\0\0\0\0\0\0\0",
            FrameError::BadField { kind: 4 },
        ),
    ];
    for (bytes, expected) in cases {
        let mut wire = PREAMBLE.to_vec();
        wire.extend_from_slice(bytes);
        assert_eq!(decode_all(&wire, 7).unwrap_err(), expected, "{bytes:x?}");
    }
}

#[test]
fn an_error_stays() {
    let mut decoder = Decoder::new();
    decoder.push(&PREAMBLE);
    decoder.push(b"xxxxxxxxxxxx");
    decoder.next_frame().unwrap_err();
    decoder.push(b"\xfb\x01\x05\0\x05\0\0\0\0\0\0\0");
    decoder.next_frame().unwrap_err();
}

#[test]
fn the_search_for_the_preamble_has_an_end() {
    let mut wire = vec![0u8; MAX_GARBAGE_BYTES];
    wire.extend_from_slice(&PREAMBLE);
    assert_eq!(decode_all(&wire, 4096).unwrap(), vec![]);
    wire.insert(0, 0);
    assert_eq!(decode_all(&wire, 4096).unwrap_err(), FrameError::NoPreamble);
    // A torn preamble before the whole one.
    let mut wire = PREAMBLE[..9].to_vec();
    wire.extend_from_slice(&PREAMBLE);
    Frame::End(StreamId::STDIN).encode(&mut wire);
    assert_eq!(decode_all(&wire, 1).unwrap(), vec![Owned::End(4)]);
}
