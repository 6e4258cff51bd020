//! The grammar of `--add-host`, which builds and VMs share.

use std::net::IpAddr;

/// Where a name of `--add-host` leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// To this address.
    Address(IpAddr),
    /// `host-gateway`: to the host, as the network knows it.
    HostGateway,
}

/// Reads `NAME=ADDRESS` or, as of old, `NAME:ADDRESS`; an address may stand in brackets. An error says what is wrong.
pub(crate) fn parse(value: &str) -> Result<(String, Target), String> {
    let (name, address) = value
        .split_once('=')
        .or_else(|| value.split_once(':'))
        .ok_or("give NAME=ADDRESS")?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err("the name is none".to_owned());
    }
    if address == "host-gateway" {
        return Ok((name.to_owned(), Target::HostGateway));
    }
    let plain = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    match plain.parse() {
        Ok(address) => Ok((name.to_owned(), Target::Address(address))),
        Err(_) => Err(format!("{address:?} is no IP address")),
    }
}
