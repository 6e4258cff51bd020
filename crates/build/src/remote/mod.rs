//! What is fetched from elsewhere: documents over HTTP and git repositories, for ADD and for build contexts alike.
//!
//! ```text
//!  HttpOp ─▶ GET, with the validators of last time ─▶ blob of the store ─▶ tree of one file that points into it
//!  GitOp  ─▶ ls-remote ─▶ commit ─▶ record in the store? else fetch, check out ─▶ layer of the store ─▶ its tree
//! ```
//!
//! Everything fetched becomes content of the store before anybody looks at it; a [`Fetched`] tree points into that. All
//! waits end at once when the build is stopped.

mod address;
mod archive;
mod context;
mod error;
mod git;
mod git_ref;
mod http;
mod name;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use firebuild_oci::Digest;
use firebuild_oci::registry::{self, Web};
use firebuild_rootfs::tree::Tree;
use firebuild_store::Store;

use crate::cancel::Cancel;
use crate::event::Sink;
use crate::solve::Secret;

pub use address::{Address, is_address, parse_address};
pub use archive::{Polled, Stream};
pub use error::{RemoteError, RemoteErrorKind};
pub use git_ref::{GitRef, parse_git};
pub use http::Document;
pub use name::url_file_name;

/// What a fetch may cost at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a document.
    pub document: u64,
    /// Bytes of all files of one commit.
    pub files: u64,
    /// Files of one commit.
    pub entries: u64,
    /// How long git may be silent while it talks to a server.
    pub silence: Duration,
    /// How long one git command may take.
    pub git: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document: 64 << 30,
            files: 64 << 30,
            entries: 2_000_000,
            silence: Duration::from_secs(120),
            git: Duration::from_secs(3600),
        }
    }
}

/// Fetches for one build.
#[derive(Debug)]
pub struct Remote<'a> {
    store: &'a Store,
    web: Web,
    secrets: &'a BTreeMap<String, Secret>,
    ssh: &'a BTreeMap<String, PathBuf>,
    sink: SinkOf<'a>,
    cancel: &'a Cancel,
    limits: Limits,
}

/// A [`Sink`] that can be shown.
#[derive(Clone, Copy)]
struct SinkOf<'a>(Sink<'a>);

impl std::fmt::Debug for SinkOf<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Sink")
    }
}

/// Files that were fetched; their contents lie in the store.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The files; all belong to 0:0.
    pub tree: Arc<Tree>,
    /// What names the content, times aside.
    pub id: Digest,
    /// When they were last changed, in seconds since the epoch: the time of the commit, or `Last-Modified`.
    pub time: Option<i64>,
    /// Whether nothing had to be fetched.
    pub cached: bool,
}

impl<'a> Remote<'a> {
    /// For one build: its secrets (credentials of servers), its SSH agents.
    #[must_use]
    pub fn new(
        store: &'a Store,
        secrets: &'a BTreeMap<String, Secret>,
        ssh: &'a BTreeMap<String, PathBuf>,
        sink: Sink<'a>,
        cancel: &'a Cancel,
    ) -> Self {
        let options = registry::Options {
            stop: cancel.stop(),
            ..registry::Options::default()
        };
        Self {
            store,
            web: Web::new(options),
            secrets,
            ssh,
            sink: SinkOf(sink),
            cancel,
            limits: Limits::default(),
        }
    }

    /// Other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    fn check_cancel(&self) -> Result<(), RemoteError> {
        if self.cancel.is_raised() {
            return Err(RemoteError::cancelled());
        }
        Ok(())
    }

    /// The text of the first secret that is there.
    fn secret(&self, names: &[String]) -> Option<String> {
        let secret = names.iter().find_map(|name| self.secrets.get(name))?;
        Some(String::from_utf8_lossy(&secret.0).trim().to_owned())
    }

    /// Waits for a name that only one process works on at a time.
    fn lock(&self, name: &str) -> Result<firebuild_store::KeyLock, RemoteError> {
        self.store
            .lock(name, &|| self.cancel.is_raised())
            .map_err(RemoteError::store)?
            .ok_or_else(RemoteError::cancelled)
    }
}
