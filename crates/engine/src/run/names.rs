//! Names that the guest resolves: `--add-host`, `--dns`, `--dns-search`, `--dns-option`.

use std::net::IpAddr;

use firebuild_guest_proto::{HostEntry, Resolver, RunConfig};

use super::error::{RunError, RunErrorKind};
use crate::add_host::{Target, parse};
use crate::error::Error;

/// What the flags say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// `--add-host`, as written: `NAME:ADDRESS` or `NAME=ADDRESS`.
    pub hosts: Vec<String>,
    /// Name servers in place of the network's.
    pub dns: Vec<IpAddr>,
    /// A search list in place of the network's; `.` alone is an empty one.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

impl Names {
    /// The further lines of `/etc/hosts`, and the names that lead to the host, whose address is known when the machine is
    /// launched ([`lead_to_gateway`]).
    pub(crate) fn entries(
        &self,
        has_network: bool,
    ) -> Result<(Vec<HostEntry>, Vec<String>), RunError> {
        let (mut entries, mut to_gateway) = (Vec::new(), Vec::new());
        for value in &self.hosts {
            let wrong =
                |why: &str| Error::new(RunErrorKind::Flag, format!("--add-host {value}: {why}"));
            let (name, target) = parse(value).map_err(|why| wrong(&why))?;
            match target {
                Target::Address(address) => entries.push(HostEntry {
                    address,
                    names: vec![name],
                }),
                Target::HostGateway if has_network => to_gateway.push(name),
                Target::HostGateway => {
                    return Err(wrong("this VM has no network that leads to the host"));
                }
            }
        }
        Ok((entries, to_gateway))
    }

    /// What `/etc/resolv.conf` says; nothing leaves the image's as it is.
    pub(crate) fn resolver(&self, of_network: Option<Resolver>) -> Option<Resolver> {
        if self.dns.is_empty() && self.search.is_empty() && self.options.is_empty() {
            return of_network;
        }
        let mut resolver = of_network.unwrap_or_default();
        if !self.dns.is_empty() {
            resolver.nameservers.clone_from(&self.dns);
        }
        if !self.search.is_empty() {
            let words = self.search.iter().filter(|word| *word != ".");
            resolver.search = words.cloned().collect();
        }
        if !self.options.is_empty() {
            resolver.options.clone_from(&self.options);
        }
        Some(resolver)
    }
}

/// Lets names lead to the gateway of the guest's network, which is the host.
pub(crate) fn lead_to_gateway(guest: &mut RunConfig, names: &[String]) {
    let routes = guest
        .interfaces
        .iter()
        .flat_map(|interface| &interface.routes);
    let gateway = routes.into_iter().find_map(|route| route.gateway);
    if let Some(address) = gateway
        && !names.is_empty()
    {
        guest.hosts.push(HostEntry {
            address,
            names: names.to_vec(),
        });
    }
}

#[cfg(test)]
mod tests {
    use firebuild_guest_proto::{
        Channel, Interface, InterfaceRef, Resolver, RootLayout, Route, RunConfig,
    };

    use super::{Names, lead_to_gateway};

    #[test]
    fn flags_take_the_place_of_the_networks() {
        let network = Resolver {
            nameservers: vec!["10.0.2.3".parse().unwrap()],
            search: vec!["lan".to_owned()],
            options: Vec::new(),
        };
        let plain = Names::default();
        assert_eq!(plain.resolver(Some(network.clone())), Some(network.clone()));
        assert_eq!(plain.resolver(None), None);
        let names = Names {
            dns: vec!["9.9.9.9".parse().unwrap()],
            search: vec![".".to_owned()],
            options: vec!["ndots:2".to_owned()],
            ..Names::default()
        };
        let resolver = names.resolver(Some(network)).unwrap();
        assert_eq!(resolver.nameservers, names.dns);
        assert!(resolver.search.is_empty());
        assert_eq!(resolver.options, ["ndots:2"]);
    }

    #[test]
    fn hosts_in_both_spellings_and_the_gateway() {
        let names = |hosts: &[&str]| Names {
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            ..Names::default()
        };
        let given = names(&[
            "db:10.1.2.3",
            "six=::1",
            "host.docker.internal:host-gateway",
        ]);
        let (entries, to_gateway) = given.entries(true).unwrap();
        let mut guest = RunConfig::new(
            vec!["x".to_owned()],
            "h".to_owned(),
            RootLayout::Initrd,
            Channel::virtio_serial(),
        );
        guest.hosts = entries;
        guest.interfaces = vec![Interface {
            select: InterfaceRef::Name("eth0".to_owned()),
            addresses: Vec::new(),
            routes: vec![Route::default_via("10.0.2.2".parse().unwrap())],
            mtu: None,
        }];
        lead_to_gateway(&mut guest, &to_gateway);
        let text: Vec<String> = guest
            .hosts
            .iter()
            .map(|entry| format!("{} {}", entry.address, entry.names.join(" ")))
            .collect();
        assert_eq!(
            text,
            ["10.1.2.3 db", "::1 six", "10.0.2.2 host.docker.internal"]
        );
        for bad in ["db", "=1.2.3.4", "db:nowhere", "a b:1.2.3.4"] {
            names(&[bad]).entries(true).unwrap_err();
        }
        names(&["h:host-gateway"]).entries(false).unwrap_err();
    }
}
