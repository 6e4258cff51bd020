//! A client for the OCI distribution protocol.
//!
//! ```text
//!  Registry ── resolve ──▶ manifest (of an index: the entry for the platform) ──▶ config
//!     │  ├──── blob ─────▶ sink        bytes counted and hashed on their way, resumed where the connection broke
//!     │  └──── push_blob, push_manifest
//!     ├── auth       401 → credentials → token
//!     └── transport  HTTP, TLS, redirects, timeouts, pauses between tries
//!  Web ──────┘       any other document over HTTP
//! ```
//!
//! The client is synchronous and [`Sync`]: several layers at once is several threads of the caller. Nothing is trusted:
//! digests and sizes are checked here, documents are bounded, a server that falls silent is left after
//! [`Options::stall_timeout`]. Loopback registries speak plain HTTP, all others TLS with the system's root certificates.
//!
//! Sources: OCI distribution specification 1.1; for Docker Hub's names, `docker.io` is reached at `registry-1.docker.io`.

mod answer;
mod auth;
mod download;
mod error;
mod options;
mod push;
mod resolve;
mod transport;
mod web;

use reqwest::{Method, StatusCode, Url};

pub use answer::Stop;
pub use auth::Credentials;
pub use auth::base64;
pub use error::{RegistryError, RegistryErrorKind};
pub use options::Options;
pub use push::UploadProgress;
pub use resolve::{ResolvedImage, ResolvedManifest};
pub use web::{Page, Reply, Retries, Wanted, Web, percent_decoded};

use crate::Reference;
use crate::reference::DEFAULT_REGISTRY;
use answer::Answer;
use auth::{Action, Tokens};
use error::RegistryErrorKind as Kind;
use transport::{Call, Transport};

/// Where Docker Hub is.
const HUB_HOST: &str = "registry-1.docker.io";

/// A client for all registries.
#[derive(Debug)]
pub struct Registry {
    transport: Transport,
    tokens: Tokens,
}

impl Registry {
    /// A client; nothing is connected yet.
    pub fn new(options: Options) -> Self {
        Self {
            transport: Transport::new(options),
            tokens: Tokens::default(),
        }
    }

    /// `scheme://host/v2/repository/tail`.
    fn url(&self, reference: &Reference, tail: &str) -> Result<Url, RegistryError> {
        let registry = reference.registry();
        let scheme = if self.transport.options().is_plain(registry) {
            "http"
        } else {
            "https"
        };
        let host = if registry == DEFAULT_REGISTRY {
            HUB_HOST
        } else {
            registry
        };
        let text = format!("{scheme}://{host}/v2/{}/{tail}", reference.repository());
        Url::parse(&text).map_err(|error| {
            RegistryError::with(Kind::Protocol, format!("{text} is no URL"), error)
        })
    }

    /// Sends a request with the credentials that it needs, once more after a challenge. Any other status is a success.
    fn request(
        &self,
        reference: &Reference,
        action: Action,
        call: &Call,
    ) -> Result<Answer, RegistryError> {
        let known = self.tokens.get(reference, action);
        let response = self.transport.send(call, known.as_ref())?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let value = self
            .tokens
            .answer(&self.transport, reference, action, response.headers())?;
        self.transport.send(call, Some(&value))
    }

    fn get(&self, reference: &Reference, tail: &str) -> Result<Call, RegistryError> {
        Ok(Call::new(Method::GET, self.url(reference, tail)?))
    }
}
