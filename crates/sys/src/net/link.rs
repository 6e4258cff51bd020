//! The links of a network namespace: which there are, bridges, membership in them: `linux/if_link.h`.

use std::io;

use super::{RTM_NEWLINK, link_index, link_message, request};
use crate::netlink::{self, NLM_F_CREATE, NLM_F_EXCL, attribute, attributes, text};

const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`.
const MESSAGE: usize = 16;
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_INFO_KIND: u16 = 1;

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What made it: `bridge`, `tun` (for taps too), `veth`; nothing for hardware and loopback.
    pub kind: Option<String>,
    /// Number of the bridge that it is a port of.
    pub master: Option<u32>,
}

/// The links of the calling thread's network namespace.
///
/// # Errors
/// When the kernel does not give the list.
pub fn links() -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    netlink::dump(
        &netlink::socket(None)?,
        RTM_GETLINK,
        &link_message(0, 0, 0),
        |entry| links.extend(read(entry)),
    )?;
    Ok(links)
}

fn read(entry: &[u8]) -> Option<Link> {
    let number = |bytes: &[u8]| bytes.first_chunk::<4>().map(|it| u32::from_ne_bytes(*it));
    let string = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0);
        String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
    };
    let mut link = Link {
        index: number(entry.get(4..)?)?,
        name: String::new(),
        kind: None,
        master: None,
    };
    for (kind, value) in attributes(entry.get(MESSAGE..)?) {
        match kind {
            IFLA_IFNAME => link.name = string(value),
            IFLA_MASTER => link.master = number(value),
            IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = kind.map(|(_, value)| string(value));
            }
            _ => {}
        }
    }
    Some(link)
}

/// Makes a bridge that is down, with this hardware address. A bridge without one takes that of one of its ports, and with
/// the ports it changes.
///
/// # Errors
/// `EEXIST`, `EPERM`, `EOPNOTSUPP` for a kernel without bridges.
pub fn add_bridge(name: &str, address: [u8; 6]) -> io::Result<()> {
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, b"bridge");
    let mut body = link_message(0, 0, 0);
    attribute(&mut body, IFLA_IFNAME, &text(name));
    attribute(&mut body, IFLA_ADDRESS, &address);
    attribute(&mut body, IFLA_LINKINFO, &info);
    request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body)
}

/// Makes a link a port of a bridge.
///
/// # Errors
/// `ENODEV`, `EXFULL` for a bridge with 1023 ports, `EBUSY` for a port of another one, `EPERM`.
pub fn join_bridge(name: &str, bridge: &str) -> io::Result<()> {
    let mut body = link_message(link_index(name)?, 0, 0);
    attribute(&mut body, IFLA_MASTER, &link_index(bridge)?.to_ne_bytes());
    request(RTM_NEWLINK, 0, &body)
}

/// Deletes a link, with its addresses and routes.
///
/// # Errors
/// `ENODEV` when there is none, `EPERM`, `EOPNOTSUPP` for hardware.
pub fn delete(name: &str) -> io::Result<()> {
    request(RTM_DELLINK, 0, &link_message(link_index(name)?, 0, 0))
}
