//! Distributions and their suites: what `debian:bookworm` means.

use std::fmt;

use super::error::{BaseOsError, BaseOsErrorKind};
use crate::error::Error;

/// A family of distributions that share archives, keys and habits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

/// A suite of a distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    family: Family,
    suite: String,
    tag: String,
}

/// Suites by name and by version number. The last column: the suite has released, so that it has
/// updates and security updates beside it.
const SUITES: &[(Family, &str, &[&str], bool)] = &[
    (Family::Debian, "buster", &["10"], false), // archived: its updates have gone
    (Family::Debian, "bullseye", &["11"], true),
    (Family::Debian, "bookworm", &["12"], true),
    (Family::Debian, "trixie", &["13"], true),
    (Family::Debian, "forky", &["14"], false),
    (Family::Debian, "sid", &["unstable"], false),
    (Family::Debian, "testing", &[], false),
    (Family::Debian, "stable", &["latest"], true),
    (Family::Debian, "oldstable", &[], true),
    (Family::Ubuntu, "focal", &["20.04"], true),
    (Family::Ubuntu, "jammy", &["22.04"], true),
    (Family::Ubuntu, "noble", &["24.04"], true),
    (Family::Ubuntu, "plucky", &["25.04"], true),
    (Family::Ubuntu, "questing", &["25.10"], true),
    (Family::Ubuntu, "resolute", &["26.04"], true),
];

/// A suite name is a path component in the archive and an argument of tools.
const LONGEST_SUITE: usize = 32;

impl Distribution {
    /// Reads `debian:bookworm`, `debian:12`, `ubuntu:noble`.
    ///
    /// # Errors
    /// `BadName` when the distribution is not known or the suite cannot be a suite's name. A suite
    /// that is not known here may still exist; the tool will tell.
    pub fn parse(name: &str) -> Result<Self, BaseOsError> {
        let bad = |why: &str| {
            Error::new(
                BaseOsErrorKind::BadName,
                format!(
                    "cannot bootstrap '{name}': {why}; give for instance debian:bookworm or ubuntu:noble"
                ),
            )
        };
        let (family, tag) = name
            .split_once(':')
            .ok_or_else(|| bad("it names no suite"))?;
        let family = match family {
            "debian" => Family::Debian,
            "ubuntu" => Family::Ubuntu,
            _ => return Err(bad("only debian and ubuntu can be bootstrapped")),
        };
        let plain = !tag.is_empty()
            && tag.len() <= LONGEST_SUITE
            && tag.starts_with(|c: char| c.is_ascii_alphanumeric())
            && tag.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)
            });
        if !plain {
            return Err(bad("the suite has characters that no suite has"));
        }
        let known = SUITES.iter().find(|(of, suite, aliases, _)| {
            *of == family && (*suite == tag || aliases.contains(&tag))
        });
        let suite = known.map_or(tag, |(_, suite, _, _)| suite).to_owned();
        Ok(Self {
            family,
            suite,
            tag: tag.to_owned(),
        })
    }

    /// The family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The suite's name in the archive.
    pub fn suite(&self) -> &str {
        &self.suite
    }

    /// The image reference that people use for it: `debian:12` stays `debian:12`.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.family.name(), self.tag)
    }

    /// Whether updates and security updates are published beside the suite.
    pub(crate) fn has_updates(&self) -> bool {
        SUITES
            .iter()
            .any(|(of, suite, _, released)| *of == self.family && *suite == self.suite && *released)
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.name(), self.suite)
    }
}

impl Family {
    /// The family whose archive has a suite of this name.
    pub(crate) fn of_suite(name: &str) -> Option<Self> {
        SUITES
            .iter()
            .find(|(_, suite, aliases, _)| *suite == name || aliases.contains(&name))
            .map(|&(family, ..)| family)
    }

    /// The name as in image references and in `ID=` of `/etc/os-release`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::Debian => "debian",
            Family::Ubuntu => "ubuntu",
        }
    }

    /// What `Origin:` says in the archive's Release files.
    pub(crate) fn origin(self) -> &'static str {
        match self {
            Family::Debian => "Debian",
            Family::Ubuntu => "Ubuntu",
        }
    }

    /// The keyring of the archive; the same file is in the distribution itself, as a dependency of apt.
    pub(crate) fn keyring(self) -> &'static str {
        match self {
            Family::Debian => "/usr/share/keyrings/debian-archive-keyring.gpg",
            Family::Ubuntu => "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
        }
    }

    /// The components of official base images.
    pub(crate) fn components(self) -> &'static [&'static str] {
        match self {
            Family::Debian => &["main"],
            Family::Ubuntu => &["main", "universe"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Distribution, Family};

    #[test]
    fn names_and_numbers() {
        let bookworm = Distribution::parse("debian:12").unwrap();
        assert_eq!(bookworm.suite(), "bookworm");
        assert_eq!(bookworm.reference(), "debian:12");
        assert_eq!(bookworm.to_string(), "debian bookworm");
        assert!(bookworm.has_updates());
        assert!(!Distribution::parse("debian:sid").unwrap().has_updates());
        assert_eq!(
            Distribution::parse("ubuntu:24.04").unwrap().suite(),
            "noble"
        );
        assert_eq!(Distribution::parse("debian:duke").unwrap().suite(), "duke");
        assert_eq!(Family::of_suite("jammy"), Some(Family::Ubuntu));
    }

    #[test]
    fn what_cannot_be_a_suite_is_refused() {
        for name in [
            "debian",
            "alpine:3.20",
            "debian:",
            "debian:-x",
            "debian:../sid",
            "debian:Bookworm",
            "debian:a b",
        ] {
            let text = Distribution::parse(name).unwrap_err().to_string();
            assert!(text.contains("debian:bookworm"), "{text}");
        }
    }
}
