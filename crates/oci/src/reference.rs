//! Image references: `[registry/]repository[:tag][@digest]`.
//!
//! Sources: the grammar of `github.com/distribution/reference` (`reference.go`, `regexp.go`), anchored at both ends;
//! the short names of `normalize.go`: no registry means `docker.io`, one component there means `library/…`,
//! neither tag nor digest means `latest`. The first component is a registry if it has a dot or a colon, is
//! `localhost`, or has an upper-case letter.
//!
//! `--tag org/name:version` is an ordinary reference, so catalogue entries are named by the same rules.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};

/// The registry of short names.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of a reference that has neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// Longest repository in bytes, the registry included (`NameTotalLengthMax`).
const MAX_NAME: usize = 255;
/// Longest tag in bytes.
const MAX_TAG: usize = 128;

/// A normalised image reference.
///
/// Displayed in the familiar form (`debian:bookworm`); [`Reference::canonical`] is the form for keys and files. Both
/// read back as the same value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and port of the registry, `docker.io` for short names.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry, `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if any. A reference without a digest always has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference is pinned.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image, pinned to `digest`.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The same image without a digest; the tag becomes `latest` if there was none.
    #[must_use]
    pub fn without_digest(&self) -> Self {
        Self {
            digest: None,
            tag: Some(self.tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned())),
            ..self.clone()
        }
    }

    /// The same repository with another tag, unpinned.
    ///
    /// # Errors
    /// [`ReferenceErrorKind::Tag`].
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag).map_err(|(kind, reason)| ReferenceError::new(tag, kind, reason))?;
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// The full form: `docker.io/library/debian:bookworm`.
    pub fn canonical(&self) -> String {
        self.render(&format!("{}/{}", self.registry, self.repository))
    }

    /// The short form: `debian:bookworm`. The same as [`fmt::Display`].
    pub fn familiar(&self) -> String {
        let name = if self.registry != DEFAULT_REGISTRY {
            format!("{}/{}", self.registry, self.repository)
        } else {
            match self.repository.strip_prefix("library/") {
                // "library/a/b" must keep its prefix to read back as the same value.
                Some(short) if !short.contains('/') => short.to_owned(),
                _ if self.short_is_ambiguous() => format!("{}/{}", self.registry, self.repository),
                _ => self.repository.clone(),
            }
        };
        self.render(&name)
    }

    /// Whether the repository alone would be read as `registry/…`.
    fn short_is_ambiguous(&self) -> bool {
        let first = self.repository.split('/').next().unwrap_or_default();
        looks_like_registry(first)
    }

    fn render(&self, name: &str) -> String {
        let mut out = name.to_owned();
        if let Some(tag) = &self.tag {
            out.push(':');
            out.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            out.push('@');
            out.push_str(&digest.to_string());
        }
        out
    }
}

fn looks_like_registry(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|(kind, reason)| ReferenceError::new(text, kind, reason))
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.canonical())
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

type Part<T> = Result<T, (ReferenceErrorKind, String)>;

fn parse(text: &str) -> Part<Reference> {
    use ReferenceErrorKind as Kind;
    if text.is_empty() {
        return Err((Kind::Empty, "it is empty".to_owned()));
    }
    // Longer than any valid name, tag and digest together; bounds what is echoed and scanned.
    if text.len() > 1024 {
        return Err((Kind::TooLong, format!("it has {} bytes", text.len())));
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err((
            Kind::Character,
            format!("character {bad:?} is not allowed in a reference"),
        ));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse().map_err(|error: DigestError| {
                (Kind::Digest, format!("digest {digest:?} is wrong: {error}"))
            })?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    // A colon after the last slash starts the tag; before it, a port.
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[slash..].find(':') {
        Some(at) => (&rest[..slash + at], Some(&rest[slash + at + 1..])),
        None => (rest, None),
    };
    if name.is_empty() {
        return Err((Kind::Repository, "the name is missing".to_owned()));
    }
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    if name.contains("://") {
        return Err((
            Kind::Registry,
            "a reference has no scheme; write it without \"http://\"".to_owned(),
        ));
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if looks_like_registry(first) => {
            // A repository is lower case: "Org/name" is a slip more often than a registry named "Org".
            if !first.contains(['.', ':']) && first != "localhost" {
                check_repository(first)?;
            }
            let first = if first == "index.docker.io" {
                DEFAULT_REGISTRY
            } else {
                first
            };
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    check_registry(registry)?;
    check_repository(repository)?;
    if name.len() == Digest::HEX_LEN && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err((
            Kind::Repository,
            "64 hexadecimal digits are an image ID, not a name".to_owned(),
        ));
    }
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err((
            Kind::TooLong,
            format!("registry and repository together are longer than {MAX_NAME} bytes"),
        ));
    }
    let tag = match (tag, digest) {
        (Some(tag), _) => Some(tag.to_owned()),
        (None, Some(_)) => None,
        (None, None) => Some(DEFAULT_TAG.to_owned()),
    };
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag,
        digest,
    })
}

fn check_tag(tag: &str) -> Part<()> {
    let bad = |reason| Err((ReferenceErrorKind::Tag, reason));
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if tag.is_empty() {
        return bad("the tag after ':' is empty".to_owned());
    }
    if tag.len() > MAX_TAG {
        return bad(format!(
            "the tag has {} bytes, more than {MAX_TAG}",
            tag.len()
        ));
    }
    if let Some(c) = tag.chars().find(|c| !word(*c) && !matches!(c, '.' | '-')) {
        return bad(format!(
            "tag {tag:?} has the character {c:?}; letters, digits, '_', '.' and '-' are allowed"
        ));
    }
    if !tag.starts_with(word) {
        return bad(format!(
            "tag {tag:?} must start with a letter, a digit or '_'"
        ));
    }
    Ok(())
}

/// `host[:port]`: DNS labels, an IPv4 address, or an IPv6 address in brackets.
fn check_registry(registry: &str) -> Part<()> {
    let bad = |reason: String| {
        Err((
            ReferenceErrorKind::Registry,
            format!("registry {registry:?}: {reason}"),
        ))
    };
    let (host, port) = if let Some(inner) = registry.strip_prefix('[') {
        let Some((address, after)) = inner.split_once(']') else {
            return bad("']' is missing".to_owned());
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return bad(format!("{address:?} is not an IPv6 address"));
        }
        match after.strip_prefix(':') {
            Some(port) => ("ok", Some(port)),
            None if after.is_empty() => ("ok", None),
            None => return bad("only ':' and a port may follow ']'".to_owned()),
        }
    } else {
        match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        }
    };
    for label in host.split('.') {
        if label.is_empty() {
            return bad("a part of the host name is empty".to_owned());
        }
        if let Some(c) = label
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && *c != '-')
        {
            return bad(format!("character {c:?} is not allowed in a host name"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return bad("a part of the host name starts or ends with '-'".to_owned());
        }
    }
    if let Some(port) = port {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || port.parse::<u16>().is_err() {
            return bad(format!("{port:?} is not a port"));
        }
    }
    Ok(())
}

/// Lower-case words of letters and digits, joined by one '.', one or two '_', or any number of '-'; joined by '/'.
fn check_repository(repository: &str) -> Part<()> {
    let bad = |kind, reason: String| Err((kind, format!("repository {repository:?}: {reason}")));
    if let Some(c) = repository.chars().find(char::is_ascii_uppercase) {
        return bad(
            ReferenceErrorKind::Uppercase,
            format!("upper-case {c:?} is not allowed; write it in lower case"),
        );
    }
    let kind = ReferenceErrorKind::Repository;
    for component in repository.split('/') {
        if component.is_empty() {
            return bad(kind, "a path component is empty".to_owned());
        }
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if let Some(c) = component
            .chars()
            .find(|c| !word(*c) && !matches!(c, '.' | '_' | '-'))
        {
            return bad(kind, format!("character {c:?} is not allowed"));
        }
        if !component.starts_with(word) || !component.ends_with(word) {
            return bad(
                kind,
                format!("{component:?} must start and end with a letter or a digit"),
            );
        }
        let separators = component.split(word).filter(|s| !s.is_empty());
        for separator in separators {
            let dashes = separator.bytes().all(|b| b == b'-');
            if !dashes && !matches!(separator, "." | "_" | "__") {
                return bad(
                    kind,
                    format!("{separator:?} is not a separator; use '.', '_', '__' or dashes"),
                );
            }
        }
    }
    Ok(())
}

/// Which part of a reference is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReferenceErrorKind {
    /// Nothing there.
    Empty,
    /// Over the length limit.
    TooLong,
    /// White space, a control character or a letter beyond ASCII.
    Character,
    /// Host or port.
    Registry,
    /// The path.
    Repository,
    /// An upper-case letter in the path.
    Uppercase,
    /// The tag.
    Tag,
    /// The digest.
    Digest,
}

/// A text that is no image reference, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {reason}")]
pub struct ReferenceError {
    text: String,
    kind: ReferenceErrorKind,
    reason: String,
}

impl ReferenceError {
    fn new(text: &str, kind: ReferenceErrorKind, reason: String) -> Self {
        Self {
            text: text.chars().take(300).collect(),
            kind,
            reason,
        }
    }

    /// Which part is wrong.
    pub fn kind(&self) -> ReferenceErrorKind {
        self.kind
    }
}

#[cfg(test)]
mod tests;
