//! The network of steps: their own, the host's loopback out of reach, also for those that write frames by hand.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebuild_build::chain::Chain;
use firebuild_build::graph::NetworkMode;
use firebuild_build::sandbox::Sandbox;
use firebuild_rootfs::layer::{Change, Layer};
use firebuild_rootfs::tree::{Content, Inode, Kind, Meta};

use crate::base::{Base, push, run, shell};
use crate::cases::{Case, EVERYBODY};
use crate::user::Who;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "steps_have_a_network_of_their_own",
        who: EVERYBODY,
        run: steps_have_a_network_of_their_own,
    },
    Case {
        name: "the_hosts_loopback_is_out_of_reach",
        who: EVERYBODY,
        run: the_hosts_loopback_is_out_of_reach,
    },
    Case {
        name: "without_passt_it_is_the_hosts",
        who: EVERYBODY,
        run: without_passt_it_is_the_hosts,
    },
];

/// `frames LINK TCP UDP`: the program of a step that writes frames.
pub(crate) const FRAMES: &str = "frames";

/// `frames IFACE TCP_PORT UDP_PORT`: what a step's program sends to the host's loopback by hand.
pub(crate) fn send_frames(arguments: &[String]) {
    let [link, tcp, udp] = arguments else {
        panic!("a link and two ports");
    };
    let (tcp, udp) = (tcp.parse().unwrap(), udp.parse().unwrap());
    let index = firebuild_sys::net::link_index(link).unwrap();
    let socket = firebuild_sys::packet::open(index).unwrap();
    let mut count = 0;
    for to in DISGUISES {
        for source in [40_000, 40_001] {
            for frame in [
                ipv4(to, 6, &tcp_syn(source, tcp)),
                ipv4(to, 17, &datagram(source, udp)),
            ] {
                rustix::io::write(&socket, &frame).unwrap();
                count += 1;
            }
        }
    }
    // Something that passt answers shows that frames leave at all: an ARP request for the gateway.
    rustix::io::write(&socket, &arp()).unwrap();
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(std::time::Duration::from_secs(10)),
    )
    .unwrap();
    let mut answer = [0; 2048];
    loop {
        rustix::io::read(&socket, &mut answer).unwrap();
        if answer[12..14] == [8, 6] && answer[20..22] == [0, 2] {
            break;
        }
    }
    let mut out = std::io::stdout();
    writeln!(out, "sent {count} frames").unwrap();
}

const DISGUISES: [Ipv4Addr; 6] = [
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::UNSPECIFIED,
    Ipv4Addr::new(127, 9, 9, 9),
    Ipv4Addr::new(0, 1, 2, 3),
    Ipv4Addr::new(10, 0, 2, 2),
    Ipv4Addr::new(169, 254, 169, 254),
];

fn ethernet(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [
        &[2, 0xfb, 0, 0, 0, 2, 2, 0xfb, 0, 0, 0, 0x15][..],
        &kind,
        packet,
    ]
    .concat()
}

fn arp() -> Vec<u8> {
    let request = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0xfb, 0, 0, 0, 0x15, 10, 0, 2, 15];
    ethernet([8, 6], &[&request[..], &[0; 6], &[10, 0, 2, 2]].concat())
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

fn ipv4(to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let addresses = [&[10, 0, 2, 15][..], &to.octets()].concat();
    let length = u16::try_from(payload.len()).unwrap();
    let mut payload = payload.to_vec();
    let pseudo = [
        &addresses[..],
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
    header.extend(addresses);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    ethernet([8, 0], &[header, payload].concat())
}

fn tcp_syn(from: u16, to: u16) -> Vec<u8> {
    [
        &from.to_be_bytes()[..],
        &to.to_be_bytes(),
        &[0, 0, 3, 232, 0, 0, 0, 0, 0x50, 2, 0xfa, 0xf0, 0, 0, 0, 0],
    ]
    .concat()
}

fn datagram(from: u16, to: u16) -> Vec<u8> {
    [
        &from.to_be_bytes()[..],
        &to.to_be_bytes(),
        &[0, 10, 0, 0],
        b"hi",
    ]
    .concat()
}

/// The base with this test program as `/test`, and the libraries it needs where it looks for them.
fn with_this_program(base: &Base) -> Arc<Chain> {
    let mut files = vec![(PathBuf::from("/proc/self/exe"), "test".to_owned())];
    let maps = fs_err::read_to_string("/proc/self/maps").unwrap();
    let mut libraries: Vec<&str> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.contains("/lib") && path.contains(".so"))
        .collect();
    libraries.dedup();
    for path in libraries {
        files.push((
            PathBuf::from(path),
            path.trim_start_matches("/usr/")
                .trim_start_matches('/')
                .to_owned(),
        ));
    }
    let loader = "lib64/ld-linux-x86-64.so.2";
    files.push((Path::new("/").join(loader), loader.to_owned()));
    let mut layer = Layer::default();
    let meta = Meta {
        mode: 0o755,
        ..Meta::default()
    };
    for (from, to) in files {
        let content = Content::from_bytes(fs_err::read(from).unwrap());
        layer.push(
            to,
            Change::Node(Inode::new(meta.clone(), Kind::File(content))),
        );
    }
    layer.sort();
    push(base.store, &base.chain, &layer)
}

/// passt, or why the test cannot be.
fn passt(name: &str) -> Option<PathBuf> {
    let found = ["/usr/local/bin/passt", "/usr/bin/passt"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file());
    if found.is_none() {
        let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|need| need == "tool:passt"),
            "{name} needs passt"
        );
        eprintln!("SKIP {name}: passt is not installed");
    }
    found
}

fn sandbox(base: &Base, passt: PathBuf) -> Sandbox<'static> {
    base.sandbox().with_network(passt)
}

fn steps_have_a_network_of_their_own(directory: &Path, _: Who) {
    let Some(passt) = passt("steps_have_a_network_of_their_own") else {
        return;
    };
    let base = Base::new(directory);
    let sandbox = sandbox(&base, passt);
    let hosts = fs_err::read_link("/proc/self/ns/net").unwrap();
    let script = "readlink /proc/self/ns/net; ip -o -4 addr show dev eth0 | tr -s ' ' | grep -c 10.0.2.15/24; \
         ip route; ls /sys/class/net; cat /etc/resolv.conf; ip link add x type dummy 2> /dev/null || echo no changes";
    let first = run(&sandbox, &base.chain, &shell(script)).unwrap();
    assert_eq!(first.done.notices, Vec::<String>::new());
    let text = first.ok();
    let own = text.lines().next().unwrap();
    assert_ne!(own, hosts.to_str().unwrap());
    assert!(
        text.contains("\n1\ndefault via 10.0.2.2 dev eth0"),
        "{text}"
    );
    assert!(text.contains("\neth0\nlo\n"), "{text}");
    assert!(text.contains("nameserver "), "{text}");
    assert!(!text.contains("nameserver 127."), "{text}");
    assert!(text.ends_with("no changes\n"), "{text}");
    let again = run(&sandbox, &base.chain, &shell("readlink /proc/self/ns/net")).unwrap();
    assert_eq!(again.ok().trim(), own, "one network for a build");

    let mut step = shell("readlink /proc/self/ns/net; ls /sys/class/net");
    step.network = NetworkMode::None;
    let none = run(&sandbox, &base.chain, &step).unwrap();
    assert!(
        !none.ok().contains(own) && none.ok().ends_with("\nlo\n"),
        "{}",
        none.ok()
    );
    step.network = NetworkMode::Host;
    let host = run(&sandbox, &base.chain, &step).unwrap();
    assert!(
        host.ok().starts_with(hosts.to_str().unwrap()),
        "{}",
        host.ok()
    );
}

fn the_hosts_loopback_is_out_of_reach(directory: &Path, _: Who) {
    let Some(passt) = passt("the_hosts_loopback_is_out_of_reach") else {
        return;
    };
    let base = Base::new(directory);
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ports = [
        tcp.local_addr().unwrap().port(),
        udp.local_addr().unwrap().port(),
    ];
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    let chain = with_this_program(&base);
    let [tcp_port, udp_port] = ports;
    let script = format!(
        "for a in 127.0.0.1 0.0.0.0 10.0.2.2 127.9.9.9; do (echo x | nc -w 1 $a {tcp_port} && echo reached $a) & \
         done 2> /dev/null; sleep 1; /test frames eth0 {tcp_port} {udp_port}; echo"
    );
    let mut step = shell(&script);
    let ran = run(&sandbox(&base, passt), &chain, &step).unwrap();
    assert_eq!(ran.ok(), "sent 24 frames\n\n", "{}", ran.stderr);
    // passt has taken every frame by the time that it answers the last one; connections of the kernel follow at once.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(tcp.accept().is_err(), "a connection to the host's loopback");
    let mut buffer = [0; 64];
    assert!(
        udp.recv(&mut buffer).is_err(),
        "a datagram to the host's loopback"
    );

    // The listeners are there for those that may.
    step.network = NetworkMode::Host;
    step.argv[2] = format!("echo x | nc -w 1 127.0.0.1 {tcp_port} & sleep 1");
    run(&base.sandbox(), &base.chain, &step).unwrap();
    assert!(tcp.accept().is_ok());
}

fn without_passt_it_is_the_hosts(directory: &Path, _: Who) {
    let base = Base::new(directory);
    for broken in ["/nonexistent/passt", "/bin/false"] {
        let sandbox = sandbox(&base, PathBuf::from(broken));
        let step = shell("readlink /proc/self/ns/net");
        let ran = run(&sandbox, &base.chain, &step).unwrap();
        let hosts = fs_err::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(ran.stdout.trim(), hosts.to_str().unwrap());
        let [notice] = ran.done.notices.as_slice() else {
            panic!("{:?}", ran.done.notices);
        };
        assert!(notice.contains("use the host's network"), "{notice}");
        let again = run(&sandbox, &base.chain, &step).unwrap();
        assert_eq!(again.done.notices, Vec::<String>::new(), "said once");
    }
}
