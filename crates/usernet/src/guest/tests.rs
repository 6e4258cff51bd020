use std::net::IpAddr;

use super::{DNS_IPV4, MTU, guest_network, passt_args};
use crate::host::HostNetwork;
use crate::publish::{PortPublish, Protocol};

fn host(ipv4: bool, ipv6: bool, servers: &[&str]) -> HostNetwork {
    HostNetwork {
        ipv4_route: ipv4.then(|| "eth0".to_owned()),
        ipv6_route: ipv6.then(|| "eth1".to_owned()),
        nameservers: servers.iter().map(|text| text.parse().unwrap()).collect(),
        loopback_nameserver: false,
        search: vec!["example".to_owned()],
    }
}

fn has(args: &[String], words: &[&str]) -> bool {
    args.windows(words.len()).any(|window| window == words)
}

#[test]
fn the_guest_has_ipv6_where_the_host_has_a_way_out() {
    let both = guest_network(&host(true, true, &["192.0.2.1", "2001:db8::1"]));
    assert_eq!(
        both.interface.addresses.len(),
        3,
        "of each protocol, and link-local"
    );
    assert_eq!(both.interface.routes.len(), 2);
    assert_eq!(both.nameservers.len(), 2);
    assert_eq!(both.search, ["example"]);
    let old = guest_network(&host(true, false, &["192.0.2.1", "2001:db8::1"]));
    assert_eq!(old.interface.addresses.len(), 1);
    assert_eq!(old.nameservers, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_name_server_on_the_hosts_loopback_is_forwarded_to() {
    let local = host(true, false, &[]);
    assert_eq!(guest_network(&local).nameservers, [IpAddr::V4(DNS_IPV4)]);
    assert!(has(
        &passt_args(&[], &local, MTU, 3, 4),
        &["--dns-forward", "10.0.2.3"]
    ));
    let remote = host(true, false, &["192.0.2.1"]);
    assert!(!passt_args(&[], &remote, MTU, 3, 4).contains(&"--dns-forward".to_owned()));
}

#[test]
fn passt_runs_on_hosts_without_routes() {
    let args = passt_args(&[], &host(false, false, &[]), MTU, 3, 4);
    assert!(has(&args, &["--interface", "lo"]) && has(&args, &["--ipv4-only"]));
    let args = passt_args(&[], &host(false, true, &[]), MTU, 3, 4);
    assert!(has(&args, &["--interface", "eth1"]) && !has(&args, &["--ipv4-only"]));
    let args = passt_args(&[], &host(true, false, &[]), MTU, 3, 4);
    assert!(!has(&args, &["--interface"]) && has(&args, &["--ipv4-only"]));
}

#[test]
fn ports_are_handed_to_passt() {
    let publish = [PortPublish {
        host_ip: Some("127.0.0.1".parse().unwrap()),
        host_port: 5353,
        guest_port: 53,
        protocol: Protocol::Udp,
    }];
    assert!(has(
        &passt_args(&publish, &host(true, true, &[]), MTU, 3, 4),
        &["--udp-ports", "127.0.0.1/5353:53"]
    ));
}

#[test]
fn name_servers_of_steps_are_those_that_can_be_reached() {
    let steps = |host: &str| {
        let found = HostNetwork::from_resolv_conf(host);
        String::from_utf8(super::resolv_conf(&guest_network(&found), host.as_bytes())).unwrap()
    };
    assert_eq!(
        steps(
            "# made by x\nnameserver 192.0.2.1\nnameserver 127.0.0.53\noptions ndots:2\nsearch a b\n"
        ),
        "nameserver 192.0.2.1\noptions ndots:2\nsearch a b\n"
    );
    assert_eq!(
        steps("nameserver 127.0.0.53\noptions edns0\n"),
        "nameserver 10.0.2.3\noptions edns0\n"
    );
    assert_eq!(steps(""), "nameserver 10.0.2.3\n");
}
