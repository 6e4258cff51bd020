//! The command line as types. Parsing only validates; discovery (paths, kernels, images) comes later, in the engine.
//!
//! Flags of the original firebuild keep their names; the Docker spelling works beside them.

mod access;
mod build;
mod health;
mod isolation;
mod mmds;
mod profile;
mod room;
mod run;
mod session;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use build::{BaseosArgs, CallFormat, ProgressMode, RootfsArgs};
pub(crate) use isolation::{IsolationArg, IsolationArgs};
pub(crate) use mmds::{MmdsCommand, MmdsCommandArgs};
pub(crate) use profile::{ProfileArg, ProfileCreateArgs};
pub(crate) use room::{DuArgs, PruneArgs};
pub(crate) use run::{Accel, NetworkArg, PrintVm, RunArgs};
pub(crate) use session::{AttachArgs, CpArgs, ExecArgs, StartArgs, StatsArgs, TopArgs};

use crate::flags::{Log, Profile, RunCache, Tracing};

/// A Dockerfile goes in, a microVM comes out.
#[derive(Debug, Parser)]
#[command(
    name = "firebuild",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        firebuild baseos --bootstrap debian:bookworm      a base from the distribution's own packages\n  \
        firebuild kernel import linux-image-….deb         a kernel for the VMs\n  \
        firebuild build -t me/app:1 .                     the Dockerfile in this directory\n  \
        firebuild run --rm me/app:1                       the result, in a VM\n  \
        firebuild exec -it VM sh                          a shell in a VM that runs\n\n\
        Exit codes: the application's own for `run` and `exec`; 125 firebuild failed, 126 the command cannot be executed,\n\
        127 it was not found, 128+n it died of signal n; 1 another command failed; 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: Log,
    #[command(flatten)]
    pub(crate) profile: Profile,
    #[command(flatten)]
    pub(crate) home: Home,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where firebuild keeps its data.
#[derive(Args, Clone, Debug)]
pub(crate) struct Home {
    /// Directory for images, kernels and instances (default: XDG directories; for root /var/lib/firebuild)
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a root file system from a Dockerfile
    #[command(visible_alias = "build")]
    Rootfs(Box<RootfsArgs>),
    /// Make a base image from a distribution's packages or from a Dockerfile
    Baseos(Box<BaseosArgs>),
    /// Import, list and remove the kernels that VMs boot
    Kernel(KernelArgs),
    /// List, show and remove images
    Image(ImageArgs),
    /// Run an image in a VM
    Run(Box<RunArgs>),
    /// List VMs
    #[command(visible_alias = "ps")]
    Ls(LsArgs),
    /// Show everything about a VM as JSON
    Inspect(InspectArgs),
    /// Show and change the metadata that a VM finds at 169.254.169.254
    Mmds(MmdsCommandArgs),
    /// Show what a VM's application printed
    Logs(LogsArgs),
    /// Run a program in a VM beside its application
    Exec(ExecArgs),
    /// Attach to the streams of a VM's application
    Attach(AttachArgs),
    /// Copy files into a VM or out of it
    Cp(CpArgs),
    /// Show what VMs use: processors, memory, disks, network
    Stats(StatsArgs),
    /// Show the processes of a VM
    Top(TopArgs),
    /// Stop the processors of VMs
    Pause(VmsArgs),
    /// Let the processors of VMs run again
    Unpause(VmsArgs),
    /// Wait for VMs to end and print their exit codes
    Wait(VmsArgs),
    /// Start VMs again that have ended, with the disks that they wrote
    Start(StartArgs),
    /// Stop VMs and start them again
    Restart(StopArgs),
    /// Stop VMs: STOPSIGNAL first, SIGKILL after the grace period
    Stop(StopArgs),
    /// End VMs at once, or send their application a signal
    Kill(KillArgs),
    /// Remove the records of ended VMs
    Rm(RmArgs),
    /// Remove the records of all ended VMs, and what a crash or a power cut left
    Purge(PurgeArgs),
    /// Show what takes how much room, and why
    Du(DuArgs),
    /// Make room: remove what nothing needs
    Prune(PruneArgs),
    /// Keep flags under a name, for --profile
    ProfileCreate(Box<ProfileCreateArgs>),
    /// List profiles
    ProfileLs(FormatArgs),
    /// Show a profile as JSON
    ProfileInspect(ProfileArg),
    /// Remove a profile
    ProfileRm(ProfileArg),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write man pages into a directory
    Man(ManArgs),
}

impl Command {
    /// The directory of the VMs' records that a flag names.
    pub(crate) fn run_cache(&self) -> Option<&PathBuf> {
        let group = match self {
            Self::Run(args) => &args.run_cache,
            Self::Ls(args) => &args.run_cache,
            Self::Inspect(args) => &args.run_cache,
            Self::Mmds(args) => args.command.run_cache(),
            Self::Logs(args) => &args.run_cache,
            Self::Exec(args) => &args.run_cache,
            Self::Attach(args) => &args.run_cache,
            Self::Cp(args) => &args.run_cache,
            Self::Stats(args) => &args.run_cache,
            Self::Top(args) => &args.run_cache,
            Self::Pause(args) | Self::Unpause(args) | Self::Wait(args) => &args.run_cache,
            Self::Start(args) => &args.vms.run_cache,
            Self::Stop(args) | Self::Restart(args) => &args.vms.run_cache,
            Self::Kill(args) => &args.run_cache,
            Self::Rm(args) => &args.vms.run_cache,
            Self::Purge(args) => &args.run_cache,
            _ => return None,
        };
        group.run_cache.as_ref()
    }

    /// Flags of the original's tracing that were given to a command that looks at VMs.
    pub(crate) fn tracing(&self) -> Vec<&'static str> {
        match self {
            Self::Baseos(args) => args.tracing.given(),
            Self::Ls(args) => args.tracing.given(),
            Self::Inspect(args) => args.tracing.given(),
            Self::Kill(args) => args.tracing.given(),
            Self::Purge(args) => args.tracing.given(),
            // These say it together with their other flags, or keep it.
            _ => Vec::new(),
        }
    }
}

/// `firebuild kernel`
#[derive(Args, Debug)]
pub(crate) struct KernelArgs {
    #[command(subcommand)]
    pub(crate) command: KernelCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Import a kernel: its .deb packages, a vmlinuz, an ELF vmlinux, or the running one
    Import(KernelImportArgs),
    /// List kernels
    Ls(FormatArgs),
    /// Remove kernels
    Rm {
        /// Kernels to remove
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild kernel import linux-image-6.1.0-40-cloud-amd64_6.1.153-1_amd64.deb\n  \
    firebuild kernel import linux-image-6.8.0-50-generic.deb linux-modules-6.8.0-50-generic.deb\n  \
    firebuild kernel import --host")]
pub(crate) struct KernelImportArgs {
    /// The packages of one kernel (Ubuntu splits the image from its modules), or its image, with or without packages of
    /// modules
    #[arg(value_name = "FILE", required_unless_present = "host")]
    pub(crate) files: Vec<PathBuf>,
    /// Take the running kernel and its modules from /boot and /lib/modules
    #[arg(long, conflicts_with = "files")]
    pub(crate) host: bool,
    /// Name of the kernel (default: its release)
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
}

/// Table for people, JSON for programs.
#[derive(Args, Clone, Debug)]
pub(crate) struct FormatArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// `firebuild image`
#[derive(Args, Debug)]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List images
    Ls(FormatArgs),
    /// Print every file of an image with its metadata
    Tree {
        /// The image
        image: String,
    },
    /// Print an image's configuration as JSON
    Config {
        /// The image
        image: String,
    },
    /// Take an image from an OCI layout (directory or tar) or a `docker save` archive
    Load {
        /// The layout or archive
        file: PathBuf,
        /// Name instead of the one that it has there
        #[arg(long, short = 't', value_name = "NAME:TAG")]
        tag: Option<String>,
    },
    /// Remove names of images
    Rm {
        /// The images
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

/// `firebuild ls`
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Also those that have ended
    #[arg(long, short = 'a')]
    pub(crate) all: bool,
    /// Print ids only
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
    #[command(flatten)]
    pub(crate) tracing: Tracing,
}

/// One VM, by argument or by the original's flag.
#[derive(Args, Debug)]
pub(crate) struct VmArg {
    /// Name, id or a unique beginning of the id
    #[arg(value_name = "VM", required_unless_present = "vmm_id")]
    pub(crate) vm: Option<String>,
    /// The same
    #[arg(long, value_name = "VM", conflicts_with = "vm")]
    pub(crate) vmm_id: Option<String>,
}

impl VmArg {
    /// What was named.
    pub(crate) fn name(&self) -> &str {
        self.vm
            .as_deref()
            .or(self.vmm_id.as_deref())
            .unwrap_or_default()
    }
}

/// Several VMs.
#[derive(Args, Debug)]
pub(crate) struct VmsArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(value_name = "VM", required = true)]
    pub(crate) vms: Vec<String>,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
}

/// `firebuild inspect`
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) vm: VmArg,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
    #[command(flatten)]
    pub(crate) tracing: Tracing,
}

/// `firebuild logs`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild logs -f --tail 20 web\n  \
    firebuild logs --since 10m --timestamps web\n  \
    firebuild logs --since 2026-11-25T08:00:00Z --until 2026-11-25T09:00:00Z web\n  \
    firebuild logs -f --console web             what the guest's kernel says\n\n\
    A time is RFC 3339 (2026-11-25T08:00:00Z; without a zone it is UTC), a date, seconds since 1970, or how long ago\n\
    (90s, 10m, 1h30m).")]
pub(crate) struct LogsArgs {
    /// Name, id or a unique beginning of the id
    #[arg(value_name = "VM")]
    pub(crate) vm: String,
    /// Go on until the VM ends
    #[arg(long, short = 'f')]
    pub(crate) follow: bool,
    /// Print the time of each line
    #[arg(long, short = 't', conflicts_with = "console")]
    pub(crate) timestamps: bool,
    /// Only what came since this time
    #[arg(long, value_name = "TIME", conflicts_with = "console")]
    pub(crate) since: Option<String>,
    /// Only what came before this time
    #[arg(long, value_name = "TIME", conflicts_with = "console")]
    pub(crate) until: Option<String>,
    /// Only the last lines; "all" for all
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub(crate) tail: Option<String>,
    /// Accepted for scripts: a VM's log has no further attributes to show
    #[arg(long)]
    pub(crate) details: bool,
    /// The guest's console instead; its lines have no times
    #[arg(long)]
    pub(crate) console: bool,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
}

/// `firebuild stop`, `firebuild restart`
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) vms: VmsArgs,
    /// Seconds until SIGKILL; -1 waits for ever (default: --stop-timeout of the run, else 10)
    #[arg(
        long,
        short = 't',
        visible_alias = "timeout",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    pub(crate) time: Option<i64>,
    /// Signal instead of the image's STOPSIGNAL
    #[arg(long, short = 's', value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
}

/// `firebuild kill`
#[derive(Args, Debug)]
pub(crate) struct KillArgs {
    /// Names, ids or unique beginnings of ids
    #[arg(value_name = "VM", required_unless_present = "vmm_id")]
    pub(crate) vms: Vec<String>,
    /// The same
    #[arg(long, value_name = "VM")]
    pub(crate) vmm_id: Option<String>,
    /// Signal for the application; without it the VM is ended at once
    #[arg(long, short = 's', value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    /// How long a clean shutdown may take first (the original's flag), e.g. 15s
    #[arg(long, value_name = "DURATION")]
    pub(crate) shutdown_timeout: Option<String>,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
    #[command(flatten)]
    pub(crate) tracing: Tracing,
}

/// `firebuild rm`
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    pub(crate) vms: VmsArgs,
    /// End them first if they run
    #[arg(long, short = 'f')]
    pub(crate) force: bool,
}

/// `firebuild purge`
#[derive(Args, Debug)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
    #[command(flatten)]
    pub(crate) tracing: Tracing,
}

/// `firebuild completions`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild completions bash > /etc/bash_completion.d/firebuild\n  \
    firebuild completions zsh > ~/.zfunc/_firebuild\n\n\
    The scripts of bash, zsh and fish also offer the names of VMs, which they ask 'firebuild ls' for.")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// `firebuild man`
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Directory, made if it is missing
    pub(crate) directory: PathBuf,
}
