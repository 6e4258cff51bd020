//! The network of steps, and what a Dockerfile may ask for, as the caller says it.

use firebuild_build::graph::NetworkMode;
use firebuild_build::lower::Entitlements;

use crate::add_host::{Target, parse};

/// `--network`, `--allow` and `--add-host`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// What steps have that ask for none in particular.
    pub mode: NetworkMode,
    /// What steps may ask for.
    pub allow: Entitlements,
    /// Further lines of `/etc/hosts`: address and name.
    pub extra_hosts: Vec<(String, String)>,
}

/// A value that is none; the text says what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NetworkError(String);

impl Network {
    /// Takes a value of `--network`. The host's network by the caller's own word allows it to the Dockerfile, too, as in
    /// buildx.
    ///
    /// # Errors
    /// Not one of `default`, `none` and `host`.
    pub fn set_mode(&mut self, value: &str) -> Result<(), NetworkError> {
        self.mode = match value {
            "default" => NetworkMode::Default,
            "none" => NetworkMode::None,
            "host" => {
                self.allow.network_host = true;
                NetworkMode::Host
            }
            _ => {
                return Err(NetworkError(format!(
                    "network mode {value:?} is not supported by a build: it is default, none or host"
                )));
            }
        };
        Ok(())
    }

    /// Takes a value of `--allow`: entitlements by their BuildKit names, with commas between them.
    ///
    /// # Errors
    /// An unknown name.
    pub fn allow(&mut self, value: &str) -> Result<(), NetworkError> {
        for name in value.split(',') {
            match name.trim() {
                "network.host" => self.allow.network_host = true,
                "security.insecure" => self.allow.security_insecure = true,
                _ => {
                    return Err(NetworkError(format!(
                        "unknown entitlement {name:?}: it is network.host or security.insecure"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Takes a value of `--add-host`: `NAME=ADDRESS` or, as of old, `NAME:ADDRESS`; an address may stand in brackets.
    ///
    /// # Errors
    /// No name, no address; `host-gateway`, which has no meaning here.
    pub fn add_host(&mut self, value: &str) -> Result<(), NetworkError> {
        let wrong = |why: &str| NetworkError(format!("--add-host {value}: {why}"));
        let (name, target) = parse(value).map_err(|why| wrong(&why))?;
        let Target::Address(address) = target else {
            return Err(wrong(
                "steps do not reach the host's loopback; with --network=host it is 127.0.0.1",
            ));
        };
        self.extra_hosts.push((address.to_string(), name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, NetworkMode};

    #[test]
    fn the_hosts_network_is_allowed_by_asking_for_it() {
        let mut network = Network::default();
        network.set_mode("host").unwrap();
        assert!(network.mode == NetworkMode::Host && network.allow.network_host);
        assert!(!network.allow.security_insecure);
        network.set_mode("none").unwrap();
        assert!(network.set_mode("bridge").is_err());
        network.allow("security.insecure,network.host").unwrap();
        assert!(network.allow.security_insecure);
        assert!(network.allow("device").is_err());
    }

    #[test]
    fn hosts_are_written_in_two_ways() {
        let mut network = Network::default();
        for value in ["db=10.1.2.3", "db6:fd00::1", "x=[::1]"] {
            network.add_host(value).unwrap();
        }
        let expected = [("10.1.2.3", "db"), ("fd00::1", "db6"), ("::1", "x")];
        assert_eq!(
            network.extra_hosts,
            expected.map(|(address, name)| (address.to_owned(), name.to_owned()))
        );
        for value in [
            "db",
            "=1.2.3.4",
            "a b=1.2.3.4",
            "db=1.2.3",
            "db=host-gateway",
        ] {
            assert!(network.add_host(value).is_err(), "{value}");
        }
    }
}
