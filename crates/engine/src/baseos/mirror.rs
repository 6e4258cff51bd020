//! Where the packages of a suite come from, going by the host's own configuration.
//!
//! Taken are the repositories of the distribution itself. A repository is the distribution's when it
//! has the component `main`, a suite of the family, keys of the family's archive or none of its own,
//! and when the Release file that apt keeps of it, if there is one, names the family as its origin.
//! Everything else on the host (third parties, backports) stays out of base images.
//!
//! A suite that the host does not use itself is looked for where the host's own suite is.

use super::distribution::{Distribution, Family};
use super::error::{BaseOsError, BaseOsErrorKind};
use super::sources::{SignedBy, Source};
use crate::error::Error;

/// Part of a release that has a suite of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pocket {
    Main,
    Updates,
    Security,
}

/// The lines of `sources.list(5)` for a suite. `origin` tells the origin that apt knows of a
/// repository.
///
/// # Errors
/// `NoMirror` when the host knows no repository of the family.
pub(crate) fn lines(
    wanted: &Distribution,
    host: &[Source],
    origin: impl Fn(&Source) -> Option<String>,
) -> Result<Vec<String>, BaseOsError> {
    let family = wanted.family();
    let own: Vec<(&Source, String, Pocket)> = host
        .iter()
        .filter(|source| is_of(family, source, origin(source).as_deref()))
        .filter_map(|source| {
            let (suite, pocket) = split(&source.suite)?;
            let known = suite == wanted.suite() || Family::of_suite(&suite) == Some(family);
            known.then_some((source, suite, pocket))
        })
        .collect();
    let same = |suite: &str| {
        Distribution::parse(&format!("{}:{suite}", family.name()))
            .is_ok_and(|other| other.suite() == wanted.suite())
    };
    let exact = own
        .iter()
        .any(|(_, suite, pocket)| *pocket == Pocket::Main && same(suite));
    let mut lines = Vec::new();
    for (source, suite, pocket) in &own {
        let take = if exact {
            same(suite)
        } else {
            *pocket == Pocket::Main || wanted.has_updates()
        };
        if take {
            let line = line(wanted, &source.uri, *pocket);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    if !own.iter().any(|(_, _, pocket)| *pocket == Pocket::Main) {
        return Err(Error::new(
            BaseOsErrorKind::NoMirror,
            format!(
                "the apt configuration of this host names no repository of {}: \
                 name one with --mirror URL",
                family.origin()
            ),
        ));
    }
    // The suite itself first, as tools and readers expect it.
    lines.sort_by_key(|line| line.contains("-updates") || line.contains("-security"));
    Ok(lines)
}

/// The lines for a mirror that was named: a URL, or whole `deb …` lines.
pub(crate) fn named(wanted: &Distribution, mirror: &str) -> Vec<String> {
    if mirror.starts_with("deb ") {
        return mirror.lines().map(str::to_owned).collect();
    }
    vec![line(wanted, mirror, Pocket::Main)]
}

fn line(wanted: &Distribution, uri: &str, pocket: Pocket) -> String {
    let family = wanted.family();
    let suite = match pocket {
        Pocket::Main => wanted.suite().to_owned(),
        Pocket::Updates => format!("{}-updates", wanted.suite()),
        Pocket::Security => format!("{}-security", wanted.suite()),
    };
    format!(
        "deb [signed-by={}] {uri} {suite} {}",
        family.keyring(),
        family.components().join(" ")
    )
}

fn is_of(family: Family, source: &Source, origin: Option<&str>) -> bool {
    let keys = match &source.signed_by {
        SignedBy::Any => true,
        SignedBy::Embedded => origin.is_some(),
        SignedBy::Files(files) => {
            let archive = format!("{}-archive-", family.name());
            files.iter().all(|file| {
                let name = file.rsplit('/').next().unwrap_or_default();
                name.starts_with(&archive)
            })
        }
    };
    keys && source.components.iter().any(|name| name == "main")
        && origin.is_none_or(|origin| origin == family.origin())
}

/// Splits `bookworm-security` into its release and pocket. `None` for pockets that base images do
/// not have: backports, proposed updates.
fn split(suite: &str) -> Option<(String, Pocket)> {
    let suite = suite.trim_end_matches('/');
    let (release, pocket) = if let Some(release) = suite.strip_suffix("-updates") {
        (release, Pocket::Updates)
    } else if let Some(release) = suite
        .strip_suffix("-security")
        .or_else(|| suite.strip_suffix("/updates"))
    // until buster
    {
        (release, Pocket::Security)
    } else {
        (suite, Pocket::Main)
    };
    (!release.contains(['-', '/'])).then(|| (release.to_owned(), pocket))
}

#[cfg(test)]
mod tests {
    use super::{lines, named};
    use crate::baseos::Distribution;
    use crate::baseos::sources::{SignedBy, Source};

    fn source(uri: &str, suite: &str, signed_by: &str) -> Source {
        Source {
            uri: uri.to_owned(),
            suite: suite.to_owned(),
            components: vec!["main".to_owned()],
            signed_by: match signed_by {
                "" => SignedBy::Any,
                file => SignedBy::Files(vec![file.to_owned()]),
            },
        }
    }

    const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

    fn host() -> Vec<Source> {
        vec![
            source("http://m/debian-security", "bookworm-security", KEYS),
            source("http://m/debian", "bookworm", KEYS),
            source("http://m/debian", "bookworm", KEYS),
            source("http://m/debian", "bookworm-updates", ""),
            source("http://m/debian", "bookworm-backports", KEYS),
            source(
                "http://third/debian",
                "bookworm",
                "/etc/apt/keyrings/third.gpg",
            ),
            source("http://liar/debian", "bookworm", ""),
            source("http://third/apt", "nodistro", ""),
            Source {
                components: vec!["stable".to_owned()],
                ..source("http://docker/debian", "bookworm", "")
            },
        ]
    }

    fn chosen(name: &str, host: &[Source]) -> Vec<String> {
        let origin = |source: &Source| match source.uri.as_str() {
            "http://liar/debian" => Some("Somebody".to_owned()),
            "http://m/debian" => Some("Debian".to_owned()),
            _ => None,
        };
        lines(&Distribution::parse(name).unwrap(), host, origin)
            .unwrap()
            .into_iter()
            .map(|line| line.replace(&format!("[signed-by={KEYS}] "), ""))
            .collect()
    }

    #[test]
    fn the_hosts_own_suite_comes_from_its_own_repositories() {
        let bookworm = [
            "deb http://m/debian bookworm main",
            "deb http://m/debian-security bookworm-security main",
            "deb http://m/debian bookworm-updates main",
        ];
        assert_eq!(chosen("debian:bookworm", &host()), bookworm);
        assert_eq!(chosen("debian:12", &host()), bookworm);
    }

    #[test]
    fn another_suite_is_looked_for_in_the_same_places() {
        assert_eq!(
            chosen("debian:trixie", &host()),
            [
                "deb http://m/debian trixie main",
                "deb http://m/debian-security trixie-security main",
                "deb http://m/debian trixie-updates main",
            ]
        );
        assert_eq!(
            chosen("debian:sid", &host()),
            ["deb http://m/debian sid main"]
        );
    }

    #[test]
    fn another_family_needs_a_mirror() {
        let ubuntu = Distribution::parse("ubuntu:noble").unwrap();
        let error = lines(&ubuntu, &host(), |_| None).unwrap_err();
        assert!(error.to_string().contains("--mirror"), "{error}");
        assert_eq!(
            named(&ubuntu, "http://u/ubuntu"),
            [
                "deb [signed-by=/usr/share/keyrings/ubuntu-archive-keyring.gpg] \
                 http://u/ubuntu noble main universe"
            ]
        );
        assert_eq!(
            named(&ubuntu, "deb http://a x main\ndeb http://b y main"),
            ["deb http://a x main", "deb http://b y main"]
        );
    }
}
