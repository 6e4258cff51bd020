//! Groups of flags that several commands share; names and meanings of the original firebuild.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use firebuild_engine::profile::Profile as SavedFlags;
use serde_json::json;

use crate::report::output;

/// A flag group of the original that can say which of its flags were given.
macro_rules! given {
    ($group:ty { $($flag:literal => $field:ident),* $(,)? }) => {
        impl $group {
            /// The names of the flags that were given.
            pub(crate) fn given(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if self.$field.is_some() { names.push($flag); })*
                names
            }
        }
    };
}

/// How firebuild speaks about its own work.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Log {
    /// What to report on standard error; error and warn leave notes out
    #[arg(long, global = true, value_name = "LEVEL", ignore_case = true, value_parser = ["trace", "debug", "info", "warn", "error"])]
    pub(crate) log_level: Option<String>,
    /// Records of `ls` and `run -d` as JSON lines on standard error, as the original wrote them
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) log_as_json: Option<bool>,
    /// Colours if it is a terminal
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL", hide = true)]
    pub(crate) log_color: Option<bool>,
    /// Colours always
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL", hide = true)]
    pub(crate) log_force_color: Option<bool>,
}

impl Log {
    /// Whether records go to standard error as JSON lines.
    pub(crate) fn as_json(&self) -> bool {
        self.log_as_json.unwrap_or(false)
    }

    /// Says once that flags have no effect.
    pub(crate) fn mention(&self, flags: &[&str], why: &str) {
        let hidden = matches!(self.log_level.as_deref(), Some("warn" | "error"));
        if flags.is_empty() || hidden {
            return;
        }
        let verb = if flags.len() == 1 { "has" } else { "have" };
        self.note(
            "note",
            &format!("{} {verb} no effect {why}", flags.join(", ")),
        );
    }

    /// A line on standard error that a reader of JSON lines can read too.
    pub(crate) fn note(&self, level: &str, text: &str) {
        if self.as_json() {
            let level = if level == "note" { "info" } else { "warn" };
            output::note(&json!({ "@level": level, "@message": text }).to_string());
        } else {
            output::note(&format!("{level}: {text}"));
        }
    }
}

/// Saved flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Profile {
    /// Profile whose flags are used where none are given [env: FIREBUILD_PROFILE]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Directory of the profiles (default: /etc/firebuild/profiles for root, else in the configuration directory)
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) profile_conf_dir: Option<PathBuf>,
}

impl Profile {
    /// The profile that fills what flags leave open, if one was named.
    pub(crate) fn name(&self) -> Option<String> {
        let inherited = || std::env::var("FIREBUILD_PROFILE").ok();
        self.profile
            .clone()
            .or_else(inherited)
            .filter(|name| !name.is_empty())
    }
}

/// Tracing of the original: accepted; spans come with OpenTelemetry.
#[derive(Args, Clone, Debug)]
pub(crate) struct Tracing {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) tracing_enable: Option<bool>,
    #[arg(long, hide = true, value_name = "ADDRESS")]
    pub(crate) tracing_collector_host_port: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) tracing_log_enable: Option<bool>,
}
given!(Tracing {
    "--tracing-enable" => tracing_enable,
    "--tracing-collector-host-port" => tracing_collector_host_port,
    "--tracing-log-enable" => tracing_log_enable,
});

/// Catalogue directories of the original.
#[derive(Args, Clone, Debug)]
pub(crate) struct Storage {
    /// Kind of the original's catalogue: directory
    #[arg(long, value_name = "KIND", value_parser = ["directory"], help_heading = "Original catalogue")]
    pub(crate) storage_provider: Option<String>,
    /// Directory in which --vmlinux-id is looked up first
    #[arg(
        long = "storage-provider.directory.kernel-storage-root",
        value_name = "DIR",
        help_heading = "Original catalogue"
    )]
    pub(crate) kernel_storage_root: Option<PathBuf>,
    /// Directory that gets ORG/NAME/VERSION/{rootfs,metadata.json} beside the store
    #[arg(
        long = "storage-provider.directory.rootfs-storage-root",
        value_name = "DIR",
        help_heading = "Original catalogue"
    )]
    pub(crate) rootfs_storage_root: Option<PathBuf>,
}

impl Storage {
    /// The directories that are in force: those of flags, then those of a profile.
    pub(crate) fn roots(&self, profile: &SavedFlags) -> Roots {
        Roots {
            kernel: self
                .kernel_storage_root
                .clone()
                .or_else(|| profile.kernel_root()),
            rootfs: self
                .rootfs_storage_root
                .clone()
                .or_else(|| profile.rootfs_root()),
        }
    }
}

/// Directories of the original's catalogue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roots {
    /// Where `--vmlinux-id` is looked up first.
    pub(crate) kernel: Option<PathBuf>,
    /// Where images are published.
    pub(crate) rootfs: Option<PathBuf>,
}

/// Directory of run records of the original.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunCache {
    /// Directory of the VMs' records
    #[arg(long, value_name = "DIR", help_heading = "Directories")]
    pub(crate) run_cache: Option<PathBuf>,
}
given!(RunCache { "--run-cache" => run_cache });

/// CNI.
#[derive(Args, Clone, Debug)]
pub(crate) struct Cni {
    /// Directory of CNI plugins
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) cni_bin_dir: Option<PathBuf>,
    /// Directory of CNI configurations
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) cni_conf_dir: Option<PathBuf>,
    /// Directory of CNI state
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) cni_cache_dir: Option<PathBuf>,
    /// CNI network of the VM
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) cni_network_name: Option<String>,
}
given!(Cni {
    "--cni-bin-dir" => cni_bin_dir,
    "--cni-conf-dir" => cni_conf_dir,
    "--cni-cache-dir" => cni_cache_dir,
    "--cni-network-name" => cni_network_name,
});

/// Firecracker's jailer.
#[derive(Args, Clone, Debug)]
pub(crate) struct Jailer {
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) binary_firecracker: Option<PathBuf>,
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) binary_jailer: Option<PathBuf>,
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) chroot_base: Option<PathBuf>,
    #[arg(long, value_name = "GID", hide = true)]
    pub(crate) jailer_gid: Option<u32>,
    #[arg(long, value_name = "UID", hide = true)]
    pub(crate) jailer_uid: Option<u32>,
    #[arg(long, value_name = "NODE", hide = true)]
    pub(crate) jailer_numa_node: Option<u32>,
    #[arg(long, value_name = "PATH", hide = true)]
    pub(crate) netns: Option<PathBuf>,
}
given!(Jailer {
    "--binary-firecracker" => binary_firecracker,
    "--binary-jailer" => binary_jailer,
    "--chroot-base" => chroot_base,
    "--jailer-gid" => jailer_gid,
    "--jailer-uid" => jailer_uid,
    "--jailer-numa-node" => jailer_numa_node,
    "--netns" => netns,
});

/// The VMM of `run`, and how it is held.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "VMM")]
pub(crate) struct Vmm {
    /// What runs the VM; auto takes Firecracker where KVM works and it is installed
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(crate) backend: Backend,
    /// Firecracker (default: firecracker on the PATH)
    #[arg(long, value_name = "FILE")]
    pub(crate) binary_firecracker: Option<PathBuf>,
    /// Firecracker's jailer (default: jailer on the PATH)
    #[arg(long, value_name = "FILE")]
    pub(crate) binary_jailer: Option<PathBuf>,
    /// Whether Firecracker runs in a jail; off is for development
    #[arg(long, value_name = "ON", value_parser = ["on", "off"])]
    pub(crate) jailer: Option<String>,
    /// Directory of the jails (default: /srv/jailer)
    #[arg(long, value_name = "DIR")]
    pub(crate) chroot_base: Option<PathBuf>,
    /// User of the jailed VMM, never 0 (default: one of its own)
    #[arg(long, value_name = "UID")]
    pub(crate) jailer_uid: Option<u32>,
    /// Group of the jailed VMM, never 0 (default: that of its user)
    #[arg(long, value_name = "GID")]
    pub(crate) jailer_gid: Option<u32>,
    /// NUMA node of the jailed VMM's memory and processors
    #[arg(long, value_name = "NODE")]
    pub(crate) jailer_numa_node: Option<u32>,
    /// Network namespace of the host in which the VM's network is
    #[arg(long, value_name = "PATH")]
    pub(crate) netns: Option<PathBuf>,
    /// More about the machine and its jail, in Firecracker's words (docs/formats/machine-config.md)
    #[arg(long, value_name = "FILE")]
    pub(crate) machine_config: Option<PathBuf>,
}

/// What runs a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Backend {
    /// Firecracker where everything that it needs is there, else QEMU
    Auto,
    /// Firecracker or nothing
    Firecracker,
    /// QEMU or nothing
    Qemu,
}

/// The machine.
#[derive(Args, Clone, Debug)]
pub(crate) struct Machine {
    /// Memory: MiB, or with a suffix like 2G (default: 512)
    #[arg(
        long,
        short = 'm',
        visible_alias = "memory",
        value_name = "SIZE",
        help_heading = "Machine"
    )]
    pub(crate) mem: Option<String>,
    /// Virtual CPUs (default: 1)
    #[arg(
        long,
        visible_alias = "cpus",
        value_name = "COUNT",
        help_heading = "Machine"
    )]
    pub(crate) cpu: Option<u32>,
    /// Kernel of the catalogue (default: the newest fitting one)
    #[arg(
        long,
        visible_alias = "kernel",
        value_name = "ID",
        help_heading = "Machine"
    )]
    pub(crate) vmlinux_id: Option<String>,
    /// Further kernel parameters; they are merged by key, reserved ones are refused
    #[arg(
        long,
        value_name = "WORDS",
        allow_hyphen_values = true,
        help_heading = "Machine"
    )]
    pub(crate) kernel_args: Option<String>,
    /// Processor that the guest sees: C3, T2, T2S, T2CL or T2A (for run)
    #[arg(
        long,
        value_name = "NAME",
        ignore_case = true,
        help_heading = "Machine"
    )]
    pub(crate) cpu_template: Option<String>,
    /// Processors as pairs of threads (for run)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL", hide_possible_values = true, help_heading = "Machine")]
    pub(crate) ht_enabled: Option<bool>,
    /// Address of the guest on the bridge (run --network=bridge); without it the first free one
    #[arg(
        long,
        visible_alias = "ip",
        value_name = "ADDRESS",
        help_heading = "Machine"
    )]
    pub(crate) ip_address: Option<Ipv4Addr>,
    /// No metadata service for the guest (run)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL", hide_possible_values = true, help_heading = "Metadata")]
    pub(crate) no_mmds: Option<bool>,
    #[arg(long, value_name = "UUID", hide = true)]
    pub(crate) root_drive_partuuid: Option<String>,
    /// Account that the keys of --identity-file open (run)
    #[arg(long, value_name = "USER", help_heading = "Names and logins")]
    pub(crate) ssh_user: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) log_firecracker_http_calls: Option<bool>,
    #[arg(long, value_name = "SECONDS", hide = true)]
    pub(crate) shutdown_graceful_timeout_seconds: Option<u64>,
}
given!(Machine {
    "--mem" => mem,
    "--cpu" => cpu,
    "--vmlinux-id" => vmlinux_id,
    "--kernel-args" => kernel_args,
    "--cpu-template" => cpu_template,
    "--ht-enabled" => ht_enabled,
    "--ip-address" => ip_address,
    "--no-mmds" => no_mmds,
    "--root-drive-partuuid" => root_drive_partuuid,
    "--ssh-user" => ssh_user,
    "--log-firecracker-http-calls" => log_firecracker_http_calls,
    "--shutdown-graceful-timeout-seconds" => shutdown_graceful_timeout_seconds,
});

impl Machine {
    /// The flags that were given and that QEMU with user-mode networking has no use for.
    pub(crate) fn unused_by_run(&self) -> Vec<&'static str> {
        let used = [
            "--mem",
            "--cpu",
            "--vmlinux-id",
            "--kernel-args",
            "--cpu-template",
            "--ht-enabled",
            "--ip-address",
            "--ssh-user",
            "--no-mmds",
        ];
        self.given()
            .into_iter()
            .filter(|name| !used.contains(name))
            .collect()
    }
}
