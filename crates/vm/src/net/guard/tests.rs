use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{MAX_FRAME_BYTES, allows, spawn};

/// The guest's end and passt's end of a guarded connection.
fn guarded() -> (UnixStream, UnixStream, std::thread::JoinHandle<()>) {
    let (guest, inner) = UnixStream::pair().unwrap();
    let (outer, network) = UnixStream::pair().unwrap();
    let thread = spawn(OwnedFd::from(inner), OwnedFd::from(outer)).unwrap();
    for end in [&guest, &network] {
        end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    (guest, network, thread)
}

/// An IPv4 frame to this address with a recognisable payload, after its length.
fn frame(to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45; 16]);
    frame.extend(to);
    frame.extend(payload);
    let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
    [&length[..], &frame].concat()
}

#[test]
fn forbidden_frames_vanish_between_allowed_ones_however_they_are_cut() {
    let pieces = [
        frame([10, 0, 2, 2], b"one"),
        frame([127, 0, 0, 1], b"no"),
        frame([192, 0, 2, 9], &[7; 3000]),
        frame([0, 0, 0, 0], b"no"),
        frame([127, 0, 0, 1], &[8; 60_000]),
        frame([10, 0, 2, 3], b"two"),
    ];
    let sent = pieces.concat();
    let expected = [&pieces[0][..], &pieces[2], &pieces[5]].concat();
    for size in [1, 3, 17, 4096, sent.len()] {
        let (mut guest, mut network, thread) = guarded();
        let mut received = vec![0; expected.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sent.chunks(size)
                    .for_each(|chunk| guest.write_all(chunk).unwrap())
            });
            network.read_exact(&mut received).unwrap();
        });
        assert_eq!(received, expected, "in pieces of {size}");
        drop(guest);
        assert_eq!(network.read(&mut [0; 1]).unwrap(), 0, "nothing more comes");
        thread.join().unwrap();
    }
}

#[test]
fn what_comes_back_is_handed_through() {
    let (mut guest, mut network, thread) = guarded();
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut received = vec![0; bytes.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| network.write_all(&bytes).unwrap());
        guest.read_exact(&mut received).unwrap();
    });
    assert!(received == bytes);
    drop(network);
    assert_eq!(guest.read(&mut [0; 1]).unwrap(), 0);
    thread.join().unwrap();
}

#[test]
fn a_side_that_takes_nothing_does_not_stop_the_other_direction() {
    let (mut guest, mut network, thread) = guarded();
    // The network reads nothing, so the guest's frames pile up to the limits of sockets and guard.
    guest.set_nonblocking(true).unwrap();
    let full = frame([10, 0, 2, 2], &[1; 1000]);
    while guest.write(&full).is_ok() {}
    guest.set_nonblocking(false).unwrap();
    network.write_all(b"still").unwrap();
    let mut received = [0; 5];
    guest.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"still");
    drop((guest, network));
    thread.join().unwrap();
}

#[test]
fn a_frame_without_measure_ends_the_connection() {
    for length in [0, u32::try_from(MAX_FRAME_BYTES).unwrap() + 1, u32::MAX] {
        let (mut guest, mut network, thread) = guarded();
        guest.write_all(&length.to_be_bytes()).unwrap();
        assert_eq!(network.read(&mut [0; 1]).unwrap(), 0);
        thread.join().unwrap();
    }
}

#[test]
fn only_whole_headers_of_known_kinds_pass() {
    let whole = frame([10, 0, 2, 2], b"x");
    let whole = &whole[4..];
    assert!(allows(whole));
    for cut in 0..34 {
        assert!(!allows(&whole[..cut]), "{cut} bytes");
    }
    let mut tagged = whole.to_vec();
    tagged[12..14].copy_from_slice(&[0x81, 0x00]);
    assert!(!allows(&tagged), "VLAN tags hide addresses");
}
