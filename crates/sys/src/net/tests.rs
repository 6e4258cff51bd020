use std::net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::link::{Link, add_bridge, delete, join_bridge, links};
use super::{
    add_address, add_route, link_index, link_up, no_duplicate_address_detection, set_mtu, tap,
};
use crate::namespace::{Namespaces, join, unshare};
use crate::net::veth::{Peer, add_pair, finish_frames_in_software};
use crate::packet;
use crate::testing::in_own_network;

#[test]
fn loopback_works_once_it_is_up() {
    in_own_network("loopback_works_once_it_is_up", || {
        assert!(
            UdpSocket::bind("127.0.0.1:0")
                .unwrap()
                .send_to(b"x", "127.0.0.1:9")
                .is_err()
        );
        link_up("lo").unwrap();
        TcpListener::bind("127.0.0.1:0").unwrap();
        UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .send_to(b"x", "127.0.0.1:9")
            .unwrap();
        set_mtu("lo", 1400).unwrap();
    });
}

#[test]
fn addresses_and_routes_are_set() {
    in_own_network("addresses_and_routes_are_set", || {
        link_up("lo").unwrap();
        let address = IpAddr::from([10, 9, 8, 7]);
        add_address("lo", address, 24).unwrap();
        add_address("lo", address, 24).unwrap();
        TcpListener::bind((address, 0)).unwrap();
        add_route("lo", Some((IpAddr::from([10, 99, 0, 0]), 16)), None).unwrap();
        add_route("lo", None, Some(IpAddr::from([10, 9, 8, 1]))).unwrap();
        let routes = fs_err::read_to_string("/proc/thread-self/net/route").unwrap();
        // Destination and gateway are printed as little-endian numbers.
        assert!(routes.contains("0000630A"), "{routes}");
        assert!(
            routes
                .lines()
                .any(|line| line.starts_with("lo\t00000000\t0108090A")),
            "{routes}"
        );

        let six = IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5));
        add_address("lo", six, 64).unwrap();
        TcpListener::bind((six, 0)).unwrap();
        // Loopback is no way to an IPv6 gateway; a route by the link itself shows the same message.
        let net = IpAddr::from(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 0));
        add_route("lo", Some((net, 64)), None).unwrap();
        let routes = fs_err::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
        assert!(
            routes.contains("fd010000000000000000000000000000 40"),
            "{routes}"
        );
    });
}

#[test]
fn frames_of_a_pair_leave_whole() {
    in_own_network("frames_of_a_pair_leave_whole", || {
        let here = || fs_err::File::open("/proc/thread-self/ns/net").unwrap();
        let near = here();
        unshare(Namespaces::NET).unwrap();
        let far = here();
        join(near.as_fd()).unwrap();
        let peer = Peer {
            name: "far",
            address: [2, 0, 0, 0, 0, 9],
            namespace: far.as_fd(),
        };
        add_pair("near", 65_520, peer).unwrap();
        assert!(add_pair("near", 1500, peer).is_err());
        link_up("near").unwrap();
        let frames = packet::open(link_index("near").unwrap()).unwrap();

        join(far.as_fd()).unwrap();
        assert!(link_index("near").is_err());
        finish_frames_in_software("far").unwrap();
        assert!(finish_frames_in_software("nosuchlink0").is_err());
        add_address("far", IpAddr::from([10, 9, 8, 7]), 24).unwrap();
        link_up("far").unwrap();
        let socket = UdpSocket::bind("10.9.8.7:0").unwrap();
        socket.set_broadcast(true).unwrap();
        socket.send_to(b"0123", "10.9.8.255:9").unwrap();
        let mut frame = [0; 2048];
        let length = loop {
            let length = rustix::io::read(&frames, &mut frame).unwrap();
            // The kernel says other things by IPv6.
            if frame[12..14] == [8, 0] {
                break length;
            }
        };
        assert_eq!(&frame[6..12], &[2, 0, 0, 0, 0, 9]);
        let udp = &frame[34..length];
        assert_eq!(&udp[8..], b"0123");
        let pseudo = [&frame[26..34], &[0, 17, 0, 12], udp].concat();
        let sum: u32 = pseudo
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the checksum is done");
    });
}

#[test]
fn ipv6_of_a_link_without_detection_begins_at_once() {
    in_own_network("ipv6_of_a_link_without_detection_begins_at_once", || {
        let here = fs_err::File::open("/proc/thread-self/ns/net").unwrap();
        let peer = Peer {
            name: "far",
            address: [2, 0, 0, 0, 0, 9],
            namespace: here.as_fd(),
        };
        add_pair("near", 1500, peer).unwrap();
        for link in ["near", "far"] {
            // The detection would take a minute.
            let path = format!("/proc/sys/net/ipv6/neigh/{link}/retrans_time_ms");
            fs_err::write(path, "60000").unwrap();
        }
        no_duplicate_address_detection("near").unwrap();
        assert!(no_duplicate_address_detection("nosuchlink0").is_err());
        link_up("near").unwrap();
        link_up("far").unwrap();
        // IFA_F_TENTATIVE of `linux/if_addr.h`, in the fifth column.
        let tentative = |link: &str| {
            let all = fs_err::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
            let line = all.lines().find(|line| line.ends_with(link))?;
            let flags = line.split_ascii_whitespace().nth(4)?;
            Some(u32::from_str_radix(flags, 16).unwrap() & 0x40 != 0)
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while tentative("near") != Some(false) {
            assert!(Instant::now() < deadline, "{:?}", tentative("near"));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(tentative("far"), Some(true));
    });
}

#[test]
fn refusals_have_their_errno() {
    assert_eq!(
        link_index("nosuchlink0").unwrap_err().raw_os_error(),
        Some(libc::ENODEV)
    );
    assert!(link_up("nosuchlink0").is_err());
    in_own_network("refusals_have_their_errno", || {
        let error = add_address("lo", IpAddr::from([1, 2, 3, 4]), 33).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        let mixed = add_route(
            "lo",
            Some((IpAddr::from([1, 2, 3, 0]), 24)),
            Some(IpAddr::from(Ipv6Addr::LOCALHOST)),
        );
        assert_eq!(mixed.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert!(add_route("lo", None, Some(IpAddr::from([9, 9, 9, 9]))).is_err());
    });
}

#[test]
fn taps_and_bridges_come_and_go() {
    in_own_network("taps_and_bridges_come_and_go", || {
        let named = |name: &str| -> Option<Link> {
            links().unwrap().into_iter().find(|link| link.name == name)
        };
        assert!(named("lo").is_some_and(|lo| lo.kind.is_none() && lo.master.is_none()));
        add_bridge("br", [2, 0xfb, 10, 0, 0, 1]).unwrap();
        assert!(add_bridge("br", [2, 0xfb, 10, 0, 0, 1]).is_err());
        let bridge = named("br").unwrap();
        assert_eq!(bridge.kind.as_deref(), Some("bridge"));

        tap::add("tap", Some(65_534)).unwrap();
        assert!(tap::add("tap", None).is_err(), "it is there already");
        join_bridge("tap", "br").unwrap();
        link_up("tap").unwrap();
        let made = named("tap").unwrap();
        assert_eq!(made.kind.as_deref(), Some("tun"));
        assert_eq!(made.master, Some(bridge.index));

        // One holder at a time; kept by its persistence, then by the descriptor alone.
        let held = tap::open("tap").unwrap();
        assert!(tap::open("tap").is_err());
        tap::set_persistent(held.as_fd(), false).unwrap();
        assert!(named("tap").is_some());
        drop(held);
        assert!(named("tap").is_none());

        tap::add("tap", None).unwrap();
        delete("tap").unwrap();
        assert!(named("tap").is_none());
        assert!(delete("tap").is_err());
        delete("br").unwrap();
        assert!(tap::add("a name that is too long", None).is_err());
    });
}
