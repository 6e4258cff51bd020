//! User-mode networking end to end, in network namespaces that the test makes:
//!
//! ```text
//!   namespace of the test (the "host")                      namespace "outside"
//!   QEMU ═ guard ═ passt      v0 198.51.100.1 ─────────────── v1 198.51.100.2
//!   lo: listeners on 127.0.0.1 and ::1                        listeners
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use firebuild_netlab::{Outside, ask_tcp, ask_udp, is_inside, run_in_namespace, serve_on, shell};
use firebuild_vm::Backend;
use firebuild_vm::agent::AgentEvent;
use firebuild_vm::capability::UserNetworking;
use firebuild_vm::spec::{Network, PortPublish, Protocol, UserNetwork, VmSpec};

use crate::harness::{Lab, Run, Words, drive, is_root};

/// Runs this test again, alone, in a network namespace of its own; whether this is the run inside.
fn in_namespace(test: &str) -> bool {
    if is_inside() {
        return true;
    }
    if is_root(test) {
        run_in_namespace(&format!("network::{test}"));
    }
    false
}

/// Says nothing before the guest has; gives what came until all 40 lines of the greeting had, and how long that took.
fn hear(address: SocketAddr) -> std::io::Result<(String, Duration)> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut heard = vec![0; 40 * 504];
    stream.read_exact(&mut heard)?;
    let took = begin.elapsed();
    stream.write_all(b"hi")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok((String::from_utf8_lossy(&heard).into_owned() + &answer, took))
}

const SET_UP: &str = "ip link set lo up; ip link set eth0 mtu 65520 up\n\
    ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2\n\
    ip -6 addr add fd00:fb::15/64 dev eth0; ip -6 route add default via fe80::fb:2 dev eth0; sleep 2\n\
    cp /words/net /tmp/net; chmod 755 /tmp/net; net=/tmp/net\n";

fn publish(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> PortPublish {
    PortPublish {
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port,
        guest_port: 7000,
        protocol,
    }
}

fn spec(lab: &Lab, script: &str, publish: Vec<PortPublish>) -> Option<VmSpec> {
    let net = lab.guest_program("net", include_str!("guest/net.rs"))?;
    let ready = Words::new().started();
    let (ready, rest) = ready.flush();
    let words = [("net", net), ("ready", ready), ("exit", rest.exit(0))];
    let mut spec = lab.spec(&format!("{SET_UP}{script}"), &words);
    spec.network = Network::User(UserNetwork { publish });
    Some(spec)
}

fn assert_ended_well(lab: &Lab, run: &Run) {
    assert!(run.error.is_none() && run.end.cleanup.is_empty(), "{run:?}");
    lab.assert_nothing_left(&run.pids);
}

#[test]
fn vm_reaches_the_outside_and_not_the_hosts_loopback() {
    let test = "vm_reaches_the_outside_and_not_the_hosts_loopback";
    if !in_namespace(test) {
        return;
    }
    let Some(lab) = Lab::open(test) else { return };
    let outside = Outside::make();
    outside.serve(4000);
    let backend = lab.backend(true);
    if backend.passt.is_none() {
        eprintln!("SKIP {test}: passt is not installed");
        return;
    }
    assert_eq!(
        backend.capabilities().user_network,
        UserNetworking::Full { ipv6: true }
    );
    for address in ["127.0.0.1:4001", "[::1]:4001"] {
        serve_on(address.parse().unwrap(), "LOOPBACK");
    }
    assert_eq!(ask_tcp("127.0.0.1:4001").unwrap(), "LOOPBACK-tcp hi");
    // The second half takes the guest's own loopback away, so that such packets leave it by the interface.
    // IPv6 by passt begins when the guest's kernel has found its own link-local address to be nobody else's; so below.
    let script = "while ip -6 addr | grep -q tentative; do sleep 0.1; done; $net tcp 198.51.100.2:4999\n\
        for k in tcp udp; do for a in 198.51.100.2 [2001:db8::2]; do $net $k $a:4000; done; done\n\
        for k in tcp udp; do for a in 10.0.2.2 10.0.2.3 198.51.100.1 [fe80::fb:2%2] [2001:db8::1]; do $net $k $a:4001 & done; done; wait\n\
        ip addr del 127.0.0.1/8 dev lo; ip route flush table local dev lo 2>/dev/null\n\
        ip route add 127.0.0.0/8 via 10.0.2.2 src 10.0.2.15; ip -6 addr del ::1/128 dev lo; ip -6 route add ::1/128 via fe80::fb:2 dev eth0\n\
        ip route get 127.0.0.1\n\
        for k in tcp udp; do for a in 127.0.0.1 [::1]; do $net $k $a:4001 & done; done; wait\n\
        say ready; say exit";
    let run = drive(
        lab.start(spec(&lab, script, Vec::new()).unwrap(), &backend),
        |_, _, _| {},
    );
    assert_eq!(run.exit_code(), Some(0), "{run:?}");
    let console = run.console();
    for kind in ["tcp", "udp"] {
        for address in ["198.51.100.2", "[2001:db8::2]"] {
            let expected = format!("RESULT {kind} {address}:4000 outside-{kind} word");
            assert!(console.contains(&expected), "no {expected:?} in\n{console}");
        }
    }
    assert!(
        console.contains(":4999 none (Connection refused"),
        "a refusal is no time-out: {console}"
    );
    assert!(!console.contains("LOOPBACK"), "{console}");
    assert_eq!(console.matches(":4001 none").count(), 14, "{console}");
    // The packets did leave the guest.
    assert!(
        console.contains("127.0.0.1 via 10.0.2.2 dev eth0"),
        "{console}"
    );
    assert_ended_well(&lab, &run);
}

#[test]
fn vm_answers_on_published_ports() {
    let test = "vm_answers_on_published_ports";
    if !in_namespace(test) {
        return;
    }
    let Some(lab) = Lab::open(test) else { return };
    let _outside = Outside::make();
    published(
        &lab,
        true,
        &[
            "127.0.0.1:8000",
            "198.51.100.1:8000",
            "127.0.0.1:80",
            "[::1]:8443",
        ],
    );
}

#[test]
fn vm_answers_on_published_ports_of_a_host_without_a_network() {
    let test = "vm_answers_on_published_ports_of_a_host_without_a_network";
    if !in_namespace(test) {
        return;
    }
    let Some(lab) = Lab::open(test) else { return };
    shell("ip link set lo up");
    published(&lab, true, &["127.0.0.1:8000", "127.0.0.1:80"]);
}

#[test]
fn vm_answers_on_published_ports_without_passt() {
    let test = "vm_answers_on_published_ports_without_passt";
    if !in_namespace(test) {
        return;
    }
    let Some(lab) = Lab::open(test) else { return };
    shell("ip link set lo up");
    published(&lab, false, &["127.0.0.1:8000", "127.0.0.1:80"]);
}

/// Publishes 8000 on all IPv4 addresses, 80 on 127.0.0.1 and, if it is asked for, 8443 on all IPv6 addresses, and asks.
fn published(lab: &Lab, passt: bool, addresses: &[&str]) {
    let mut ports = Vec::new();
    let protocols = if passt {
        vec![Protocol::Tcp, Protocol::Udp]
    } else {
        vec![Protocol::Tcp]
    };
    for protocol in protocols {
        ports.push(publish(None, 8000, protocol));
        ports.push(publish(Some("127.0.0.1"), 80, protocol));
        if protocol == Protocol::Tcp {
            let mut first = publish(Some("127.0.0.1"), 8022, protocol);
            first.guest_port = 7001;
            ports.push(first);
            if addresses.contains(&"[::1]:8443") {
                let mut first = publish(Some("::1"), 8023, protocol);
                first.guest_port = 7001;
                ports.push(first);
            }
        }
        if addresses.contains(&"[::1]:8443") {
            ports.push(publish(Some("::"), 8443, protocol));
        }
    }
    serve_on("127.0.0.1:4001".parse().unwrap(), "LOOPBACK");
    let script = "while ip -6 addr | grep -q tentative; do sleep 0.1; done; $net tcp 10.0.2.2:4001 & $net udp 10.0.2.2:4001 & wait; $net serve 7000 & sleep 0.5; say ready\n\
        sleep 60; say exit";
    let backend = lab.backend(passt);
    let machine = lab.start(spec(lab, script, ports.clone()).unwrap(), &backend);
    let mut asked = 0;
    let run = drive(machine, |event, _, machine| {
        if !matches!(event, AgentEvent::Started { .. }) {
            return;
        }
        for address in addresses {
            let told =
                |answer: std::io::Result<String>| answer.unwrap_or_else(|error| error.to_string());
            assert_eq!(told(ask_tcp(address)), "guest-tcp hi", "{address}");
            if passt {
                assert_eq!(told(ask_udp(address)), "guest-udp hi", "{address}");
            }
            asked += 1;
        }
        // A server that speaks first is heard by a client that says nothing.
        let first = ports.iter().filter(|port| port.guest_port == 7001);
        for address in first.map(|port| SocketAddr::from((port.listen_ip(), port.host_port))) {
            let (heard, took) = hear(address).unwrap();
            assert!(
                heard.starts_with("00 ..") && heard.ends_with("heard hi"),
                "{heard}"
            );
            eprintln!("{address} greeted in {took:?}");
            // A handshake that is repeated because its end got lost would take a second.
            assert!(took < Duration::from_millis(900), "{took:?}");
        }
        assert!(
            ask_tcp("127.0.0.2:80").is_err(),
            "only the address that was named"
        );
        assert!(!machine.network_lost());
        machine.kill().unwrap();
    });
    assert_eq!(asked, addresses.len(), "{run:?}");
    let console = run.console();
    assert!(
        !console.contains("LOOPBACK") && console.matches(":4001 none").count() == 2,
        "{console}"
    );
    assert!(run.end.killed);
    assert_ended_well(lab, &run);
    // The ports are free again.
    firebuild_vm::net::ports::check_free(&ports).unwrap();
}
