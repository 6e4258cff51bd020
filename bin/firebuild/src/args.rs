//! The command line as types. Parsing only validates; discovery (paths, kernels, images) comes later, in the engine.
//!
//! Flags of the original firebuild keep their names; the Docker spelling works beside them.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::flags::{Cni, Jailer, Log, Machine, Profile, RunCache, Storage, Tracing};

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
        firebuild run --rm me/app:1                       the result, in a VM\n\n\
        Exit codes: the application's own for `run` and `wait`; 125 firebuild failed, 126 the command cannot be executed,\n\
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
    /// Show what a VM's application printed
    Logs(LogsArgs),
    /// Wait for VMs to end and print their exit codes
    Wait(VmsArgs),
    /// Stop VMs: STOPSIGNAL first, SIGKILL after the grace period
    Stop(StopArgs),
    /// End VMs at once, or send their application a signal
    Kill(KillArgs),
    /// Remove the records of ended VMs
    Rm(RmArgs),
    /// Remove the records of all ended VMs, and what a crash or a power cut left
    Purge(PurgeArgs),
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
    #[command(hide = true)]
    Man(ManArgs),
}

/// `firebuild rootfs`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild rootfs --dockerfile Dockerfile --tag me/app:1\n  \
    firebuild build -f Dockerfile -t me/app:1 --build-arg VERSION=3 .\n  \
    firebuild build -t me/app:1 --output type=oci,dest=app.tar --output type=ext4,dest=app.ext4 .")]
pub(crate) struct RootfsArgs {
    /// Build context: a directory (default: the Dockerfile's own)
    #[arg(value_name = "CONTEXT")]
    pub(crate) path: Option<String>,
    /// The Dockerfile (default: Dockerfile in the context)
    #[arg(long, short = 'f', visible_alias = "file", value_name = "FILE")]
    pub(crate) dockerfile: Option<String>,
    /// Build context, the same as the argument
    #[arg(long, value_name = "DIR", conflicts_with = "path")]
    pub(crate) context: Option<String>,
    /// Name of the result: org/name:version
    #[arg(long, short = 't', value_name = "NAME:TAG")]
    pub(crate) tag: Vec<String>,
    /// Value of a build argument; without =VALUE it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Stage to build (default: the last one)
    #[arg(long, visible_alias = "dockerfile-stage", value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Further results: type=ext4|oci|tar|dir,dest=PATH
    #[arg(long, short = 'o', value_name = "SPEC")]
    pub(crate) output: Vec<String>,
    /// Take this image instead of a Dockerfile
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["dockerfile", "path", "context"])]
    pub(crate) docker_image: Option<String>,
    /// What that image was made from: recorded; no base is needed
    #[arg(long, value_name = "IMAGE", requires = "docker_image", hide = true)]
    pub(crate) docker_image_base: Option<String>,
    /// Not here: a RUN instruction does it
    #[arg(long, value_name = "COMMAND", hide = true)]
    pub(crate) pre_build_command: Vec<String>,
    /// Not here: a RUN instruction does it
    #[arg(long, value_name = "COMMAND", hide = true)]
    pub(crate) post_build_command: Vec<String>,
    /// Named context: NAME=DIR or NAME=docker-image://REF
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long, value_name = "SPEC")]
    pub(crate) secret: Vec<String>,
    /// SSH agent for RUN --mount=type=ssh: default or NAME=SOCKET
    #[arg(long, value_name = "SPEC")]
    pub(crate) ssh: Vec<String>,
    /// Execute every step again; with a value, those of the named stages
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "", value_name = "STAGES")]
    pub(crate) no_cache: Option<String>,
    /// Look for newer base images even when the store has them
    #[arg(long)]
    pub(crate) pull: bool,
    /// Platform of the result: os/arch[/variant] (default: the host's)
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Label of the result; later ones win
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Size of the ext4 image at least, e.g. 4G (default: what the content needs)
    #[arg(long, value_name = "SIZE", conflicts_with = "filesystem_size_mbs")]
    pub(crate) size: Option<String>,
    /// Size of the ext4 image at least, in MiB
    #[arg(long, value_name = "MIB")]
    pub(crate) filesystem_size_mbs: Option<u64>,
    /// How to report progress
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto)]
    pub(crate) progress: ProgressMode,
    /// Print the image's digest and nothing else
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    /// Print the graph instead of building
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) print: Option<PrintGraph>,
    /// Write the image's digest into a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) build_vm: BuildVm,
}

/// Flags of the original's build VM: accepted, and mentioned once where they change nothing.
#[derive(Args, Clone, Debug)]
#[command(
    next_help_heading = "Build VM (RUN executes in a sandbox on the host; these are kept for scripts of the original)"
)]
pub(crate) struct BuildVm {
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) cni: Cni,
    #[command(flatten)]
    pub(crate) jailer: Jailer,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
    #[command(flatten)]
    pub(crate) storage: Storage,
    #[command(flatten)]
    pub(crate) tracing: Tracing,
    /// RSA bits of the build's certificates
    #[arg(long, value_name = "BITS")]
    pub(crate) bootstrap_certs_key_size: Option<u32>,
    /// How long the build's certificates hold
    #[arg(long, value_name = "DURATION")]
    pub(crate) bootstrap_certs_validity: Option<String>,
    /// How long to wait for the build VM
    #[arg(long, value_name = "DURATION")]
    pub(crate) bootstrap_initial_communication_timeout: Option<String>,
    /// Interface that the build server binds
    #[arg(long, value_name = "NAME")]
    pub(crate) bootstrap_server_bind_interface: Option<String>,
}

impl Command {
    /// The directory of the VMs' records that a flag names.
    pub(crate) fn run_cache(&self) -> Option<&PathBuf> {
        let group = match self {
            Self::Run(args) => &args.run_cache,
            Self::Ls(args) => &args.run_cache,
            Self::Inspect(args) => &args.run_cache,
            Self::Logs(args) => &args.run_cache,
            Self::Wait(args) => &args.run_cache,
            Self::Stop(args) => &args.vms.run_cache,
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

impl BuildVm {
    /// The flags that were given and that a build in the sandbox has no use for.
    pub(crate) fn unused(&self) -> Vec<&'static str> {
        let mut names = self.machine.given();
        names.extend(self.cni.given());
        names.extend(self.jailer.given());
        names.extend(self.run_cache.given());
        names.extend(self.tracing.given());
        for (name, given) in [
            (
                "--bootstrap-certs-key-size",
                self.bootstrap_certs_key_size.is_some(),
            ),
            (
                "--bootstrap-certs-validity",
                self.bootstrap_certs_validity.is_some(),
            ),
            (
                "--bootstrap-initial-communication-timeout",
                self.bootstrap_initial_communication_timeout.is_some(),
            ),
            (
                "--bootstrap-server-bind-interface",
                self.bootstrap_server_bind_interface.is_some(),
            ),
        ] {
            if given {
                names.push(name);
            }
        }
        names
    }
}

/// How progress is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A live view on a terminal, plain lines elsewhere
    Auto,
    /// Lines
    Plain,
    /// The live view
    Tty,
    /// One JSON object per line, on standard error
    Json,
    /// Nothing
    Quiet,
}

/// `--print` of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrintGraph {
    /// The graph of what would be computed
    Graph,
}

/// `firebuild baseos`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild baseos --bootstrap debian:bookworm\n  \
    firebuild baseos --bootstrap debian:bookworm --full --tag me/debian:full\n  \
    firebuild baseos --dockerfile base/Dockerfile --tag me/base:1")]
pub(crate) struct BaseosArgs {
    /// Distribution and release to install from packages: debian:bookworm
    #[arg(
        long,
        value_name = "DISTRO:SUITE",
        required_unless_present = "dockerfile"
    )]
    pub(crate) bootstrap: Option<String>,
    /// Build the base from this Dockerfile
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with = "bootstrap")]
    pub(crate) dockerfile: Option<String>,
    /// Name of the result (default: what was bootstrapped, or the FROM of the Dockerfile)
    #[arg(long, short = 't', value_name = "NAME:TAG")]
    pub(crate) tag: Option<String>,
    /// Package mirror (default: from the host's apt configuration)
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// Add what makes a multi-user system: init, openssh, sudo, an account
    #[arg(long)]
    pub(crate) full: bool,
    /// Further packages
    #[arg(long, value_name = "PACKAGE", value_delimiter = ',')]
    pub(crate) include: Vec<String>,
    /// Size of the ext4 image at least, in MiB
    #[arg(long, value_name = "MIB")]
    pub(crate) filesystem_size_mbs: Option<u64>,
    /// How to report progress
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto)]
    pub(crate) progress: ProgressMode,
    #[command(flatten)]
    pub(crate) storage: Storage,
    #[command(flatten)]
    pub(crate) tracing: Tracing,
}

/// `firebuild kernel`
#[derive(Args, Debug)]
pub(crate) struct KernelArgs {
    #[command(subcommand)]
    pub(crate) command: KernelCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Import a kernel: a .deb package, a vmlinuz, an ELF vmlinux, or the running one
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
    firebuild kernel import --host")]
pub(crate) struct KernelImportArgs {
    /// The package or image
    #[arg(value_name = "FILE", required_unless_present = "host")]
    pub(crate) file: Option<PathBuf>,
    /// Take the running kernel and its modules from /boot and /lib/modules
    #[arg(long, conflicts_with = "file")]
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

/// `firebuild run`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild run --rm me/app:1\n  \
    firebuild run --rm -t --from debian:bookworm -- bash\n  \
    firebuild run -d --name db -p 5432:5432 --env-file db.env me/postgres:15")]
pub(crate) struct RunArgs {
    /// The image, then the command and its arguments (after --)
    #[arg(value_name = "IMAGE [-- COMMAND [ARG]...]", num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
    /// The image
    #[arg(long, value_name = "IMAGE")]
    pub(crate) from: Option<String>,
    /// Program instead of the image's ENTRYPOINT; empty clears it
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Environment variable; without =VALUE it is taken from the environment
    #[arg(long, short = 'e', value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// File of environment variables
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// User instead of the image's: name|id[:group|id]
    #[arg(long, short = 'u', value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Working directory instead of the image's
    #[arg(long, short = 'w', value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Public key for the account of --ssh-user: accepted for scripts of the original
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) identity_file: Vec<PathBuf>,
    /// Host name of the guest
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Name of the VM
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Publish a port: [IP:]HOST:GUEST[/udp]
    #[arg(long, short = 'p', visible_alias = "port", value_name = "SPEC")]
    pub(crate) publish: Vec<String>,
    /// Detach: a monitor process owns the VM
    #[arg(long, short = 'd', visible_alias = "detach", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), default_value = "false", value_name = "BOOL", hide_possible_values = true)]
    pub(crate) daemonize: bool,
    /// Give the application a terminal
    #[arg(long, short = 't')]
    pub(crate) tty: bool,
    /// Keep standard input open
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
    /// Remove the record when the VM has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// Signal that stops the application (default: the image's STOPSIGNAL)
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Size of the VM's scratch disk
    #[arg(long, value_name = "SIZE", default_value = "10G")]
    pub(crate) disk_size: String,
    /// Whether to use KVM
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
    /// Network of the VM: user or none
    #[arg(long, value_enum, default_value_t = NetworkArg::User)]
    pub(crate) network: NetworkArg,
    /// Print what would be started instead of starting it
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) print: Option<PrintVm>,
    /// Also print the guest's console on standard error
    #[arg(long)]
    pub(crate) console: bool,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) cni: Cni,
    #[command(flatten)]
    pub(crate) jailer: Jailer,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
    #[command(flatten)]
    pub(crate) storage: Storage,
    #[command(flatten)]
    pub(crate) tracing: Tracing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// KVM where it really works, else TCG
    Auto,
    /// KVM or nothing
    Kvm,
    /// Software
    Tcg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkArg {
    /// User-mode: no privileges, no set-up
    User,
    /// Loopback only
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrintVm {
    /// The machine that was asked for
    Spec,
    /// The processes, files and descriptors that would be started
    Plan,
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
pub(crate) struct LogsArgs {
    /// Name, id or a unique beginning of the id
    #[arg(value_name = "VM")]
    pub(crate) vm: String,
    /// Go on until the VM ends
    #[arg(long, short = 'f')]
    pub(crate) follow: bool,
    /// Print the time of each line
    #[arg(long, short = 't')]
    pub(crate) timestamps: bool,
    /// Only the last lines
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub(crate) tail: Option<u64>,
    /// The guest's console instead
    #[arg(long)]
    pub(crate) console: bool,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
}

/// `firebuild stop`
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) vms: VmsArgs,
    /// Seconds until SIGKILL
    #[arg(
        long,
        short = 't',
        visible_alias = "timeout",
        value_name = "SECONDS",
        default_value_t = 10
    )]
    pub(crate) time: u64,
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
    /// Base directory of jails: it exists and has at most 31 characters
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

/// `firebuild completions`
#[derive(Args, Debug)]
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
