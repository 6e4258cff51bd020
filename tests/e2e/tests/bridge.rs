//! The private bridge as users see it: a machine has an address of its own, reaches the outside by NAT, is reached by its
//! published ports and by nothing else, never reaches the host's loopback, and leaves nothing.
//!
//! Everything is in a network namespace of the test; see `firebuild_e2e::netns`.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use firebuild_e2e::Home;
use firebuild_e2e::netns::{NET_IMAGE, in_namespace, links_and_rules, machines_here, net_home};
use firebuild_netlab::{Outside, answer_of, ask_tcp, ask_udp, serve_on, shell};
use serde_json::Value;

/// Links, addresses, rules and records, but for those of the namespace itself.
fn what_is_there() -> String {
    let mut all = links_and_rules();
    let forwarding = fs_err::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    all.push_str(&format!("forwarding {forwarding}"));
    all.push_str(&format!("records {}\n", records().exists()));
    all
}

fn records() -> std::path::PathBuf {
    let namespace = rustix::fs::stat("/proc/self/ns/net").unwrap();
    format!("/run/firebuild-net/{}", namespace.st_ino).into()
}

fn until_gone(before: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let now = what_is_there();
        if now == before && machines_here().is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "before:\n{before}\nnow:\n{now}\n{:?}",
            machines_here()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn inspect(home: &Home, name: &str) -> Value {
    serde_json::from_slice(&home.fb(["inspect", name]).ok().stdout).unwrap()
}

#[test]
fn a_bridge_leads_out_and_in_and_never_to_the_hosts_loopback() {
    let test = "a_bridge_leads_out_and_in_and_never_to_the_hosts_loopback";
    if !in_namespace(test) {
        return;
    }
    let outside = Outside::make();
    outside.serve(4000);
    serve_on("127.0.0.1:4001".parse().unwrap(), "LOOPBACK");
    let Some(home) = net_home(test) else { return };
    let before = what_is_there();

    let mut args = vec!["run", "-d", "--name", "served", "--network=bridge"];
    for port in [
        "8000:7000",
        "8000:7000/udp",
        "127.0.0.1:81:7000",
        "198.51.100.1:82:7000",
    ] {
        args.extend(["-p", port]);
    }
    args.extend([NET_IMAGE, "--", "exec net serve 7000"]);
    let _ = home.fb(args).ok();
    let seen = inspect(&home, "served");
    let address = seen.pointer("/NetworkSettings/IPAddress");
    assert_eq!(address, Some(&Value::from("10.251.0.2")), "{seen}");

    // From this host: by its loopback, by its address, by the bridge, and to the guest itself.
    for address in [
        "127.0.0.1:8000",
        "198.51.100.1:8000",
        "10.251.0.1:8000",
        "127.0.0.1:81",
        "198.51.100.1:82",
        "10.251.0.2:7000",
    ] {
        assert_eq!(answer_of(ask_tcp, address), "guest-tcp hi", "{address}");
    }
    for address in ["127.0.0.1:8000", "198.51.100.1:8000"] {
        assert_eq!(answer_of(ask_udp, address), "guest-udp hi", "{address}");
    }
    // From outside: what is published there, and nothing else, whatever route it takes.
    outside.shell("ip route add 10.251.0.0/22 via 198.51.100.1");
    let from_outside = |address: &'static str, udp: bool| {
        let ask = if udp { ask_udp } else { ask_tcp };
        outside.inside(move || ask(address))
    };
    assert_eq!(
        from_outside("198.51.100.1:8000", false).unwrap(),
        "guest-tcp hi"
    );
    assert_eq!(
        from_outside("198.51.100.1:8000", true).unwrap(),
        "guest-udp hi"
    );
    assert_eq!(
        from_outside("198.51.100.1:82", false).unwrap(),
        "guest-tcp hi"
    );
    for address in ["198.51.100.1:81", "10.251.0.2:7000"] {
        from_outside(address, false).unwrap_err();
    }

    // Another guest: out, to its neighbour, to published ports by whatever address; not to the host's loopback.
    let script = "for k in tcp udp; do\n\
        for a in 198.51.100.2:4000 10.251.0.2:7000 10.251.0.1:8000 198.51.100.1:8000; do net $k $a; done; done\n\
        for a in 10.251.0.1:4001 198.51.100.1:4001 198.51.100.1:81; do net tcp $a & done; wait\n\
        ip addr del 127.0.0.1/8 dev lo; ip route flush table local dev lo 2>/dev/null\n\
        ip route add 127.0.0.0/8 via 10.251.0.1\n\
        for k in tcp udp; do net $k 127.0.0.1:4001 & done; net tcp 127.0.0.1:81 & wait\n\
        cat /etc/resolv.conf; echo mtu $(cat /sys/class/net/eth0/mtu) told $(cut -c4 /sys/class/net/eth0/device/features)\n\
        ip addr add 10.251.0.2/22 dev eth0; ip addr del 10.251.0.3/22 dev eth0; net tcp 10.251.0.1:8000";
    // Its frames are smaller than usual and counted on their way, which changes nothing else.
    let limits = home.path().join("limits.json");
    let bucket = r#"{"bandwidth": {"size": 1000000, "refill_time": 100}}"#;
    let interface = format!(
        r#"{{"network-interfaces": [{{"iface_id": "eth0", "mtu": 1400, "rx_rate_limiter": {bucket}, "tx_rate_limiter": {bucket}}}]}}"#
    );
    fs_err::write(&limits, interface).unwrap();
    let done = home
        .fb([
            "run",
            "--rm",
            "--network=bridge",
            "--ip=10.251.0.3",
            "--machine-config",
            &limits.display().to_string(),
            NET_IMAGE,
            "--",
            script,
        ])
        .ok();
    let told = done.out();
    for kind in ["tcp", "udp"] {
        let answer = |address: &str, who: &str| {
            let expected = format!("RESULT {kind} {address} {who}-{kind} word\n");
            assert!(
                told.contains(&expected),
                "no {expected:?} in\n{told}{}",
                done.err()
            );
        };
        answer("198.51.100.2:4000", "outside");
        answer("10.251.0.2:7000", "guest");
        answer("10.251.0.1:8000", "guest");
        answer("198.51.100.1:8000", "guest");
    }
    assert!(told.contains("mtu 1400 told 1\n"), "{told}");
    assert!(!told.contains("LOOPBACK"), "{told}");
    assert_eq!(told.matches(":4001 none").count(), 4, "{told}");
    assert_eq!(told.matches(":81 none").count(), 2, "{told}");
    // With its neighbour's address it is not heard.
    assert_eq!(
        told.matches("tcp 10.251.0.1:8000 none").count(),
        1,
        "{told}"
    );

    let second = home
        .fb([
            "run",
            "--rm",
            "--network=bridge",
            "-p",
            "8000:1",
            NET_IMAGE,
            "--",
            "true",
        ])
        .exits(125);
    let words = second.err();
    assert!(
        words.contains("0.0.0.0:8000/tcp is in use on this host"),
        "{words}"
    );
    let ipv6 = home
        .fb([
            "run",
            "--rm",
            "--network=bridge",
            "-p",
            "[::1]:9000:1",
            NET_IMAGE,
            "--",
            "true",
        ])
        .exits(125);
    assert!(ipv6.err().contains("--network=user"), "{}", ipv6.err());

    let _ = home.fb(["kill", "served"]).ok();
    until_gone(&before);
    for port in ["0.0.0.0:8000", "127.0.0.1:81"] {
        TcpListener::bind(port).unwrap();
        UdpSocket::bind(port).unwrap();
    }
}

#[test]
fn what_killed_monitors_leave_of_a_bridge_is_found() {
    let test = "what_killed_monitors_leave_of_a_bridge_is_found";
    if !in_namespace(test) {
        return;
    }
    let _outside = Outside::make();
    let Some(home) = net_home(test) else { return };
    // Somebody else's things of the same kinds.
    shell("ip tuntap add dev other0 mode tap");
    let before = what_is_there();
    let start = |name: &str| {
        let _ = home
            .fb([
                "run",
                "-d",
                "--name",
                name,
                "--network=bridge",
                "-p",
                "8000:7000",
                NET_IMAGE,
                "--",
                "exec net serve 7000",
            ])
            .ok();
        let seen = inspect(&home, name);
        let pid = seen.pointer("/Firebuild/Machine/monitor/pid");
        let pid = pid.and_then(Value::as_i64).unwrap();
        let address = seen.pointer("/NetworkSettings/IPAddress").cloned();
        (pid, address.unwrap())
    };
    let kill = |pid: i64| {
        shell(&format!("kill -9 {pid}"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !machines_here().is_empty() {
            assert!(Instant::now() < deadline, "{:?}", machines_here());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let (first, address) = start("first");
    kill(first);
    assert_ne!(
        what_is_there(),
        before,
        "the bridge waits for the next start"
    );
    // The next start takes its place, port and address included.
    let (second, again) = start("second");
    assert_eq!(address, again);
    assert_eq!(answer_of(ask_tcp, "127.0.0.1:8000"), "guest-tcp hi");
    assert_eq!(fs_err::read_dir(records()).unwrap().count(), 3);
    kill(second);
    let purged = home.fb(["purge"]).ok().out();
    assert!(
        purged.contains("address 10.251.0.2") && purged.contains("network firebuild0"),
        "{purged}"
    );
    assert_eq!(what_is_there(), before);

    // A bridge of that name that is somebody else's is told and left alone.
    shell("ip link add firebuild0 type bridge");
    let refused = home
        .fb(["run", "--rm", "--network=bridge", NET_IMAGE, "--", "true"])
        .exits(125);
    assert!(
        refused.err().contains("ip link del firebuild0"),
        "{}",
        refused.err()
    );
    let _ = home.fb(["purge"]).ok();
    shell("ip link show firebuild0 >/dev/null; ip link del firebuild0");
    assert_eq!(what_is_there(), before);
}
