//! What a build is asked for, as plain values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebuild_build::export::Output;
use firebuild_build::remote::{Fetched, is_address};
use firebuild_build::remote_cache::{CacheFrom, CacheTo};
use firebuild_build::solve::NoCache;
use firebuild_oci::{Platform, Reference};
use firebuild_store::Store;

/// Where a Dockerfile or a build context is.
#[derive(Clone, Debug)]
pub enum SourcePlace {
    /// On this machine: a directory or a file.
    Path(PathBuf),
    /// On standard input, once.
    Stdin,
    /// At an address: a git repository or a document (`firebuild_build::remote::Address`).
    Address(String),
    /// The Dockerfile itself.
    Text(String),
    /// A context that was read from standard input ([`super::take_stdin`]).
    Stored {
        /// Its files.
        files: Fetched,
        /// The store that they lie in; as long as it is open they stay.
        store: Arc<Store>,
    },
}

impl SourcePlace {
    /// As it is written on a command line: `-`, an address, else a path.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let local = || Path::new(text).exists();
        match text {
            "-" => Self::Stdin,
            // `github.com/x/y` may be a directory.
            _ if is_address(text) && !(text.starts_with("github.com/") && local()) => {
                Self::Address(text.to_owned())
            }
            _ => Self::Path(PathBuf::from(text)),
        }
    }
}

impl std::fmt::Display for SourcePlace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(out),
            Self::Stdin | Self::Stored { .. } => out.write_str("-"),
            Self::Address(text) => out.write_str(text),
            Self::Text(_) => Ok(()),
        }
    }
}

use super::network::Network;

use crate::microvm_executor::MicroVmOptions;

/// A build.
#[derive(Clone, Debug)]
pub struct Request {
    /// The Dockerfile; without it `Dockerfile` in the context.
    pub dockerfile: Option<SourcePlace>,
    /// What COPY sees; without it what is around the Dockerfile.
    pub context: Option<SourcePlace>,
    /// Names of the result.
    pub tags: Vec<Reference>,
    /// `--build-arg`, in order; later ones win.
    pub build_args: BTreeMap<String, String>,
    /// The stage that is built; without it the last one.
    pub target: Option<String>,
    /// What to leave besides the names in the store.
    pub outputs: Vec<Output>,
    /// Whether the ext4 image is made for the names in the store, so that `run` finds it ready.
    pub disk: bool,
    /// Bytes that the ext4 image has at least.
    pub min_size: Option<u64>,
    /// `--build-context` by name: a directory, an archive, `docker-image://`, `oci-layout://`, an address.
    pub contexts: BTreeMap<String, String>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Sockets of SSH agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Where step results may come from, besides the store.
    pub cache_from: Vec<CacheFrom>,
    /// Where step results go.
    pub cache_to: Vec<CacheTo>,
    /// Socket of the agent that the main context may be fetched with, where `ssh` has no `default`. Steps do not see it.
    pub context_agent: Option<PathBuf>,
    /// What the cache may not answer.
    pub no_cache: NoCache,
    /// Look for newer images even when the store has them.
    pub pull: bool,
    /// Platform of the result.
    pub platform: Platform,
    /// The network of steps, and what they may ask for.
    pub network: Network,
    /// Labels that are added last.
    pub labels: BTreeMap<String, String>,
    /// Shell commands before the first instruction of the target stage: as root, in `/`, recorded like RUN.
    pub pre_build_commands: Vec<String>,
    /// The same behind its last instruction.
    pub post_build_commands: Vec<String>,
    /// Nothing is built: images need no layers, and RUN no emulator.
    pub(super) only_check: bool,
    /// Without a target all stages are checked.
    pub(super) all_stages: bool,
    /// Where RUN executes.
    pub isolation: Isolation,
    /// The build has ended when the disk has what it put into the store, not when the kernel has it.
    pub sync: bool,
}

/// Where RUN executes. It changes no result and no cache key.
#[derive(Clone, Debug, Default)]
pub enum Isolation {
    /// In namespaces on this host.
    #[default]
    Sandbox,
    /// In VMs of the build.
    MicroVm(Box<MicroVmOptions>),
}

impl Request {
    /// A build of the Dockerfile in a directory, with nothing else asked for.
    #[must_use]
    pub fn new(context: PathBuf) -> Self {
        Self {
            dockerfile: None,
            context: Some(SourcePlace::Path(context)),
            tags: Vec::new(),
            build_args: BTreeMap::new(),
            target: None,
            outputs: Vec::new(),
            disk: false,
            min_size: None,
            contexts: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            context_agent: None,
            no_cache: NoCache::Off,
            pull: false,
            platform: Platform::host(),
            network: Network::default(),
            labels: BTreeMap::new(),
            pre_build_commands: Vec::new(),
            post_build_commands: Vec::new(),
            only_check: false,
            all_stages: true,
            isolation: Isolation::default(),
            sync: false,
        }
    }
}
