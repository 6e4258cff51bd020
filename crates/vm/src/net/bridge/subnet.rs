//! The subnet of the network: the first of ours that the host has no other use for.

use std::net::{IpAddr, Ipv4Addr};

use firebuild_guest_proto::Cidr;

/// Subnets are in the first of these networks, which no common program gives out (Docker takes 172.17 to 172.31 and 192.168,
/// libvirt 192.168.122, podman 10.88, Kubernetes 10.96 and 10.244); in the second where 10.0.0.0/8 is somebody's VPN.
const ALL: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 251, 0, 0), Ipv4Addr::new(172, 30, 0, 0)];
const ALL_PREFIX: u8 = 16;
/// 1021 guests: about as many as a bridge has ports (`BR_MAX_PORTS`).
const PREFIX: u8 = 22;

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    fn new(network: Ipv4Addr, prefix: u8) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Self {
            network: Ipv4Addr::from_bits(network.to_bits() & mask),
            prefix,
        }
    }

    /// The one that is tried first.
    pub(super) fn first() -> Self {
        Self::new(ALL[0], PREFIX)
    }

    /// The first one that overlaps none of these.
    pub(super) fn free(taken: &[Subnet]) -> Option<Self> {
        let size = 1u32 << (32 - PREFIX);
        let indexes = 0..1u32 << (PREFIX - ALL_PREFIX);
        ALL.into_iter()
            .flat_map(|all| {
                indexes
                    .clone()
                    .map(move |index| Ipv4Addr::from_bits(all.to_bits() + index * size))
            })
            .map(|network| Self::new(network, PREFIX))
            .find(|one| !taken.iter().any(|other| one.overlaps(other)))
    }

    /// As it stands in a record; `None` for what could not be ours.
    pub(super) fn of(cidr: Cidr) -> Option<Self> {
        match cidr.address {
            IpAddr::V4(network) if (8..=30).contains(&cidr.prefix) => {
                Some(Self::new(network, cidr.prefix))
            }
            _ => None,
        }
    }

    pub(super) fn cidr(&self) -> Cidr {
        Cidr {
            address: self.network.into(),
            prefix: self.prefix,
        }
    }

    pub(super) fn network(&self) -> Ipv4Addr {
        self.network
    }

    pub(super) fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The host's own address in it.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// The addresses of guests.
    pub(super) fn guests(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let first = self.network.to_bits();
        let broadcast = first + ((1u32 << (32 - self.prefix)) - 1);
        (first + 2..broadcast).map(Ipv4Addr::from_bits)
    }

    fn overlaps(&self, other: &Subnet) -> bool {
        let prefix = self.prefix.min(other.prefix);
        Self::new(self.network, prefix) == Self::new(other.network, prefix)
    }
}

/// What the host reaches already, but for the default route: a table as in `/proc/net/route`, and single addresses.
pub(super) fn taken(routes: &str, reachable: &[IpAddr]) -> Vec<Subnet> {
    let mut taken: Vec<Subnet> = reachable
        .iter()
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(Subnet::new(*address, 32)),
            IpAddr::V6(_) => None,
        })
        .collect();
    // Iface Destination Gateway Flags RefCnt Use Metric Mask: addresses as numbers of this machine, in hexadecimal.
    for line in routes.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = |index: usize| {
            let text = fields.get(index)?;
            let number = u32::from_str_radix(text, 16).ok()?;
            Some(Ipv4Addr::from(number.to_ne_bytes()))
        };
        if let (Some(network), Some(mask)) = (address(1), address(7))
            && !mask.is_unspecified()
        {
            let prefix = mask.to_bits().leading_ones();
            taken.push(Subnet::new(network, u8::try_from(prefix).unwrap_or(32)));
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{Subnet, taken};

    #[test]
    fn the_first_free_one_is_taken() {
        assert_eq!(Subnet::free(&[]), Some(Subnet::first()));
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     tun0\t0102FB0A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n\
                     eth1\t0004FB0A\t00000000\t0001\t0\t0\t0\t00FCFFFF\t0\t0\t0\n";
        let busy = taken(table, &[Ipv4Addr::new(10, 251, 9, 53).into()]);
        let free = Subnet::free(&busy).unwrap();
        assert_eq!(free.cidr().to_string(), "10.251.12.0/22");
        assert_eq!(free.gateway(), Ipv4Addr::new(10, 251, 12, 1));
        let guests: Vec<Ipv4Addr> = free.guests().collect();
        assert_eq!(guests.len(), 1021);
        assert_eq!(guests[0], Ipv4Addr::new(10, 251, 12, 2));
        assert_eq!(guests[1020], Ipv4Addr::new(10, 251, 15, 254));

        let vpn = "h\nwg0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n";
        let free = Subnet::free(&taken(vpn, &[])).unwrap();
        assert_eq!(free.cidr().to_string(), "172.30.0.0/22");
        let both = format!("{vpn}d0\t00001EAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n");
        assert_eq!(Subnet::free(&taken(&both, &[])), None);
    }

    #[test]
    fn records_that_lie_are_no_subnets() {
        for (text, fine) in [
            ("10.251.4.0/22", true),
            ("10.251.4.0/31", false),
            ("0.0.0.0/0", false),
            ("fd00::/64", false),
        ] {
            assert_eq!(Subnet::of(text.parse().unwrap()).is_some(), fine, "{text}");
        }
    }
}
