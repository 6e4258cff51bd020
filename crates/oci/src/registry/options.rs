//! How a client behaves.

use std::net::IpAddr;
use std::time::Duration;

use super::answer::Stop;
use super::auth::Credentials;

/// How a client behaves. The default is right for a command-line tool.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Registries (`host` or `host:port`) that are spoken to over plain HTTP, besides those on loopback.
    pub plain_http: Vec<String>,
    /// Where user names and passwords come from.
    pub credentials: Credentials,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the next byte of an answer.
    pub stall_timeout: Duration,
    /// How often a request is tried again after 429, 5xx or a dropped connection.
    pub retries: u32,
    /// First pause between two tries; it doubles each time.
    pub backoff: Duration,
    /// Longest pause between two tries, also where the server asks for a longer one.
    pub max_backoff: Duration,
    /// Ends whatever is under way, at once.
    pub stop: Stop,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            user_agent: concat!("firebuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            plain_http: Vec::new(),
            credentials: Credentials::Files,
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            retries: 5,
            backoff: Duration::from_millis(300),
            max_backoff: Duration::from_secs(30),
            stop: Stop::default(),
        }
    }
}

impl Options {
    /// Whether a registry is spoken to over plain HTTP: it is on loopback (127.0.0.0/8, ::1, `localhost`) or listed.
    pub fn is_plain(&self, registry: &str) -> bool {
        is_loopback(registry)
            || self
                .plain_http
                .iter()
                .any(|listed| listed == registry || listed == host_of(registry))
    }
}

/// The host of `host[:port]`, without the brackets of an IPv6 address.
fn host_of(registry: &str) -> &str {
    if let Some(inner) = registry.strip_prefix('[') {
        return inner.split(']').next().unwrap_or_default();
    }
    registry.split(':').next().unwrap_or_default()
}

/// Whether a registry or host is this machine.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = host_of(registry);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn plain_http_is_for_loopback_and_for_what_is_listed() {
        let options = Options {
            plain_http: vec!["reg.lan:5000".to_owned(), "other.lan".to_owned()],
            ..Options::default()
        };
        for (registry, plain) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("reg.lan:5000", true),
            ("other.lan:1", true),
            ("reg.lan", false),
            ("reg.lan:5001", false),
            ("docker.io", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("[::2]:5000", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(options.is_plain(registry), plain, "{registry}");
        }
    }
}
