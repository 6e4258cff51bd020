//! `firebuild mmds`, and the flags of `run` that are about it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use firebuild_engine::run::metadata::{Mmds, MmdsVersion};

use crate::flags::RunCache;

/// The metadata service of a VM.
#[derive(Args, Clone, Debug)]
pub(crate) struct MmdsArgs {
    /// How the guest asks for its metadata: 2 takes a token, 1 does not
    #[arg(
        long,
        value_enum,
        value_name = "VERSION",
        default_value_t = Version::V2,
        help_heading = "Metadata"
    )]
    pub(crate) mmds_version: Version,
    /// JSON file that is merged into the metadata, for instance {"latest":{"user-data":"#cloud-config…"}}
    #[arg(long, value_name = "FILE", help_heading = "Metadata")]
    pub(crate) metadata: Vec<PathBuf>,
    /// Put the values of --env and --env-file into the metadata, where every process of the guest can read them
    #[arg(long, help_heading = "Metadata")]
    pub(crate) mmds_env: bool,
}

impl MmdsArgs {
    /// The service as the engine takes it.
    pub(crate) fn wanted(&self, none: bool) -> Option<Mmds> {
        (!none).then(|| Mmds {
            version: match self.mmds_version {
                Version::V1 => MmdsVersion::V1,
                Version::V2 => MmdsVersion::V2,
            },
            imds_compat: false,
            files: self.metadata.clone(),
            env: self.mmds_env,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    /// Plain requests
    #[value(name = "1")]
    V1,
    /// With a token
    #[value(name = "2")]
    V2,
}

/// `firebuild mmds`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild mmds get web\n  \
    firebuild mmds get web latest/meta-data/LocalHostname\n  \
    echo '{\"latest\":{\"meta-data\":{\"role\":\"primary\"}}}' | firebuild mmds patch web -")]
pub(crate) struct MmdsCommandArgs {
    #[command(subcommand)]
    pub(crate) command: MmdsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MmdsCommand {
    /// Print the metadata of a running VM, or a part of it
    Get {
        /// Name, id or a unique beginning of the id
        vm: String,
        /// Path in the document
        path: Option<String>,
        #[command(flatten)]
        run_cache: RunCache,
    },
    /// Replace the metadata of a running VM
    Put(MmdsDocument),
    /// Change members of the metadata of a running VM; null removes one
    Patch(MmdsDocument),
}

#[derive(Args, Debug)]
pub(crate) struct MmdsDocument {
    /// Name, id or a unique beginning of the id
    pub(crate) vm: String,
    /// JSON file; - is standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
}

impl MmdsCommand {
    /// Where the VM's record is.
    pub(crate) fn run_cache(&self) -> &RunCache {
        match self {
            Self::Get { run_cache, .. } => run_cache,
            Self::Put(document) | Self::Patch(document) => &document.run_cache,
        }
    }
}
