//! Published ports: `-p [IP:][HOST:]GUEST[/PROTOCOL]`.
//!
//! Docker's grammar, and the original's rule that a host port which is left out is the guest's (Docker
//! would take any free one). Both ports may be ranges of the same length. An IPv6 address stands in
//! brackets.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use firebuild_vm::spec::{PortPublish, Protocol};

/// What is wrong with a published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot publish '{text}': {problem}; give [IP:]HOST:GUEST[/udp], for instance 8080:80")]
pub struct PublishError {
    text: String,
    problem: &'static str,
}

/// Reads one `-p`.
///
/// # Errors
/// What breaks the grammar, ports outside 1 to 65535, ranges of different lengths.
pub fn parse(text: &str) -> Result<Vec<PortPublish>, PublishError> {
    let bad = |problem| PublishError {
        text: text.to_owned(),
        problem,
    };
    let (ports, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, name)) => match name.to_ascii_lowercase().as_str() {
            "tcp" => (ports, Protocol::Tcp),
            "udp" => (ports, Protocol::Udp),
            _ => return Err(bad("only tcp and udp can be published")),
        },
    };
    let (host_ip, ports) = split_address(ports).map_err(bad)?;
    let (host, guest) = match ports.split_once(':') {
        Some(("", guest)) => (guest, guest),
        Some((host, guest)) => (host, guest),
        None => (ports, ports),
    };
    let host = range(host).map_err(bad)?;
    let guest = range(guest).map_err(bad)?;
    if host.len() != guest.len() {
        return Err(bad("the ranges have different lengths"));
    }
    Ok(host
        .zip(guest)
        .map(|(host_port, guest_port)| PortPublish {
            host_ip,
            host_port,
            guest_port,
            protocol,
        })
        .collect())
}

/// Splits the address off, if there is one: in brackets, or before two more colons.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), &'static str> {
    const NO_ADDRESS: &str = "the address before the ports is none";
    let (address, ports) = if let Some(rest) = text.strip_prefix('[') {
        rest.split_once("]:").ok_or("a ']:' is missing")?
    } else if text.matches(':').count() >= 2 {
        let at = text.match_indices(':').rev().nth(1).map_or(0, |(at, _)| at);
        (&text[..at], &text[at + 1..])
    } else {
        return Ok((None, text));
    };
    if address.is_empty() {
        return Ok((None, ports));
    }
    let address: IpAddr = address.parse().map_err(|_| NO_ADDRESS)?;
    Ok((Some(address), ports))
}

fn range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let port = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>()
            .ok()
            .filter(|&port| plain && port != 0)
            .ok_or("a port is a number from 1 to 65535")
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if last < first {
        return Err("a range ends before it begins");
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn forms() {
        for (text, expected) in [
            ("8080:80", "8080:80/tcp"),
            ("80", "80:80/tcp"),
            ("5432:5432/udp", "5432:5432/udp"),
            ("80:80/TCP", "80:80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:80:80/tcp"),
            ("[::1]:8080:80/udp", "[::1]:8080:80/udp"),
            ("::1:8080:80", "[::1]:8080:80/tcp"),
            (":8080:80", "8080:80/tcp"),
            (
                "7000-7002:8000-8002",
                "7000:8000/tcp 7001:8001/tcp 7002:8002/tcp",
            ),
            ("65535:1", "65535:1/tcp"),
        ] {
            let got: Vec<String> = parse(text)
                .unwrap_or_else(|error| panic!("{error}"))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(got.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "0:80",
            "80:0",
            "65536:80",
            "a:80",
            "80:80/xyz",
            "+80:80",
            "80:",
            "eth0:80:80",
            "[::1:80:80",
            "1-2:1-3",
            "9-8:9-8",
            "1-65535:2-65535",
            "/udp",
            "80:80/",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains("8080:80"), "{text}: {error}");
        }
    }
}
