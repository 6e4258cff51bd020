use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::{Batch, Family, Hook, Policy, Protocol, Rule, Socket, Table};
use crate::net::{add_address, link_up};
use crate::testing::in_own_network;

const TABLE: Table<'_> = Table {
    family: Family::Ip,
    name: "test",
};

fn redirecting(owned: bool) -> Batch {
    let mut batch = Batch::new();
    batch.add_table(TABLE, owned);
    batch.add_chain(TABLE, "out", Hook::NatOutput, Policy::Accept);
    let rule = Rule::new()
        .to_this_host()
        .to_port(Protocol::Tcp, 80)
        .redirect(Ipv4Addr::LOCALHOST, 8080);
    batch.add_rule(TABLE, "out", &rule);
    batch
}

#[test]
fn rules_do_what_they_say_and_go_with_their_owner() {
    in_own_network("rules_do_what_they_say_and_go_with_their_owner", || {
        link_up("lo").unwrap();
        add_address("lo", Ipv4Addr::new(10, 9, 8, 7).into(), 24).unwrap();
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        assert!(TcpStream::connect("10.9.8.7:80").is_err());

        let socket = Socket::open().unwrap();
        redirecting(true).commit(&socket).unwrap();
        assert_eq!(socket.tables(Family::Ip).unwrap(), ["test"]);
        TcpStream::connect("10.9.8.7:80").unwrap();
        listener.accept().unwrap();
        assert!(TcpStream::connect("10.9.8.7:81").is_err());

        // Nobody else changes an owned table, and it is gone when its owner is.
        let other = Socket::open().unwrap();
        let mut deletion = Batch::new();
        deletion.delete_table(TABLE);
        assert_eq!(
            deletion.commit(&other).unwrap_err().raw_os_error(),
            Some(rustix::io::Errno::PERM.raw_os_error())
        );
        drop(socket);
        assert_eq!(other.tables(Family::Ip).unwrap(), [""; 0]);
        assert!(TcpStream::connect("10.9.8.7:80").is_err());

        redirecting(false).commit(&other).unwrap();
        drop(other);
        TcpStream::connect("10.9.8.7:80").unwrap();
    });
}

#[test]
fn a_batch_is_all_or_nothing() {
    in_own_network("a_batch_is_all_or_nothing", || {
        let socket = Socket::open().unwrap();
        let mut batch = redirecting(false);
        batch.delete_table(Table {
            family: Family::Ip,
            name: "none",
        });
        let error = batch.commit(&socket).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(socket.tables(Family::Ip).unwrap(), [""; 0]);

        // Longer than any default buffer.
        let mut batch = redirecting(false);
        for port in 1..=2048 {
            let rule = Rule::new().to_port(Protocol::Udp, port).accept();
            batch.add_rule(TABLE, "out", &rule);
        }
        batch.commit(&socket).unwrap();
    });
}

#[test]
fn what_is_dropped_does_not_arrive() {
    in_own_network("what_is_dropped_does_not_arrive", || {
        link_up("lo").unwrap();
        let socket = Socket::open().unwrap();
        let mut batch = Batch::new();
        batch.add_table(TABLE, true);
        batch.add_chain(TABLE, "raw", Hook::Raw, Policy::Accept);
        let net = Ipv4Addr::new(127, 0, 0, 2);
        batch.add_rule(
            TABLE,
            "raw",
            &Rule::new().from_link("lo").to_network(net, 32).drop(),
        );
        batch.add_rule(
            TABLE,
            "raw",
            &Rule::new()
                .not_from_link("l")
                .from_network(Ipv4Addr::new(127, 0, 0, 48), 28)
                .drop(),
        );
        batch.commit(&socket).unwrap();
        let receiver = UdpSocket::bind("0.0.0.0:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let port = receiver.local_addr().unwrap().port();
        let arrives = |from: &str, to: &str| {
            let sender = UdpSocket::bind((from, 0)).unwrap();
            sender.send_to(b"x", (to, port)).unwrap();
            receiver.recv(&mut [0; 4]).is_ok()
        };
        assert!(arrives("127.0.0.1", "127.0.0.1"));
        assert!(!arrives("127.0.0.1", "127.0.0.2"));
        assert!(!arrives("127.0.0.50", "127.0.0.1"));
        assert!(arrives("127.0.0.64", "127.0.0.1"));
    });
}
