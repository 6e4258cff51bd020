//! The guest's network, as plain values with a text form: `10.0.2.15/24`, `52:54:00:12:34:56`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One interface of the guest and all that is set on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Which interface is meant.
    pub select: InterfaceRef,
    /// The addresses it gets, each with its prefix length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Cidr>,
    /// The routes that go through it, set in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Its MTU in bytes; the kernel's default where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// How an interface is found in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceRef {
    /// By its hardware address; sure, whatever the guest's kernel calls it.
    Mac(MacAddress),
    /// By its name.
    Name(String),
}

/// A route through one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where it leads; `0.0.0.0/0` and `::/0` are the default routes.
    pub destination: Cidr,
    /// The next hop; none for a network that is directly attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

impl Route {
    /// The default route of the gateway's address family.
    #[must_use]
    pub fn default_via(gateway: IpAddr) -> Route {
        let any = match gateway {
            IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        Route {
            destination: Cidr {
                address: any,
                prefix: 0,
            },
            gateway: Some(gateway),
        }
    }
}

/// An address with the length of its network prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address; host bits may be set.
    pub address: IpAddr,
    /// Bits of the prefix: at most 32 for IPv4, 128 for IPv6.
    pub prefix: u8,
}

/// A hardware address of an Ethernet interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

/// A text that is no [`Cidr`] or no [`MacAddress`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseNetError {
    expected: &'static str,
    found: String,
}

impl fmt::Display for ParseNetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not {}",
            self.found.escape_default(),
            self.expected
        )
    }
}

impl std::error::Error for ParseNetError {}

impl FromStr for Cidr {
    type Err = ParseNetError;

    fn from_str(text: &str) -> Result<Cidr, ParseNetError> {
        let error = || ParseNetError {
            expected: "an address with a prefix length (10.0.2.15/24)",
            found: text.to_owned(),
        };
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address: IpAddr = address.parse().map_err(|_| error())?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            return Err(error());
        }
        Ok(Cidr { address, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for MacAddress {
    type Err = ParseNetError;

    fn from_str(text: &str) -> Result<MacAddress, ParseNetError> {
        let error = || ParseNetError {
            expected: "a hardware address (52:54:00:12:34:56)",
            found: text.to_owned(),
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(error)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(MacAddress(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for Cidr {
    type Error = ParseNetError;

    fn try_from(text: String) -> Result<Cidr, ParseNetError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl TryFrom<String> for MacAddress {
    type Error = ParseNetError;

    fn try_from(text: String) -> Result<MacAddress, ParseNetError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::{Cidr, MacAddress, Route};

    #[test]
    fn cidr_text_round_trips_and_bad_text_is_refused() {
        for text in [
            "10.0.2.15/24",
            "0.0.0.0/0",
            "fec0::15/64",
            "::/0",
            "1.2.3.4/32",
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        for text in [
            "10.0.2.15",
            "10.0.2.15/33",
            "fec0::/129",
            "/24",
            "1.2.3.4/",
            "1.2.3.4/+1",
            "a/1",
            "1.2.3.4/256",
        ] {
            text.parse::<Cidr>().unwrap_err();
        }
    }

    #[test]
    fn mac_text_round_trips_and_bad_text_is_refused() {
        assert_eq!(
            "52:54:00:AB:cd:ef"
                .parse::<MacAddress>()
                .unwrap()
                .to_string(),
            "52:54:00:ab:cd:ef"
        );
        for text in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:00",
            "5:54:00:ab:cd:ef",
            "+2:54:00:ab:cd:ef",
        ] {
            text.parse::<MacAddress>().unwrap_err();
        }
    }

    #[test]
    fn default_route_has_the_family_of_its_gateway() {
        assert_eq!(
            Route::default_via("10.0.2.2".parse().unwrap())
                .destination
                .to_string(),
            "0.0.0.0/0"
        );
        assert_eq!(
            Route::default_via("fec0::2".parse().unwrap())
                .destination
                .to_string(),
            "::/0"
        );
    }
}
