//! Where RUN steps of a build execute.

use clap::{Args, ValueEnum};

use super::Accel;

/// Isolation of RUN.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Isolation of RUN")]
pub(crate) struct IsolationArgs {
    /// Where RUN executes: in a sandbox on this host, or in a VM for a Dockerfile that is not trusted
    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        env = "FIREBUILD_ISOLATION",
        default_value_t = IsolationArg::Sandbox
    )]
    pub(crate) isolation: IsolationArg,
    /// Whether the VM of the build uses KVM (default: auto)
    #[arg(long, value_enum)]
    pub(crate) accel: Option<Accel>,
    /// Size of the VM's scratch disk, which is sparse (default: 32G)
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk_size: Option<String>,
}

impl IsolationArgs {
    /// The flags of a VM that were given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        if self.accel.is_some() {
            names.push("--accel");
        }
        if self.disk_size.is_some() {
            names.push("--disk-size");
        }
        names
    }
}

/// `--isolation`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsolationArg {
    /// Namespaces on this host
    Sandbox,
    /// A VM of the build
    Microvm,
}
