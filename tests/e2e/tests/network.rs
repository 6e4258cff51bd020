//! User-mode networking as users see it: out of the guest, in by published ports, never to the host's loopback. Each test
//! runs in a network namespace of its own, with another one behind it as the outside.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use firebuild_e2e::netns::{in_namespace, machines_here, net_home as home};
use firebuild_netlab::{Outside, answer_of, ask_tcp, ask_udp, serve_on};

#[test]
fn a_guest_reaches_the_outside_and_not_the_hosts_loopback() {
    let test = "a_guest_reaches_the_outside_and_not_the_hosts_loopback";
    if !in_namespace(test) {
        return;
    }
    let outside = Outside::make();
    outside.serve(4000);
    for address in ["127.0.0.1:4001", "[::1]:4001"] {
        serve_on(address.parse().unwrap(), "LOOPBACK");
    }
    let Some(home) = home(test) else { return };
    // IPv6 works at once: the first attempt counts, since what gets no answer is tried again only after it was given up.
    let script = "echo 20000 >/proc/sys/net/ipv6/neigh/eth0/retrans_time_ms; net tcp [2001:db8::2]:4000\n\
        echo 1000 >/proc/sys/net/ipv6/neigh/eth0/retrans_time_ms\n\
        for k in tcp udp; do\n\
        for a in 198.51.100.2:4000 [2001:db8::2]:4000 10.0.2.2:4001 10.0.2.3:4001 198.51.100.1:4001; do net $k $a; done\n\
        done; net tcp 198.51.100.2:4999; echo mtu $(cat /sys/class/net/eth0/mtu)";
    let machine = home.path().join("machine.json");
    let interface = r#"{"network-interfaces": [{"iface_id": "eth0", "mtu": 1280}]}"#;
    fs_err::write(&machine, interface).unwrap();
    let machine = format!("--machine-config={}", machine.display());
    let done = home
        .fb(["run", "--rm", &machine, "net:1", "--", script])
        .ok();
    let told = done.out();
    for kind in ["tcp", "udp"] {
        for address in ["198.51.100.2:4000", "[2001:db8::2]:4000"] {
            let expected = format!("RESULT {kind} {address} outside-{kind} word\n");
            assert!(
                told.contains(&expected),
                "no {expected:?} in\n{told}{}",
                done.err()
            );
        }
    }
    assert!(
        told.starts_with("RESULT tcp [2001:db8::2]:4000 outside-tcp word\n"),
        "IPv6 at once: {told}"
    );
    assert!(!told.contains("LOOPBACK"), "{told}");
    assert_eq!(told.matches(":4001 none").count(), 6, "{told}");
    assert!(
        told.contains(":4999 none (Connection refused"),
        "a refusal is no time-out: {told}"
    );
    assert!(told.contains("mtu 1280\n"), "{told}");
    assert_eq!(machines_here(), Vec::<String>::new());

    let done = home
        .fb([
            "run",
            "--rm",
            "--network",
            "none",
            "net:1",
            "--",
            "net tcp 198.51.100.2:4000",
        ])
        .ok();
    assert!(
        done.out().contains("none (Network is unreachable"),
        "{}",
        done.out()
    );
}

/// By `::1` passt looks for the guest at its link-local address, which therefore is there before the application is.
#[test]
fn a_client_at_the_hosts_ipv6_loopback_is_heard_in_the_first_second() {
    let test = "a_client_at_the_hosts_ipv6_loopback_is_heard_in_the_first_second";
    if !in_namespace(test) {
        return;
    }
    let _outside = Outside::make();
    let Some(home) = home(test) else { return };
    let mut run = home.command([
        "run",
        "--rm",
        "--name",
        "early",
        "-p",
        "[::]:8443:7000",
        "net:1",
        "--",
        "net serve 7000 & sleep 0.1; ip -6 -o addr show dev eth0; echo listening; wait",
    ]);
    let mut run = run.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(run.stdout.take().unwrap());
    while !said.ends_with("listening\n") {
        assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
    }
    let begin = Instant::now();
    let answer = ask_tcp("[::1]:8443");
    let took = begin.elapsed();
    let _ = home.fb(["kill", "early"]).ok();
    let _ = run.wait();
    assert_eq!(answer.unwrap(), "guest-tcp hi", "after {took:?}\n{said}");
    // One of its own, and no other.
    assert_eq!(said.matches("inet6 fe80::").count(), 1, "{said}");
    assert!(said.contains("inet6 fe80::fb:15/64"), "{said}");
}

#[test]
fn published_ports_lead_into_the_guest_and_leave_nothing() {
    let test = "published_ports_lead_into_the_guest_and_leave_nothing";
    if !in_namespace(test) {
        return;
    }
    let _outside = Outside::make();
    let Some(home) = home(test) else { return };
    let published = [
        "8000:7000",
        "8000:7000/udp",
        "127.0.0.1:80:7000",
        "[::]:8443:7000",
        "[::]:8443:7000/udp",
    ];
    let mut args = vec!["run", "-d", "--name", "served"];
    args.extend(published.iter().flat_map(|port| ["-p", *port]));
    args.extend(["net:1", "--", "exec net serve 7000"]);
    let _ = home.fb(args).ok();
    for address in [
        "127.0.0.1:8000",
        "198.51.100.1:8000",
        "127.0.0.1:80",
        "[::1]:8443",
    ] {
        assert_eq!(answer_of(ask_tcp, address), "guest-tcp hi", "{address}");
    }
    for address in ["127.0.0.1:8000", "198.51.100.1:8000", "[::1]:8443"] {
        assert_eq!(answer_of(ask_udp, address), "guest-udp hi", "{address}");
    }
    assert!(
        ask_tcp("198.51.100.1:80").is_err(),
        "only the address that was named"
    );
    assert!(!machines_here().is_empty());

    let second = home
        .fb(["run", "--rm", "-p", "8000:1", "net:1", "--", "true"])
        .exits(125);
    let words = second.err();
    assert!(
        words.contains("0.0.0.0:8000/tcp is in use on this host") && words.contains("ss -lntp"),
        "{words}"
    );

    let _ = home.fb(["kill", "served"]).ok();
    let _ = home.fb(["wait", "served"]).ok();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !machines_here().is_empty() {
        assert!(Instant::now() < deadline, "{:?} are left", machines_here());
        std::thread::sleep(Duration::from_millis(50));
    }
    for port in ["0.0.0.0:8000", "127.0.0.1:80", "[::]:8443"] {
        TcpListener::bind(port).unwrap();
        UdpSocket::bind(port).unwrap();
    }
    let _ = home.fb(["rm", "served"]).ok();
    assert!(
        !Path::new(&home.path().join("home/run"))
            .join("served")
            .exists()
    );
}
