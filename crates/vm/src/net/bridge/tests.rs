//! The network in a network namespace of the test's own thread.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use firebuild_sys::namespace::{Namespaces, unshare};
use firebuild_sys::net::{link, link_up};
use firebuild_sys::nftables::{Family, Socket};

use super::place::dir_here;
use super::{BRIDGE, Joined, NetworkErrorKind, Wanted, join, sweep};
use crate::spec::{PortPublish, Protocol};

fn in_own_network(name: &str, test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| match unshare(Namespaces::NET) {
            Ok(()) if rustix::process::geteuid().is_root() => {
                link_up("lo").unwrap();
                // A new namespace has it from the host.
                fs_err::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
                test();
                assert_eq!(seen(), Seen::default());
                assert!(!dir_here().unwrap().exists());
            }
            outcome => {
                let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
                assert!(!required.split(',').any(|need| need == "root"));
                eprintln!("SKIP {name}: needs root: {outcome:?}");
            }
        });
    });
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    links: Vec<String>,
    tables: Vec<String>,
    filters: Vec<String>,
    forwarding: bool,
}

fn seen() -> Seen {
    let socket = Socket::open().unwrap();
    let names = link::links().unwrap().into_iter().map(|link| link.name);
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    Seen {
        links: sorted(names.filter(|name| name != "lo").collect()),
        tables: sorted(socket.tables(Family::Ip).unwrap()),
        filters: sorted(socket.tables(Family::Netdev).unwrap()),
        forwarding: fs_err::read_to_string("/proc/sys/net/ipv4/ip_forward")
            .unwrap()
            .starts_with('1'),
    }
}

fn port(number: u16) -> PortPublish {
    PortPublish {
        host_ip: None,
        host_port: number,
        guest_port: 80,
        protocol: Protocol::Tcp,
    }
}

fn wanted<'a>(id: &'a str, publish: &'a [PortPublish]) -> Wanted<'a> {
    Wanted {
        id,
        owner: Some(1_900_000_000),
        publish,
        netns: None,
        address: None,
        reachable: &[],
    }
}

fn address(joined: &Joined) -> String {
    joined.interface().addresses[0].to_string()
}

/// As a killed owner: what the kernel takes away by itself goes, the rest stays.
fn abandon(mut joined: Joined) {
    drop(joined.lease.take());
}

#[test]
fn machines_join_and_leave_and_the_last_one_takes_the_network_along() {
    in_own_network(
        "machines_join_and_leave_and_the_last_one_takes_the_network_along",
        || {
            let ports = [port(8080)];
            let first = join(&wanted("aaaaaaaaaaaaaaaa", &ports)).unwrap();
            let second = join(&wanted("bbbbbbbbbbbbbbbb", &[])).unwrap();
            assert_eq!(address(&first), "10.251.0.2/22");
            assert_eq!(address(&second), "10.251.0.3/22");
            assert_eq!(second.network().mac.to_string(), "02:fb:0a:fb:00:03");
            assert_eq!(second.network().tap, "fbbbbbbbbbbbbb");
            let there = seen();
            assert_eq!(
                there.links,
                ["fbaaaaaaaaaaaa", "fbbbbbbbbbbbbb", "firebuild0"]
            );
            assert_eq!(there.tables, ["firebuild", "firebuild-aaaaaaaaaaaa"]);
            assert_eq!(
                there.filters,
                ["firebuild-aaaaaaaaaaaa", "firebuild-bbbbbbbbbbbb"]
            );
            assert!(there.forwarding);

            let taken = join(&wanted("cccc", &ports)).unwrap_err();
            assert_eq!(taken.kind(), NetworkErrorKind::Port);
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap_err();

            // The living are not swept.
            assert_eq!(sweep().removed, [""; 0]);
            assert_eq!(seen(), there);

            // Somebody flushed all rules: the next one makes those of the network again.
            let mut batch = firebuild_sys::nftables::Batch::new();
            batch.delete_table(firebuild_sys::nftables::Table {
                family: Family::Ip,
                name: "firebuild",
            });
            batch.commit(&Socket::open().unwrap()).unwrap();
            let third = join(&wanted("dddddddddddddddd", &[])).unwrap();
            assert_eq!(address(&third), "10.251.0.4/22");
            assert!(seen().tables.contains(&"firebuild".to_owned()));
            assert!(third.leave().is_empty());

            assert!(first.leave().is_empty());
            assert_eq!(seen().tables, ["firebuild"]);
            let again = join(&wanted("eeeeeeeeeeeeeeee", &ports)).unwrap();
            assert_eq!(address(&again), "10.251.0.2/22");
            drop(again);
            assert!(second.leave().is_empty());
        },
    );
}

#[test]
fn an_address_that_is_asked_for_is_had_or_refused() {
    in_own_network("an_address_that_is_asked_for_is_had_or_refused", || {
        let ask = |id, address: &str| {
            join(&Wanted {
                address: Some(address.parse().unwrap()),
                ..wanted(id, &[])
            })
        };
        let fixed = ask("aaaaaaaaaaaaaaaa", "10.251.1.7").unwrap();
        assert_eq!(address(&fixed), "10.251.1.7/22");
        assert_eq!(fixed.network().mac.to_string(), "02:fb:0a:fb:01:07");
        assert_eq!(fixed.network().address, Some(Ipv4Addr::new(10, 251, 1, 7)));
        for (wrong, words) in [
            ("10.251.1.7", "aaaaaaaaaaaaaaaa has it"),
            ("10.251.0.1", "the network 10.251.0.0/22"),
            ("10.251.3.255", "the network 10.251.0.0/22"),
            ("192.168.127.100", "the network 10.251.0.0/22"),
        ] {
            let refused = ask("bbbbbbbbbbbbbbbb", wrong).unwrap_err();
            assert_eq!(refused.kind(), NetworkErrorKind::Address);
            assert!(refused.to_string().contains(words), "{refused}");
        }
        // The pool passes it over; it is free again when its owner has left.
        let next = ask("cccccccccccccccc", "10.251.0.2").unwrap();
        let pooled = join(&wanted("dddddddddddddddd", &[])).unwrap();
        assert_eq!(address(&pooled), "10.251.0.3/22");
        assert!(fixed.leave().is_empty());
        let again = ask("eeeeeeeeeeeeeeee", "10.251.1.7").unwrap();
        for one in [next, pooled, again] {
            assert!(one.leave().is_empty());
        }
    });
}

#[test]
fn the_dead_are_found_at_the_next_start_and_by_a_sweep() {
    in_own_network(
        "the_dead_are_found_at_the_next_start_and_by_a_sweep",
        || {
            let ports = [port(8080)];
            abandon(join(&wanted("aaaaaaaaaaaaaaaa", &ports)).unwrap());
            let left = seen();
            assert_eq!(left.links, ["fbaaaaaaaaaaaa", "firebuild0"]);
            // What the kernel ties to the owner is gone already.
            assert_eq!(left.tables, ["firebuild"]);
            assert_eq!(left.filters, [""; 0]);

            let next = join(&wanted("bbbbbbbbbbbbbbbb", &ports)).unwrap();
            assert_eq!(address(&next), "10.251.0.2/22");
            assert_eq!(seen().links, ["fbbbbbbbbbbbbb", "firebuild0"]);
            abandon(next);

            firebuild_sys::net::tap::add("fbstranger", None).unwrap();
            let swept = sweep();
            assert!(swept.failed.is_empty(), "{:?}", swept.failed);
            assert_eq!(
                swept.removed,
                [
                    "address 10.251.0.2 of bbbbbbbbbbbbbbbb",
                    "network firebuild0"
                ]
            );
            assert_eq!(seen().links, ["fbstranger"]);
            link::delete("fbstranger").unwrap();
            assert_eq!(sweep().removed, [""; 0]);
        },
    );
}

#[test]
fn a_link_of_that_name_that_is_not_ours_is_left_alone() {
    in_own_network("a_link_of_that_name_that_is_not_ours_is_left_alone", || {
        link::add_bridge(BRIDGE, [2, 0, 0, 0, 0, 1]).unwrap();
        let error = join(&wanted("aaaaaaaaaaaaaaaa", &[])).unwrap_err();
        assert_eq!(error.kind(), NetworkErrorKind::Foreign);
        assert_eq!(sweep().removed, [""; 0]);
        assert_eq!(seen().links, [BRIDGE]);
        link::delete(BRIDGE).unwrap();

        // One with a port of somebody else's stays, and is told, until that has gone.
        let joined = join(&wanted("bbbbbbbbbbbbbbbb", &[])).unwrap();
        firebuild_sys::net::tap::add("other", None).unwrap();
        link::join_bridge("other", BRIDGE).unwrap();
        let left = joined.leave();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].1.to_string().contains("other"), "{left:?}");
        link::delete("other").unwrap();
        assert_eq!(sweep().removed, ["network firebuild0"]);
    });
}

#[test]
fn another_namespace_is_entered_by_its_path() {
    in_own_network("another_namespace_is_entered_by_its_path", || {
        // A thread that stays in a namespace of its own, which has a path as long as it does.
        let (path, namespace) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            unshare(Namespaces::NET).unwrap();
            fs_err::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            let own = format!("/proc/self/task/{}/ns/net", rustix::thread::gettid());
            path.send(own).unwrap();
            let _ = wait.recv();
            (seen(), dir_here().unwrap())
        });
        let netns = namespace.recv().unwrap();
        let there = Wanted {
            netns: Some(Path::new(&netns)),
            ..wanted("aaaaaaaaaaaaaaaa", &[])
        };
        let joined = join(&there).unwrap();
        assert_eq!(seen(), Seen::default(), "nothing is made here");
        drop(super::open_tap(&joined.network().tap, Some(Path::new(&netns)), false).unwrap());
        abandon(joined);
        // From here the dead of that namespace are found by its record.
        let removed = sweep().removed;
        assert_eq!(removed.len(), 2, "{removed:?}");
        drop(done);
        let (left, dir) = holder.join().unwrap();
        assert_eq!((left, dir.exists()), (Seen::default(), false));
    });
}

#[test]
fn concurrent_starts_get_addresses_of_their_own() {
    in_own_network("concurrent_starts_get_addresses_of_their_own", || {
        // The thread's own namespace, by a path that others can open.
        let own = format!("/proc/self/task/{}/ns/net", rustix::thread::gettid());
        let own = Path::new(&own);
        let machines: Vec<String> = (0..24).map(|index| format!("{index:012x}")).collect();
        // Twice, so that the network is made anew after it has gone.
        for _ in 0..2 {
            let joined: Vec<Joined> = std::thread::scope(|scope| {
                let starts: Vec<_> = machines
                    .iter()
                    .map(|id| {
                        let wanted = Wanted {
                            netns: Some(own),
                            ..wanted(id, &[])
                        };
                        scope.spawn(move || join(&wanted).unwrap())
                    })
                    .collect();
                starts
                    .into_iter()
                    .map(|start| start.join().unwrap())
                    .collect()
            });
            let mut addresses: Vec<String> = joined.iter().map(address).collect();
            addresses.sort();
            addresses.dedup();
            assert_eq!(addresses.len(), machines.len());
            std::thread::scope(|scope| {
                for one in joined {
                    scope.spawn(move || assert!(one.leave().is_empty()));
                }
            });
        }
    });
}
