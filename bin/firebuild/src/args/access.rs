//! `firebuild run`: names that the guest knows, and who may log in.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use firebuild_engine::run::access::Access;
use firebuild_engine::run::names::Names;

/// Names, name servers, keys.
#[derive(Args, Clone, Debug)]
pub(crate) struct AccessArgs {
    /// Further line of the guest's /etc/hosts; the address host-gateway is the host
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Names and logins")]
    pub(crate) add_host: Vec<String>,
    /// Name server in place of the network's
    #[arg(long, value_name = "ADDRESS", help_heading = "Names and logins")]
    pub(crate) dns: Vec<IpAddr>,
    /// Domain that is searched in place of the network's; . for none
    #[arg(long, value_name = "DOMAIN", help_heading = "Names and logins")]
    pub(crate) dns_search: Vec<String>,
    /// Option of the guest's resolver, like ndots:2
    #[arg(
        long,
        visible_alias = "dns-opt",
        value_name = "OPTION",
        help_heading = "Names and logins"
    )]
    pub(crate) dns_option: Vec<String>,
    /// File of public keys that open the account of --ssh-user
    #[arg(long, value_name = "FILE", help_heading = "Names and logins")]
    pub(crate) identity_file: Vec<PathBuf>,
    /// Make the account of --ssh-user if the image does not have it
    #[arg(long, help_heading = "Names and logins")]
    pub(crate) create_user: bool,
    /// Keep the variables of --env and --env-file out of /etc/profile.d/run-env.sh, so that login shells do not have them
    #[arg(long, help_heading = "Names and logins")]
    pub(crate) no_run_env: bool,
}

impl AccessArgs {
    /// The names as the engine takes them.
    pub(crate) fn names(&self) -> Names {
        Names {
            hosts: self.add_host.clone(),
            dns: self.dns.clone(),
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
        }
    }

    /// Who may log in; `user` is that of `--ssh-user`.
    pub(crate) fn access(&self, user: Option<&String>) -> Access {
        Access {
            user: user.cloned(),
            identity_files: self.identity_file.clone(),
            create: self.create_user,
        }
    }
}
