use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};

use crate::meter::{Limit, Rate};

use super::{ANSWER_TIME, GATEWAY_IPV4, Guard, Limits, MAX_ANSWERS, MAX_FRAME_BYTES, shape, spawn};

/// The guest's end and passt's end of a guarded connection.
fn guarded() -> (UnixStream, UnixStream, std::thread::JoinHandle<()>) {
    limited(Limits::default())
}

fn limited(limits: Limits) -> (UnixStream, UnixStream, std::thread::JoinHandle<()>) {
    let (guest, inner) = UnixStream::pair().unwrap();
    let (outer, network) = UnixStream::pair().unwrap();
    let thread = spawn(OwnedFd::from(inner), OwnedFd::from(outer), limits).unwrap();
    for end in [&guest, &network] {
        end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    (guest, network, thread)
}

/// An IPv4 frame of this protocol between these addresses.
fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(payload);
    frame
}

fn ipv6(from: &str, to: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, next, 64]);
    frame.extend(from.parse::<Ipv6Addr>().unwrap().octets());
    frame.extend(to.parse::<Ipv6Addr>().unwrap().octets());
    frame.extend(payload);
    frame
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 4]].concat()
}

fn tcp(flags: u8) -> Vec<u8> {
    [&[0; 13][..], &[flags], &[0; 6]].concat()
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
        frame([10, 0, 2, 9], b"one"),
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
fn nothing_follows_an_opening_segment_before_it_was_read() {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    let measured = |frame: Vec<u8>| {
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        [&length[..], &frame].concat()
    };
    let v4 = |flags| {
        let (guest, outside) = ([10, 0, 2, 15].into(), [192, 0, 2, 9].into());
        measured(ipv4(guest, outside, 6, &tcp(flags)))
    };
    let v6 = |next, flags| measured(ipv6("fd00:fb::15", "2001:db8::1", next, &tcp(flags)));
    let other = frame([10, 0, 2, 9], b"other");
    // Each is what one read gives; the extension header of the last but one may hide anything.
    let expected = [
        [&other[..], &v4(SYN)].concat(),
        v4(SYN),
        [&v4(ACK)[..], &v6(6, ACK), &other, &v6(6, SYN | ACK)].concat(),
        v6(60, ACK),
        [&other[..], &v4(ACK)].concat(),
    ];
    let (mut guest, mut network, thread) = guarded();
    guest.write_all(&expected.concat()).unwrap();
    let mut buffer = [0; 4096];
    for (turn, expected) in expected.iter().enumerate() {
        let mut received = Vec::new();
        while received.len() < expected.len() {
            // Time for what must not come, then all that is there.
            std::thread::sleep(Duration::from_millis(30));
            let count = network.read(&mut buffer).unwrap();
            received.extend_from_slice(&buffer[..count]);
        }
        assert!(received == *expected, "{turn}: {received:x?}");
    }
    drop(guest);
    assert_eq!(network.read(&mut buffer).unwrap(), 0);
    thread.join().unwrap();
}

#[test]
fn what_comes_back_is_handed_through() {
    let (mut guest, mut network, thread) = guarded();
    let frames: Vec<u8> = (0..100)
        .flat_map(|n| frame([10, 0, 2, 15], &vec![n; 9000]))
        .collect();
    let mut received = vec![0; frames.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| network.write_all(&frames).unwrap());
        guest.read_exact(&mut received).unwrap();
    });
    assert!(received == frames);
    drop(network);
    assert_eq!(guest.read(&mut [0; 1]).unwrap(), 0);
    thread.join().unwrap();
}

#[test]
fn a_side_that_takes_nothing_does_not_stop_the_other_direction() {
    let (mut guest, mut network, thread) = guarded();
    // The network reads nothing, so the guest's frames pile up to the limits of sockets and guard.
    guest.set_nonblocking(true).unwrap();
    let full = frame([10, 0, 2, 9], &[1; 1000]);
    while guest.write(&full).is_ok() {}
    guest.set_nonblocking(false).unwrap();
    let back = frame([10, 0, 2, 15], b"still");
    network.write_all(&back).unwrap();
    let mut received = vec![0; back.len()];
    guest.read_exact(&mut received).unwrap();
    assert_eq!(received, back);
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
    let whole = frame([10, 0, 2, 9], b"x");
    let whole = &whole[4..];
    assert!(Guard::default().allows(whole));
    for cut in 0..34 {
        assert!(!Guard::default().allows(&whole[..cut]), "{cut} bytes");
    }
    let mut tagged = whole.to_vec();
    tagged[12..14].copy_from_slice(&[0x81, 0x00]);
    assert!(
        !Guard::default().allows(&tagged),
        "VLAN tags hide addresses"
    );
}

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

#[test]
fn the_gateway_gets_answers_and_nothing_else() {
    let mut guard = Guard::default();
    let to_gateway = |protocol, payload: &[u8]| ipv4(GUEST, GATEWAY_IPV4, protocol, payload);
    // TCP: what passt takes for the opening of a connection stays here.
    for flags in [0x02, 0x03, 0x06, 0x0a, 0x22, 0xc2] {
        assert!(!guard.allows(&to_gateway(6, &tcp(flags))), "{flags:#x}");
    }
    for flags in [0x10, 0x12, 0x11, 0x04, 0x18] {
        assert!(guard.allows(&to_gateway(6, &tcp(flags))), "{flags:#x}");
    }
    // UDP: from the port that was spoken to, to the port that spoke.
    assert!(!guard.allows(&to_gateway(17, &udp(7000, 40_000))));
    guard.deliver(&mut ipv4(GATEWAY_IPV4, GUEST, 17, &udp(40_000, 7000)));
    assert!(guard.allows(&to_gateway(17, &udp(7000, 40_000))));
    for (from, to) in [(7000, 40_001), (7001, 40_000), (40_000, 7000)] {
        assert!(
            !guard.allows(&to_gateway(17, &udp(from, to))),
            "{from} to {to}"
        );
    }
    guard.now += ANSWER_TIME;
    assert!(
        !guard.allows(&to_gateway(17, &udp(7000, 40_000))),
        "too late"
    );
    // What somebody else says gives no right to the gateway.
    guard.deliver(&mut ipv4(
        Ipv4Addr::new(192, 0, 2, 1),
        GUEST,
        17,
        &udp(50_000, 7000),
    ));
    assert!(!guard.allows(&to_gateway(17, &udp(7000, 50_000))));
    // Neither fragments, nor protocols in which a port could hide, nor headers that end early.
    let mut fragment = to_gateway(6, &tcp(0x10));
    fragment[14 + 6] = 0x20;
    assert!(!guard.allows(&fragment));
    assert!(!guard.allows(&to_gateway(132, &[0; 20])));
    assert!(!guard.allows(&to_gateway(6, &tcp(0x10)[..13])));
    assert!(!guard.allows(&to_gateway(17, &[0; 3])));
    // Options move the ports, for passt as for us.
    let mut options = ipv4(
        GUEST,
        GATEWAY_IPV4,
        6,
        &[&[0; 13][..], &[0x10, 0, 0], &tcp(0x02)].concat(),
    );
    options[14] = 0x49;
    assert!(!guard.allows(&options));
}

#[test]
fn link_local_addresses_of_ipv6_are_as_the_gateway() {
    let mut guard = Guard::default();
    let to_gateway = |next, payload: &[u8]| ipv6("fd00:fb::15", "fe80::fb:2", next, payload);
    assert!(!guard.allows(&to_gateway(6, &tcp(0x02))));
    assert!(guard.allows(&to_gateway(6, &tcp(0x12))));
    assert!(
        guard.allows(&to_gateway(58, &[135, 0, 0, 0])),
        "neighbour solicitation"
    );
    assert!(
        !guard.allows(&to_gateway(0, &[6, 0, 0, 0, 0, 0, 0, 0])),
        "extension headers"
    );
    assert!(!guard.allows(&to_gateway(17, &udp(7000, 40_000))));
    guard.deliver(&mut ipv6("fe80::fb:2", "fe80::15", 17, &udp(40_000, 7000)));
    assert!(guard.allows(&to_gateway(17, &udp(7000, 40_000))));
    assert!(
        !guard.allows(&ipv4(GUEST, GATEWAY_IPV4, 17, &udp(7000, 40_000))),
        "families are apart"
    );
}

#[test]
fn memory_for_answers_is_bounded() {
    let mut guard = Guard::default();
    for number in 0..=u16::MAX {
        guard.deliver(&mut ipv4(GATEWAY_IPV4, GUEST, 17, &udp(number, 7000)));
        guard.now += std::time::Duration::from_millis(1);
        assert!(guard.answers.len() <= MAX_ANSWERS);
    }
    assert!(
        guard.allows(&ipv4(GUEST, GATEWAY_IPV4, 17, &udp(7000, u16::MAX))),
        "the newest stay"
    );
}

/// The sum of all 16-bit words of a TCP segment and its pseudo header; 0xffff if the checksum is right.
fn tcp_sum(frame: &[u8]) -> u16 {
    let segment = &frame[34..];
    let length = u16::try_from(segment.len()).unwrap();
    let covered = [&frame[26..34], &[0, 6], &length.to_be_bytes(), segment].concat();
    let mut sum: u32 = covered
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

#[test]
fn a_reset_gets_the_ack_that_makes_it_count() {
    for (flags, acknowledged, mended) in [
        (0x04, 1001, 0x14),
        (0x04, 0, 0x04),
        (0x14, 1001, 0x14),
        (0x12, 5, 0x12),
    ] {
        for filling in [0, 0xff, 0x5a] {
            let mut segment = vec![filling; 20];
            segment[8..12].copy_from_slice(&u32::to_be_bytes(acknowledged));
            segment[12..14].copy_from_slice(&[0x50, flags]);
            segment[16..18].copy_from_slice(&[0, 0]);
            let mut frame = ipv4(GATEWAY_IPV4, GUEST, 6, &segment);
            let sum = !tcp_sum(&frame);
            frame[50..52].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(tcp_sum(&frame), 0xffff);
            Guard::default().deliver(&mut frame);
            assert_eq!(frame[47], mended);
            assert_eq!(
                tcp_sum(&frame),
                0xffff,
                "flags {flags:#x}, filled with {filling}"
            );
        }
    }
    // What ends early is handed through as it is.
    for length in 0..54 {
        let mut frame = ipv4(GATEWAY_IPV4, GUEST, 6, &tcp(0x04));
        frame.truncate(length);
        let before = frame.clone();
        Guard::default().deliver(&mut frame);
        assert_eq!(frame, before);
    }
}

#[test]
fn a_tap_is_counted_and_not_looked_at() {
    // One frame a read or write, as a tap.
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (kind, family) = (SocketType::SEQPACKET, AddressFamily::UNIX);
    let (tap, link) = rustix::net::socketpair(family, kind, flags, None).unwrap();
    let (mut guest, inner) = UnixStream::pair().unwrap();
    let limits = Limits {
        to_guest: Limit {
            bytes: None,
            frames: Some(Rate {
                size: 5,
                refill: Duration::from_millis(250),
                burst: 5,
            }),
        },
        ..Limits::default()
    };
    let thread = shape(OwnedFd::from(inner), tap, limits).unwrap();
    // What a guard before passt would drop.
    let loopback = frame([127, 0, 0, 1], &[7; 60]);
    guest.write_all(&loopback.repeat(2)).unwrap();
    let mut came = [0; 2048];
    for _ in 0..2 {
        let count = rustix::io::read(&link, &mut came).unwrap();
        assert_eq!(came[..count], loopback[4..]);
    }
    // Ten frames pass at once, the bucket and the burst; the rest at 20 a second. A read takes what is there, so the debt
    // shows with what comes after it.
    let begun = Instant::now();
    for count in [30, 1] {
        for _ in 0..count {
            rustix::io::write(&link, &loopback[4..]).unwrap();
        }
        let mut all = vec![0; count * loopback.len()];
        guest.read_exact(&mut all).unwrap();
        assert_eq!(all, loopback.repeat(count));
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(700), "{took:?}");
    drop((guest, link));
    thread.join().unwrap();
}

#[test]
fn what_is_limited_comes_late_and_whole() {
    let rate = Rate {
        size: 20_000,
        refill: Duration::from_millis(100),
        burst: 0,
    };
    let limits = Limits {
        from_guest: Limit {
            bytes: Some(rate),
            frames: None,
        },
        ..Limits::default()
    };
    let (mut guest, mut network, thread) = limited(limits);
    let one = frame([8, 8, 8, 8], &[7; 966]);
    let frames = one.repeat(200);
    let begun = Instant::now();
    // The guest's buffers do not hold it all: it waits.
    let sent = frames.clone();
    let writer = std::thread::spawn(move || guest.write_all(&sent).map(|()| guest));
    let mut came = vec![0; frames.len()];
    network.read_exact(&mut came).unwrap();
    assert_eq!(came, frames);
    // 200 kB, of which 20 kB are in the bucket and a read may run ahead by what a buffer holds.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(9), "{took:?}");
    // The other way is free.
    let begun = Instant::now();
    let mut guest = writer.join().unwrap().unwrap();
    network.write_all(&frames).unwrap();
    guest.read_exact(&mut came).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(500));
    // The debt of the first is still there: what comes next waits for it.
    let begun = Instant::now();
    guest.write_all(&one).unwrap();
    network.read_exact(&mut came[..one.len()]).unwrap();
    let waited = begun.elapsed() + took;
    assert!(waited > Duration::from_millis(700), "{waited:?}");
    drop((guest, network));
    thread.join().unwrap();
}
