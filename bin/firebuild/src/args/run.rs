//! `firebuild run`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use firebuild_engine::instance::RestartPolicy;

use super::access::AccessArgs;
use super::health::HealthArgs;
use super::mmds::MmdsArgs;
use crate::flags::{Cni, Machine, RunCache, Storage, Tracing, Vmm};

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
    /// Host name of the guest
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Name of the VM
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Publish a port: HOST:GUEST, with an address in front (IP:HOST:GUEST) and /udp behind if wanted
    #[arg(long, short = 'p', visible_alias = "port", value_name = "SPEC")]
    pub(crate) publish: Vec<String>,
    /// Detach: a monitor process owns the VM
    #[arg(long, short = 'd', visible_alias = "detach", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), default_value = "false", value_name = "BOOL", hide_possible_values = true)]
    pub(crate) daemonize: bool,
    /// Give the application a terminal
    #[arg(long, short = 't')]
    pub(crate) tty: bool,
    /// Keep standard input open (in the foreground it always is)
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
    /// Remove the record when the VM has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// Signal that stops the application (default: the image's STOPSIGNAL)
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds from that signal to SIGKILL; -1 waits for ever (default: 10)
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) stop_timeout: Option<i64>,
    /// Start it again when it ends: no, on-failure or on-failure:N, always, unless-stopped
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "no",
        hide_default_value = true
    )]
    pub(crate) restart: RestartPolicy,
    /// Who is process 1: auto (the image's init where the command is one), vminit, or system (the image's init, with the
    /// application as a unit of it)
    #[arg(long, value_enum, value_name = "WHO", default_value_t = InitArg::Auto, hide_possible_values = true)]
    pub(crate) init: InitArg,
    /// Size of the VM's scratch disk
    #[arg(long, value_name = "SIZE", default_value = "10G")]
    pub(crate) disk_size: String,
    /// Whether to use KVM: auto where a test guest has run under it, kvm on your word, tcg never
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub(crate) accel: Accel,
    /// Network of the VM
    #[arg(long, value_enum, default_value_t = NetworkArg::Auto)]
    pub(crate) network: NetworkArg,
    /// Print what would be started instead of starting it
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) print: Option<PrintVm>,
    /// Also print the guest's console on standard error
    #[arg(long)]
    pub(crate) console: bool,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) mmds: MmdsArgs,
    #[command(flatten)]
    pub(crate) health: HealthArgs,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) cni: Cni,
    #[command(flatten)]
    pub(crate) vmm: Vmm,
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

impl From<Accel> for firebuild_engine::run::Accel {
    fn from(accel: Accel) -> Self {
        match accel {
            Accel::Auto => Self::Auto,
            Accel::Kvm => Self::Kvm,
            Accel::Tcg => Self::Tcg,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InitArg {
    /// The image's init where the command is one
    Auto,
    /// The guest init
    Vminit,
    /// The image's init
    System,
}

impl From<InitArg> for firebuild_engine::run::init::Init {
    fn from(init: InitArg) -> Self {
        match init {
            InitArg::Auto => Self::Auto,
            InitArg::Vminit => Self::Vminit,
            InitArg::System => Self::System,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkArg {
    /// User where the VMM has it (QEMU), else bridge
    Auto,
    /// User-mode: no privileges, no set-up
    User,
    /// An address of its own on a private bridge of this host, behind NAT; as root
    Bridge,
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
