//! The `profile-*` commands.

use clap::Args;
use clap::builder::BoolishValueParser;

use crate::flags::Tracing;

/// `firebuild profile-create`
#[derive(Args, Debug)]
#[command(
    after_help = "A profile of the same name is replaced as a whole. Paths are kept absolute.\n\nExample:\n  \
    firebuild profile-create --profile=standard --run-cache=/var/lib/firebuild --storage-provider=directory \\\n    \
    --storage-provider-property-string=rootfs-storage-root=/firecracker/rootfs"
)]
pub(crate) struct ProfileCreateArgs {
    /// Path of Firecracker; empty for none
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) binary_firecracker: String,
    /// Path of Firecracker's jailer; empty for none
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) binary_jailer: String,
    /// Base directory of jails: it exists, and its path leaves room for those of sockets in it
    #[arg(
        long,
        value_name = "DIR",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) chroot_base: String,
    /// Directory of the VMs' records
    #[arg(
        long,
        value_name = "DIR",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) run_cache: String,
    /// Kind of the original's catalogue: directory
    #[arg(
        long,
        value_name = "KIND",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) storage_provider: String,
    /// Property of the catalogue: rootfs-storage-root or kernel-storage-root
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) storage_provider_property_string: Vec<String>,
    /// Property of the catalogue that is a number
    #[arg(long, value_name = "KEY=NUMBER")]
    pub(crate) storage_provider_property_int64: Vec<String>,
    /// Also replace a file that is no profile
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_name = "BOOL", value_parser = BoolishValueParser::new(), hide_possible_values = true)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) tracing: Tracing,
}

/// One profile, by argument or by --profile.
#[derive(Args, Debug)]
pub(crate) struct ProfileArg {
    /// The profile; the same as --profile
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}
