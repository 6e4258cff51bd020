//! Commands that work with a VM that runs.

use std::path::PathBuf;

use clap::Args;

use super::{Format, FormatArgs, VmsArgs};
use crate::flags::RunCache;

/// `firebuild exec`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild exec db psql -U app -c 'select 1'\n  \
    firebuild exec -it db bash\n  \
    firebuild exec -i db psql -U app < dump.sql\n  \
    firebuild exec -u nobody -w /tmp -e LANG=C db env\n\n\
    Exit codes: the program's own; 126 it cannot be executed, 127 it was not found, 128+n it died of signal n; 1 the VM\n\
    does not run or refuses. When the command itself goes away, the program is killed.")]
pub(crate) struct ExecArgs {
    /// Name, id or a unique beginning of the id
    #[arg(value_name = "VM")]
    pub(crate) vm: String,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", num_args = 1.., required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
    /// Carry standard input
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
    /// Give the program a terminal
    #[arg(long, short = 't')]
    pub(crate) tty: bool,
    /// Come back when it has begun; its streams lead nowhere
    #[arg(long, short = 'd', conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,
    /// Keys that end this command and not the program; with -t
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
    /// User instead of the application's: name|id[:group|id]
    #[arg(long, short = 'u', value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Working directory instead of the application's
    #[arg(long, short = 'w', value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Environment variable; without =VALUE it is taken from the environment
    #[arg(long, short = 'e', value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// File of environment variables
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
}

/// `firebuild attach`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild attach web                        what the application prints from now on\n  \
    firebuild attach --no-stdin --sig-proxy=false web\n\n\
    Exit code: the application's when it ends; 0 after the detach keys. Standard input is the application's where it was\n\
    started with -i; its end is not. A reader that stalls for ten seconds is detached.")]
pub(crate) struct AttachArgs {
    /// Name, id or a unique beginning of the id
    #[arg(value_name = "VM")]
    pub(crate) vm: String,
    /// Keys that end this command and not the application
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
    /// Do not carry standard input
    #[arg(long)]
    pub(crate) no_stdin: bool,
    /// Pass signals on to the application
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) sig_proxy: bool,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
}

/// `firebuild start`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild start web db\n  \
    firebuild start -a job                      its output from the first byte, and its exit code\n  \
    firebuild start -ai shell\n\n\
    A VM that runs is left alone, or attached to with -a or -i. Exit code: with -a or -i the application's.")]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) vms: VmsArgs,
    /// Carry the application's output, pass signals on, and give its exit code; for one VM
    #[arg(long, short = 'a')]
    pub(crate) attach: bool,
    /// Carry standard input too
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
    /// Keys that end this command and not the application
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: String,
}

/// `firebuild cp`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild cp web:/etc/nginx/nginx.conf .\n  \
    firebuild cp -a ./site/. web:/srv/www\n  \
    firebuild cp web:/var/log - | tar -tv\n  \
    tar -c data | firebuild cp - web:/srv\n\n\
    A file or directory goes into a directory that is there, else it gets the name; DIR/. means what is in DIR. Nothing\n\
    that comes from a VM can be written outside of the place that was named, nor is there more of it than the VM holds.")]
pub(crate) struct CpArgs {
    /// VM:PATH or a path of this host, or - for an archive on standard input
    #[arg(value_name = "SRC", allow_hyphen_values = true)]
    pub(crate) source: String,
    /// A path of this host or VM:PATH, or - for an archive on standard output
    #[arg(value_name = "DEST", allow_hyphen_values = true)]
    pub(crate) destination: String,
    /// Keep owners, set-id bits, devices and all attributes; on this host only root can
    #[arg(long, short = 'a')]
    pub(crate) archive: bool,
    /// Copy what a link leads to
    #[arg(long, short = 'L')]
    pub(crate) follow_link: bool,
    /// Accepted for scripts: nothing is printed anyway
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
}

/// `firebuild stats`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild stats\n  \
    firebuild stats --no-stream --format json web | jq .MemUsage\n\n\
    The numbers are those of the guest's kernel; a VM that is paused or does not answer has none.")]
pub(crate) struct StatsArgs {
    /// Names, ids or unique beginnings of ids (default: all that run)
    #[arg(value_name = "VM")]
    pub(crate) vms: Vec<String>,
    /// Once, not again and again
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
}

/// `firebuild top`
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    firebuild top web\n  \
    firebuild top web -o pid,rss,cmd\n  \
    firebuild top web aux\n\n\
    Options of ps that choose processes (-e, -A, -f, a, u, x and what is made of them) choose all of them, which is what is\n\
    shown anyway; -o takes user, pid, ppid, tty, time, rss (KiB), cmd and comm. The image needs no ps.")]
pub(crate) struct TopArgs {
    /// Name, id or a unique beginning of the id
    #[arg(value_name = "VM")]
    pub(crate) vm: String,
    /// Options of ps: which columns
    #[arg(value_name = "PS OPTION", num_args = 0.., allow_hyphen_values = true, conflicts_with = "format")]
    pub(crate) options: Vec<String>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    #[command(flatten)]
    pub(crate) run_cache: RunCache,
}
