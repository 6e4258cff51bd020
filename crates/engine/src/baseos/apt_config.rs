//! How the host's apt reaches its mirrors: proxies, certificates, retries.
//!
//! The bootstrap tools run an apt with a configuration of its own, so what `apt-config dump` says of
//! the host is handed on. Proxies travel in the environment, because they may hold a password and the
//! tools write options into the new system.

use std::collections::BTreeMap;

/// Settings to hand on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AptConfig {
    /// Environment variables.
    pub(crate) environment: BTreeMap<String, String>,
    /// Options in apt's notation, `Acquire::Retries "3";`.
    pub(crate) options: Vec<String>,
}

/// Settings that are about reaching a mirror. Others are about this host.
const HANDED_ON: &[&str] = &[
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::Retries",
    "Acquire::ForceIPv4",
    "Acquire::ForceIPv6",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::Max-ValidTime",
];

/// Reads the output of `apt-config dump`.
pub(crate) fn parse(dump: &str) -> AptConfig {
    let mut config = AptConfig::default();
    for line in dump.lines() {
        let Some((key, value)) = line.split_once(' ') else {
            continue;
        };
        let Some(value) = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix("\";"))
        else {
            continue;
        };
        let wanted = HANDED_ON.iter().any(|prefix| {
            key.to_ascii_lowercase()
                .starts_with(&prefix.to_ascii_lowercase())
        });
        if !wanted || value.is_empty() {
            continue;
        }
        let variable = match key.to_ascii_lowercase().as_str() {
            "acquire::http::proxy" => Some("http_proxy"),
            "acquire::https::proxy" => Some("https_proxy"),
            _ => None,
        };
        match variable {
            // DIRECT means no proxy, whatever the environment says.
            Some(variable) if value == "DIRECT" || value == "false" => {
                config
                    .environment
                    .insert(variable.to_owned(), String::new());
            }
            Some(variable) => {
                config
                    .environment
                    .insert(variable.to_owned(), value.to_owned());
            }
            None => config.options.push(line.to_owned()),
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn proxies_go_to_the_environment_and_the_rest_of_the_way_is_kept() {
        let config = parse(
            "APT \"\";\nAcquire \"\";\nAcquire::http \"\";\n\
             Acquire::http::Proxy \"http://u:secret@proxy:3128/\";\n\
             Acquire::https::proxy \"DIRECT\";\n\
             Acquire::http::Proxy::intern \"DIRECT\";\n\
             Acquire::https::CaInfo \"/etc/ssl/own.pem\";\n\
             Acquire::IndexTargets::deb::Packages::Description \"x\";\n\
             acquire::retries \"5\";\nbroken\nDir::Etc \"etc/apt\";\n",
        );
        assert_eq!(
            config.environment.get("http_proxy").map(String::as_str),
            Some("http://u:secret@proxy:3128/")
        );
        assert_eq!(
            config.environment.get("https_proxy").map(String::as_str),
            Some("")
        );
        assert_eq!(
            config.options,
            [
                "Acquire::http::Proxy::intern \"DIRECT\";",
                "Acquire::https::CaInfo \"/etc/ssl/own.pem\";",
                "acquire::retries \"5\";"
            ]
        );
        assert!(!format!("{:?}", config.options).contains("secret"));
    }
}
