//! What the network of this host looks like: default routes and name servers. Read once; planning uses the result.

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use fs_err as fs;

/// Where systemd's resolver, which listens on the loopback, names the servers that it asks: `systemd-resolved(8)`.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
/// How much of a `resolv.conf` is read.
const MAX_RESOLV_CONF: u64 = 64 << 10;

/// What of the host's network a plan depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// Interface of the IPv4 default route.
    pub ipv4_route: Option<String>,
    /// Interface of the IPv6 default route.
    pub ipv6_route: Option<String>,
    /// Name servers of `/etc/resolv.conf` that a guest can reach by their address: no loopback, no link-local ones. Where
    /// it names none but systemd's resolver, those that this one asks.
    pub nameservers: Vec<IpAddr>,
    /// Whether `/etc/resolv.conf` names a server on the host's loopback.
    pub loopback_nameserver: bool,
    /// Its search list.
    pub search: Vec<String>,
}

impl HostNetwork {
    /// Reads `/proc/net/route`, `/proc/net/ipv6_route`, `/etc/resolv.conf` and systemd's. What cannot be read counts as empty: a
    /// host without a network runs machines without one.
    #[must_use]
    pub fn discover() -> Self {
        let read = |path: &str| {
            fs::read(Path::new(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let mut found = Self::from_resolv_conf(&String::from_utf8_lossy(&resolv_conf()));
        if found.nameservers.is_empty() && found.loopback_nameserver {
            found.ask_upstream(&String::from_utf8_lossy(&read_some(UPSTREAM)));
        }
        found.ipv4_route = default_route_v4(&read("/proc/net/route").unwrap_or_default());
        found.ipv6_route = default_route_v6(&read("/proc/net/ipv6_route").unwrap_or_default());
        found
    }

    /// Takes the servers of the file in which a resolver on the loopback names them.
    fn ask_upstream(&mut self, text: &str) {
        self.nameservers = Self::from_resolv_conf(text).nameservers;
    }

    /// Only the name servers and the search list of a `resolv.conf(5)`.
    #[must_use]
    pub fn from_resolv_conf(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (`fe80::1%eth0`) means a link-local address, which is of no use to a guest.
                    let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
                        continue;
                    };
                    if address.is_loopback() || address.is_unspecified() {
                        found.loopback_nameserver = true;
                    } else if !is_link_local(address) {
                        found.nameservers.push(address);
                    }
                }
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        found
    }
}

/// The host's `/etc/resolv.conf`. What cannot be read is as if it was not there: who has no names says so.
#[must_use]
pub fn resolv_conf() -> Vec<u8> {
    read_some("/etc/resolv.conf")
}

fn read_some(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = file.take(MAX_RESOLV_CONF).read_to_end(&mut bytes);
    }
    bytes
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The interface of the default route with the lowest metric; `proc_pid_net(5)`, fields by `net/ipv4/fib_trie.c`:
/// Iface Destination Gateway Flags RefCnt Use Metric Mask, addresses in hexadecimal.
fn default_route_v4(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, "00000000", _, flags, _, _, metric, "00000000", ..] = fields[..] else {
            return None;
        };
        is_up(flags, name).then_some((metric.parse::<u32>().ok()?, name))
    });
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, name)| name.to_owned())
}

/// The same for IPv6; fields by `net/ipv6/route.c`: destination, its prefix, source, its prefix, next hop, metric,
/// references, uses, flags, interface, all in hexadecimal.
fn default_route_v6(table: &str) -> Option<String> {
    let any = "0".repeat(32);
    let routes = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", _, "00", _, metric, _, _, flags, name] = fields[..] else {
            return None;
        };
        let usable = destination == any && is_up(flags, name);
        usable.then_some((u32::from_str_radix(metric, 16).ok()?, name))
    });
    routes
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, name)| name.to_owned())
}

fn is_up(flags: &str, interface: &str) -> bool {
    // RTF_UP and RTF_REJECT of linux/route.h; the reject routes of IPv6 stand on `lo`.
    let flags = u32::from_str_radix(flags, 16).unwrap_or(0);
    flags & 0x1 != 0 && flags & 0x200 == 0 && interface != "lo"
}

#[cfg(test)]
mod tests {
    use super::{HostNetwork, default_route_v4, default_route_v6};

    #[test]
    fn the_default_route_with_the_lowest_metric_counts() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_route_v4(table).as_deref(), Some("eth0"));
        assert_eq!(default_route_v4("Iface\n"), None);
        assert_eq!(default_route_v4(""), None);
    }

    #[test]
    fn ipv6_reject_routes_do_not_count() {
        let zero = "0".repeat(32);
        let next = "fd000000000000000000000000000001";
        let real = format!("{zero} 00 {zero} 00 {next} 00000400 00000001 00000000 00000003 eth0\n");
        let reject = format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n");
        assert_eq!(
            default_route_v6(&format!("{reject}{real}")).as_deref(),
            Some("eth0")
        );
        assert_eq!(default_route_v6(&reject), None);
    }

    #[test]
    fn name_servers_that_a_guest_cannot_reach_are_left_out() {
        let found = HostNetwork::from_resolv_conf(
            "# c\nnameserver 127.0.0.53\nnameserver 10.1.2.3\nnameserver fe80::1%eth0\nnameserver 169.254.1.1\n\
             nameserver 2001:db8::1\nnameserver\nsearch a.example b.example\n",
        );
        assert_eq!(
            found.nameservers,
            [
                "10.1.2.3".parse::<std::net::IpAddr>().unwrap(),
                "2001:db8::1".parse().unwrap()
            ]
        );
        assert!(found.loopback_nameserver);
        assert_eq!(found.search, ["a.example", "b.example"]);
    }

    #[test]
    fn a_resolver_on_the_loopback_is_asked_for_its_own() {
        let mut found = HostNetwork::from_resolv_conf("nameserver 127.0.0.53\nsearch a.example\n");
        found.ask_upstream("nameserver 192.0.2.1\nnameserver 127.0.0.1\nsearch other\n");
        assert_eq!(
            found.nameservers,
            ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]
        );
        assert_eq!(found.search, ["a.example"]);
    }
}
