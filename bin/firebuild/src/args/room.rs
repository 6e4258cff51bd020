//! `firebuild du` and `prune`.

use clap::Args;

use super::FormatArgs;

/// `firebuild du`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild du                        what takes how much room, and why\n  \
    firebuild du --verbose              step records and image documents one by one\n  \
    firebuild du --format json          the same for programs\n  \
    firebuild du --verify               reads everything and looks whether it is whole")]
pub(crate) struct DuArgs {
    /// Every step record and image document on a line of its own
    #[arg(long, short = 'v')]
    pub(crate) verbose: bool,
    /// Read every blob, follow every reference, and say what is damaged
    #[arg(long, conflicts_with = "format")]
    pub(crate) verify: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// `firebuild prune`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild prune                               what no image with a name needs\n  \
    firebuild prune --all --force                 also what could make the next build faster\n  \
    firebuild prune --filter until=24h            only what was not used for a day\n  \
    firebuild prune --filter type=mount           the directories of cache mounts\n  \
    firebuild prune --all --keep-storage 10GB -f  the least used, until 10 GB are left\n\n\
    Images with a name stay (firebuild image rm takes a name away), and so does what a build or a VM uses. Types: image,\n\
    layer, snapshot, record, artifact, mount, source, temporary.")]
pub(crate) struct PruneArgs {
    /// Also step records and disks of named images, and cache mounts
    #[arg(long, short = 'a')]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(long, short = 'f')]
    pub(crate) force: bool,
    /// Only what fits: until=AGE (24h, 7d, a date) or type=KIND; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Stop when no more than this is left, e.g. 10GB
    #[arg(long, visible_alias = "max-used-space", value_name = "SIZE")]
    pub(crate) keep_storage: Option<String>,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Every removed thing on a line of its own
    #[arg(long, short = 'v')]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
