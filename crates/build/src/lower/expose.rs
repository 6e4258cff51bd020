//! Ports of EXPOSE: `[ip:][host:]port[-end][/protocol]`.

use std::net::IpAddr;

/// What a word of EXPOSE says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exposed {
    /// `port/protocol`, ascending.
    pub(super) ports: Vec<String>,
    /// Whether the protocol has capitals.
    pub(super) has_capitals: bool,
    /// Whether an address or a host port was given (and dropped).
    pub(super) has_host: bool,
}

/// Reads a word.
pub(super) fn parse(word: &str) -> Result<Exposed, String> {
    let mut parts = word.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host_port = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(format!("invalid port: {word:?}: no port specified"));
    }
    let lower = match protocol.to_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        _ => return Err(format!("invalid port: {word:?}: invalid proto: {protocol}")),
    };
    check_address(address)?;
    let (start, end) = range(ports)
        .ok_or_else(|| format!("invalid containerPort: {ports}: it must be between 0 and 65535"))?;
    if !host_port.is_empty() {
        let (host_start, host_end) =
            range(host_port).ok_or_else(|| format!("invalid hostPort: {host_port}"))?;
        if end - start != host_end - host_start && end != start {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {ports} and {host_port}"
            ));
        }
    }
    Ok(Exposed {
        ports: (start..=end)
            .map(|port| format!("{port}/{lower}"))
            .collect(),
        has_capitals: protocol != protocol.to_lowercase(),
        has_host: !address.is_empty() || !host_port.is_empty(),
    })
}

fn check_address(address: &str) -> Result<(), String> {
    let bare = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').unwrap_or(address),
        None => address,
    };
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    Ok(())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| plain)
    };
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((start, end)) => {
            let (start, end) = (number(start)?, number(end)?);
            (start <= end).then_some((start, end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn forms() {
        for (word, ports) in [
            ("80", vec!["80/tcp"]),
            ("80/UDP", vec!["80/udp"]),
            ("80/", vec!["80/tcp"]),
            (
                "7000-7002/sctp",
                vec!["7000/sctp", "7001/sctp", "7002/sctp"],
            ),
            ("8080:80", vec!["80/tcp"]),
            ("127.0.0.1:8080:80/tcp", vec!["80/tcp"]),
            ("127.0.0.1::80", vec!["80/tcp"]),
            ("[::1]:8080:80", vec!["80/tcp"]),
            ("8000-9000:80", vec!["80/tcp"]),
            ("0", vec!["0/tcp"]),
        ] {
            assert_eq!(parse(word).unwrap().ports, ports, "{word}");
        }
        assert!(parse("80/Tcp").unwrap().has_capitals);
        assert!(parse("1:80").unwrap().has_host);
        assert!(!parse("80").unwrap().has_host);
    }

    #[test]
    fn errors() {
        for (word, message) in [
            ("80/http", "invalid port: \"80/http\": invalid proto: http"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("", "invalid port: \"\": no port specified"),
            (
                "70000",
                "invalid containerPort: 70000: it must be between 0 and 65535",
            ),
            (
                "90-80",
                "invalid containerPort: 90-80: it must be between 0 and 65535",
            ),
            (
                "+80",
                "invalid containerPort: +80: it must be between 0 and 65535",
            ),
            ("x:80", "invalid hostPort: x"),
            (
                "1-3:80-81",
                "invalid ranges specified for container and host Ports: 80-81 and 1-3",
            ),
            ("local:1:80", "invalid IP address: local"),
        ] {
            assert_eq!(parse(word).unwrap_err(), message, "{word}");
        }
    }
}
