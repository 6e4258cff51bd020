//! Who we are: credentials from files and helpers, challenges of servers, tokens.
//!
//! Sources: distribution's token authentication specification (`docs/spec/auth/token.md`, `oauth.md`), RFC 9110 §11
//! for `WWW-Authenticate`; Docker's `config.json` and podman's `auth.json` through `docker_credential`.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::error::{RegistryError, RegistryErrorKind as Kind};
use super::transport::{Call, Transport, check, read_limited};
use crate::Reference;
use crate::reference::DEFAULT_REGISTRY;

/// Largest answer of a token server.
const MAX_TOKEN_BYTES: usize = 1 << 20;
/// Validity of a token that does not say (token specification, "expires_in").
const DEFAULT_VALIDITY: Duration = Duration::from_secs(60);
/// Longest trust in what a token says about itself.
const MAX_VALIDITY: Duration = Duration::from_secs(3600);
/// A token is renewed this long before its end.
const SLACK: Duration = Duration::from_secs(10);
/// The name under which `docker login` keeps Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Where user names and passwords come from.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody: only public images.
    Anonymous,
    /// What `docker login` and `podman login` left: `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json` (or
    /// `~/.docker/config.json`), podman's `auth.json`, and the helpers that these name.
    #[default]
    Files,
    /// One user for every registry.
    Fixed {
        /// Name.
        username: String,
        /// Password.
        password: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Files => f.write_str("Files"),
            Self::Fixed { username, .. } => f
                .debug_struct("Fixed")
                .field("username", username)
                .finish_non_exhaustive(),
        }
    }
}

/// What we may do in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Pull,
    Push,
}

impl Action {
    fn scope(self, repository: &str) -> String {
        let actions = match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        };
        format!("repository:{repository}:{actions}")
    }
}

type Key = (String, String, Action);

/// Headers that servers gave us or asked for, by registry, repository and action.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<Key, (HeaderValue, Instant)>>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// The `Authorization` header that worked before, if it is still valid.
    pub(super) fn get(&self, reference: &Reference, action: Action) -> Option<HeaderValue> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, until) = tokens.get(&key(reference, action))?;
        (Instant::now() < *until).then(|| value.clone())
    }

    /// Answers the challenge of a 401. The result is kept for the next request.
    pub(super) fn answer(
        &self,
        transport: &Transport,
        reference: &Reference,
        action: Action,
        headers: &HeaderMap,
    ) -> Result<HeaderValue, RegistryError> {
        let registry = reference.registry();
        let challenges: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let find = |scheme: &str| {
            challenges
                .iter()
                .find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme))
        };
        let credential = credential(&transport.options().credentials, registry)?;
        let (value, validity) = if let Some(bearer) = find("Bearer") {
            bearer_token(transport, reference, action, bearer, credential.as_ref())?
        } else if find("Basic").is_some() {
            match &credential {
                Some(DockerCredential::UsernamePassword(user, password)) => {
                    (basic(user, password)?, MAX_VALIDITY)
                }
                Some(DockerCredential::IdentityToken(_)) => {
                    return Err(RegistryError::new(
                        Kind::Unauthorized,
                        format!(
                            "{registry} wants a password, but an identity token is configured: log in again"
                        ),
                    ));
                }
                None => {
                    return Err(RegistryError::new(
                        Kind::Unauthorized,
                        format!(
                            "{registry} wants a user name and a password: log in with docker or podman login"
                        ),
                    ));
                }
            }
        } else {
            return Err(RegistryError::new(
                Kind::Unauthorized,
                format!("{registry} refuses us and offers no known way to log in"),
            ));
        };
        let until = Instant::now() + validity.saturating_sub(SLACK);
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(key(reference, action), (value.clone(), until));
        Ok(value)
    }
}

fn key(reference: &Reference, action: Action) -> Key {
    (
        reference.registry().to_owned(),
        reference.repository().to_owned(),
        action,
    )
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

fn bearer_token(
    transport: &Transport,
    reference: &Reference,
    action: Action,
    challenge: &Challenge,
    credential: Option<&DockerCredential>,
) -> Result<(HeaderValue, Duration), RegistryError> {
    let registry = reference.registry();
    let realm = challenge.parameter("realm").unwrap_or_default();
    let mut url = Url::parse(realm).map_err(|error| {
        RegistryError::with(
            Kind::Protocol,
            format!("{registry} names the token server {realm:?}"),
            error,
        )
    })?;
    // A password must not leave in the clear because a server says so.
    if url.scheme() != "https" && !transport.options().is_plain(registry) {
        return Err(RegistryError::new(
            Kind::Protocol,
            format!(
                "{registry} names a token server without TLS ({})",
                url.host_str().unwrap_or_default()
            ),
        ));
    }
    let service = challenge.parameter("service").unwrap_or_default();
    let scope = action.scope(reference.repository());
    let (call, authorization) = match credential {
        Some(DockerCredential::IdentityToken(token)) => {
            let mut form = Url::parse("form:").expect("a constant");
            form.query_pairs_mut()
                .append_pair("grant_type", "refresh_token")
                .append_pair("client_id", "firebuild")
                .append_pair("service", service)
                .append_pair("scope", &scope)
                .append_pair("refresh_token", token);
            let mut call = Call::new(Method::POST, url);
            call.content_type = Some("application/x-www-form-urlencoded".to_owned());
            call.body = form.query().map(|query| query.as_bytes().to_owned());
            (call, None)
        }
        other => {
            {
                let mut query = url.query_pairs_mut();
                if !service.is_empty() {
                    query.append_pair("service", service);
                }
                query.append_pair("scope", &scope);
            }
            let authorization = match other {
                Some(DockerCredential::UsernamePassword(user, password)) => {
                    Some(basic(user, password)?)
                }
                _ => None,
            };
            (Call::new(Method::GET, url), authorization)
        }
    };
    let bad = |reason: &str| {
        RegistryError::new(
            Kind::Protocol,
            format!("the token server of {registry} {reason}"),
        )
    };
    let response = transport
        .send(&call, authorization.as_ref())
        .and_then(check)?;
    let body = read_limited(response, MAX_TOKEN_BYTES).map_err(|error| {
        RegistryError::with(
            Kind::Dropped,
            format!("lost the connection to the token server of {registry}"),
            error,
        )
    })?;
    if body.len() > MAX_TOKEN_BYTES {
        return Err(bad("sends too much"));
    }
    let answer: TokenAnswer =
        serde_json::from_slice(&body).map_err(|_| bad("sends no valid JSON"))?;
    let token = answer
        .token
        .filter(|token| !token.is_empty())
        .or(answer.access_token)
        .ok_or_else(|| bad("sends no token"))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| bad("sends a token that is no header"))?;
    value.set_sensitive(true);
    let validity = answer
        .expires_in
        .map_or(DEFAULT_VALIDITY, Duration::from_secs)
        .min(MAX_VALIDITY);
    Ok((value, validity))
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, RegistryError> {
    let mut value = HeaderValue::from_str(&format!(
        "Basic {}",
        base64(format!("{user}:{password}").as_bytes())
    ))
    .map_err(|error| {
        RegistryError::with(
            Kind::Credentials,
            "user name and password make no header",
            error,
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// RFC 4648 §4, with padding.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            if at <= chunk.len() {
                out.push(char::from(ALPHABET[(word >> (18 - 6 * at) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn credential(
    credentials: &Credentials,
    registry: &str,
) -> Result<Option<DockerCredential>, RegistryError> {
    match credentials {
        Credentials::Anonymous => Ok(None),
        Credentials::Fixed { username, password } => Ok(Some(DockerCredential::UsernamePassword(
            username.clone(),
            password.clone(),
        ))),
        Credentials::Files => from_files(registry),
    }
}

fn from_files(registry: &str) -> Result<Option<DockerCredential>, RegistryError> {
    let hub = registry == DEFAULT_REGISTRY;
    let docker = || docker_credential::get_credential(if hub { HUB_KEY } else { registry });
    let podman = || docker_credential::get_podman_credential(registry);
    let explicit = std::env::var_os("REGISTRY_AUTH_FILE").is_some();
    let order: [&dyn Fn() -> Result<DockerCredential, CredentialRetrievalError>; 2] = if explicit {
        [&podman, &docker]
    } else {
        [&docker, &podman]
    };
    for look in order {
        match look() {
            Ok(credential) => return Ok(Some(credential)),
            Err(error) if is_absent(&error) => {}
            Err(error) => {
                return Err(RegistryError::with(
                    Kind::Credentials,
                    format!("cannot read the credentials of {registry}"),
                    error.to_string(),
                ));
            }
        }
    }
    // The library does not tell a missing file from a damaged one.
    if let Some(path) = docker_config().filter(|path| path.is_file()) {
        let readable = fs_err::read(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| {
                serde_json::from_slice::<serde_json::Value>(&text)
                    .map_err(|error| error.to_string())
            });
        if let Err(reason) = readable {
            return Err(RegistryError::with(
                Kind::Credentials,
                format!("cannot read credentials from {}", path.display()),
                reason,
            ));
        }
    }
    Ok(None)
}

fn is_absent(error: &CredentialRetrievalError) -> bool {
    match error {
        CredentialRetrievalError::NoCredentialConfigured
        | CredentialRetrievalError::ConfigNotFound
        | CredentialRetrievalError::ConfigReadError => true,
        // What every helper of Docker's prints (docker-credential-helpers, `credentials/error.go`).
        CredentialRetrievalError::HelperFailure { stdout, .. } => {
            stdout.contains("credentials not found")
        }
        _ => false,
    }
}

fn docker_config() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    Some(directory.join("config.json"))
}

/// One way to log in that a server offers.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Reads a `WWW-Authenticate` value: challenges and their parameters share the comma (RFC 9110 §11.6.1).
/// What cannot be read ends the list.
fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut out: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start_matches([' ', '\t']);
        if word.is_empty() {
            break;
        }
        if let (Some(value), Some(challenge)) = (after.strip_prefix('='), out.last_mut()) {
            let value = value.trim_start_matches([' ', '\t']);
            let (value, after) = match value.strip_prefix('"') {
                Some(quoted) => match unquote(quoted) {
                    Some(found) => found,
                    None => break,
                },
                None => {
                    let end = value.find([' ', '\t', ',']).unwrap_or(value.len());
                    (value[..end].to_owned(), &value[end..])
                }
            };
            challenge.parameters.push((word.to_owned(), value));
            rest = after;
        } else {
            out.push(Challenge {
                scheme: word.to_owned(),
                parameters: Vec::new(),
            });
            rest = after.trim_start_matches('=');
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    out
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        Challenge {
            scheme: scheme.to_owned(),
            parameters: parameters
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn challenges() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        for (text, wanted) in [
            (
                hub,
                vec![challenge(
                    "Bearer",
                    &[
                        ("realm", "https://auth.docker.io/token"),
                        ("service", "registry.docker.io"),
                        ("scope", "repository:a/b:pull,push"),
                    ],
                )],
            ),
            (
                r#"Basic realm="a \"b\", c", Bearer realm=x"#,
                vec![
                    challenge("Basic", &[("realm", "a \"b\", c")]),
                    challenge("Bearer", &[("realm", "x")]),
                ],
            ),
            ("Basic", vec![challenge("Basic", &[])]),
            (
                "Negotiate, Basic realm=x",
                vec![
                    challenge("Negotiate", &[]),
                    challenge("Basic", &[("realm", "x")]),
                ],
            ),
            (
                "Bearer realm = \"x\" , service = y",
                vec![challenge("Bearer", &[("realm", "x"), ("service", "y")])],
            ),
            ("Bearer realm=\"open", vec![challenge("Bearer", &[])]),
            ("", vec![]),
            ("=,=", vec![]),
        ] {
            assert_eq!(parse_challenges(text), wanted, "{text}");
        }
    }

    #[test]
    fn base64_of_the_rfc() {
        for (text, wanted) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), wanted);
        }
    }

    #[test]
    fn passwords_are_not_printed() {
        let fixed = Credentials::Fixed {
            username: "joe".to_owned(),
            password: "hunter2".to_owned(),
        };
        assert!(!format!("{fixed:?}").contains("hunter2"));
        let header = basic("joe", "hunter2").unwrap();
        assert!(header.is_sensitive());
    }
}
