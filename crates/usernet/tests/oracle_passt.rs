//! What a guest that writes its own frames reaches through passt, with the guard before it: nothing of the host's loopback.
//!
//! The installed passt is the oracle: the same frames are sent without the guard too, which shows that they mean what the
//! test thinks they mean.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: what fails here fails the test, and skips are loud"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use firebuild_sys::spawn::pass_fds;
use firebuild_usernet::PASST;
use firebuild_usernet::guard::{self, Guard};

const GUEST_MAC: [u8; 6] = [0x02, 0xfb, 0, 0, 0, 0x15];
const GATEWAY_MAC: [u8; 6] = [0x02, 0xfb, 0, 0, 0, 0x02];

/// A passt with the guest's end of its connection in our hands.
struct Passt {
    child: Child,
    guest: UnixStream,
}

impl Passt {
    fn start(test: &str, guarded: bool) -> Option<Self> {
        Self::publishing(test, guarded, None)
    }

    /// The same with this port of the host published.
    fn publishing(test: &str, guarded: bool, published: Option<u16>) -> Option<Self> {
        let directories = ["/usr/local/bin", "/usr/bin"].map(Path::new);
        let programs = directories.map(|directory| directory.join(PASST));
        let Some(program) = programs.iter().find(|program| program.is_file()) else {
            let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|need| need == "tool:passt"),
                "{test} needs passt"
            );
            eprintln!("SKIP {test}: passt is not installed");
            return None;
        };
        let (mut guest, mut theirs) = UnixStream::pair().unwrap();
        if guarded {
            let (outer, inner) = UnixStream::pair().unwrap();
            guard::spawn(
                OwnedFd::from(theirs),
                OwnedFd::from(outer),
                guard::Limits::default(),
            )
            .unwrap();
            theirs = inner;
        }
        let mut command = Command::new(program);
        command.args([
            "--foreground",
            "--quiet",
            "--stderr",
            "--fd",
            "3",
            "--ipv4-only",
            "--interface",
            "lo",
        ]);
        command.args([
            "--mac-addr",
            "02:fb:00:00:00:02",
            "--address",
            "10.0.2.15",
            "--netmask",
            "24",
        ]);
        command.args(["--gateway", "10.0.2.2", "--no-dhcp"]);
        if let Some(port) = published {
            command.args(["--tcp-ports", &format!("127.0.0.1/{port}:7001")]);
        }
        if rustix::process::geteuid().is_root() {
            command.args(["--runas", "63999:63999"]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        pass_fds(&mut command, vec![(OwnedFd::from(theirs), 3)]).unwrap();
        let child = command.spawn().unwrap();
        drop(command);
        // It answers ARP as soon as it runs.
        guest
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        send(&mut guest, &arp());
        let mut passt = Self { child, guest };
        assert_eq!(passt.receive()[12..14], [0x08, 0x06], "passt answers ARP");
        Some(passt)
    }

    /// The next frame for the guest.
    fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.guest.read_exact(&mut length).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.guest.read_exact(&mut frame).unwrap();
        frame
    }

    /// The next TCP segment over IPv4 for the guest.
    fn receive_tcp(&mut self) -> Vec<u8> {
        loop {
            let frame = self.receive();
            if frame[12..14] == [0x08, 0x00] && frame[23] == 6 {
                return frame[34..].to_vec();
            }
        }
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(guest: &mut UnixStream, frame: &[u8]) {
    guest.write_all(&measured(frame)).unwrap();
}

/// A frame as it goes over the socket.
fn measured(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
    [&length, frame].concat()
}

fn ethernet(kind: u16, packet: &[u8]) -> Vec<u8> {
    [&GATEWAY_MAC[..], &GUEST_MAC, &kind.to_be_bytes(), packet].concat()
}

fn arp() -> Vec<u8> {
    let request = [0, 1, 8, 0, 6, 4, 0, 1];
    ethernet(
        0x0806,
        &[
            &request[..],
            &GUEST_MAC,
            &[10, 0, 2, 15],
            &[0; 6],
            &[10, 0, 2, 2],
        ]
        .concat(),
    )
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

fn ipv4(to: Ipv4Addr, protocol: u8, mut payload: Vec<u8>) -> Vec<u8> {
    let from = [10, 0, 2, 15];
    let length = u16::try_from(payload.len()).unwrap();
    let pseudo = [
        &from[..],
        &to.octets(),
        &[0, protocol],
        &length.to_be_bytes(),
        &payload,
    ]
    .concat();
    let at = if protocol == 6 { 16 } else { 6 };
    payload[at..at + 2].copy_from_slice(&checksum(&pseudo));
    let mut header = vec![0x45, 0];
    header.extend((length + 20).to_be_bytes());
    header.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    header.extend(from);
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    ethernet(0x0800, &[header, payload].concat())
}

fn tcp_syn(port: u16, from: u16) -> Vec<u8> {
    [
        &from.to_be_bytes()[..],
        &port.to_be_bytes(),
        &[0, 0, 3, 232, 0, 0, 0, 0, 0x50, 2, 0xfa, 0xf0, 0, 0, 0, 0],
    ]
    .concat()
}

fn udp(port: u16, from: u16) -> Vec<u8> {
    [
        &from.to_be_bytes()[..],
        &port.to_be_bytes(),
        &10u16.to_be_bytes(),
        &[0, 0],
        b"hi",
    ]
    .concat()
}

/// Which of these addresses lead to listeners on 127.0.0.1, by TCP and by UDP.
fn reached(passt: &mut Passt, addresses: &[Ipv4Addr]) -> Vec<(Ipv4Addr, bool, bool)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let (tcp_port, udp_port) = (
        listener.local_addr().unwrap().port(),
        socket.local_addr().unwrap().port(),
    );
    let mut found = Vec::new();
    for (index, &to) in addresses.iter().enumerate() {
        let from = 40_000 + u16::try_from(index).unwrap();
        send(&mut passt.guest, &ipv4(to, 6, tcp_syn(tcp_port, from)));
        send(&mut passt.guest, &ipv4(to, 17, udp(udp_port, from)));
        std::thread::sleep(Duration::from_millis(300));
        let tcp = listener.accept().is_ok();
        let mut buffer = [0; 16];
        let datagram = socket.recv(&mut buffer).is_ok();
        found.push((to, tcp, datagram));
    }
    found
}

const LOOPBACK: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

#[test]
fn no_frame_reaches_the_hosts_loopback_through_the_guard() {
    let Some(mut passt) = Passt::start(
        "no_frame_reaches_the_hosts_loopback_through_the_guard",
        true,
    ) else {
        return;
    };
    let addresses = [
        &LOOPBACK[..],
        &[
            GATEWAY,
            Ipv4Addr::new(127, 1, 2, 3),
            Ipv4Addr::new(0, 1, 2, 3),
        ],
    ]
    .concat();
    for (to, tcp, udp) in reached(&mut passt, &addresses) {
        assert!(
            !tcp && !udp,
            "{to} leads to the host's loopback (tcp {tcp}, udp {udp})"
        );
    }
}

#[test]
fn the_guards_are_the_frames_that_passt_would_take() {
    let Some(mut passt) = Passt::start("the_guards_are_the_frames_that_passt_would_take", false)
    else {
        return;
    };
    let found = reached(&mut passt, &LOOPBACK);
    if found.iter().all(|(_, tcp, udp)| !tcp && !udp) {
        eprintln!("this passt refuses such frames by itself");
    }
    // This mapping is why the guard looks at what goes to the gateway.
    assert_eq!(reached(&mut passt, &[GATEWAY]), [(GATEWAY, true, true)]);
}

/// A server that speaks first, whose frames reach passt late and together because the host is busy: without the barrier behind
/// opening segments passt would never come back from them.
#[test]
fn frames_that_come_together_do_not_stop_passt() {
    let test = "frames_that_come_together_do_not_stop_passt";
    // A port that is free now; passt says nothing of one that it does not get, and then nobody answers.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let Some(mut passt) = Passt::publishing(test, true, Some(port)) else {
        return;
    };
    for round in 0..3u32 {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        // What passt says of earlier connections may come first.
        let syn = loop {
            let segment = passt.receive_tcp();
            if segment[13] == 0x02 {
                break segment;
            }
        };
        let acknowledged = u32::from_be_bytes(syn[4..8].try_into().unwrap()) + 1;
        let segment = |sequence: u32, flags: u8, data: &[u8]| {
            let mut tcp = [&syn[2..4], &syn[..2]].concat();
            tcp.extend(sequence.to_be_bytes());
            tcp.extend(acknowledged.to_be_bytes());
            tcp.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            tcp.extend(data);
            measured(&ipv4(GATEWAY, 6, tcp))
        };
        let begin = 1000 * (round + 1);
        let opening = segment(begin, 0x12, b"");
        let greeting = segment(begin + 1, 0x18, b"hello");
        // The guest has repeated its SYN+ACK, then got the ACK and spoke.
        let together = [&opening[..], &opening, &greeting].concat();
        passt.guest.write_all(&together).unwrap();
        let mut heard = [0; 5];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        // Two SYNs of a connection that the guest opens.
        let opening = measured(&ipv4(
            Ipv4Addr::new(192, 0, 2, 9),
            6,
            tcp_syn(9, 50_000 + u16::try_from(round).unwrap()),
        ));
        passt
            .guest
            .write_all(&[&opening[..], &opening].concat())
            .unwrap();
    }
    // It is still there.
    send(&mut passt.guest, &arp());
    while passt.receive()[12..14] != [0x08, 0x06] {}
}

#[test]
fn addresses_of_the_host_itself_are_known_in_every_disguise() {
    let guard = Guard::default();
    let frame_v6 = |to: Ipv6Addr| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
        packet.extend([0xfd; 16]);
        packet.extend(to.octets());
        ethernet(0x86dd, &packet)
    };
    let refused = [
        "127.0.0.1",
        "127.255.0.1",
        "0.0.0.0",
        "0.9.9.9",
        "169.254.169.254",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "::ffff:192.0.2.1",
    ];
    for text in refused {
        let frame = match text.parse().unwrap() {
            IpAddr::V4(to) => ipv4(to, 17, udp(53, 1)),
            IpAddr::V6(to) => frame_v6(to),
        };
        assert!(!guard.allows(&frame), "{text}");
    }
    for text in [
        "10.0.2.3",
        "192.0.2.1",
        "255.255.255.255",
        "2001:db8::1",
        "ff02::1",
        "64:ff9b::1",
    ] {
        let frame = match text.parse().unwrap() {
            IpAddr::V4(to) => ipv4(to, 17, udp(53, 1)),
            IpAddr::V6(to) => frame_v6(to),
        };
        assert!(guard.allows(&frame), "{text}");
    }
    assert!(guard.allows(&arp()));
}
