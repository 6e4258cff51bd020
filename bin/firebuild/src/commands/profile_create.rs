//! `firebuild profile-create`: flags under a name.

use std::collections::BTreeMap;
use std::process::ExitCode;

use firebuild_engine::profile::{self, Created, KERNEL_ROOT, Profile, ROOTFS_ROOT};

use super::{Done, profile_dir};
use crate::args::ProfileCreateArgs;
use crate::failure::Failure;
use crate::flags::Profile as ProfileFlags;
use crate::report::output;

/// Runs the command.
pub(crate) fn run(flags: &ProfileFlags, args: &ProfileCreateArgs) -> Done {
    let name = flags.profile.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(Failure::usage("no name was given").hint("--profile=NAME names the profile"));
    }
    let strings = properties(&args.storage_provider_property_string)?;
    for key in strings
        .keys()
        .filter(|key| ![KERNEL_ROOT, ROOTFS_ROOT].contains(&key.as_str()))
    {
        output::note(&format!(
            "warning: the directory storage has no property {key}; it has {KERNEL_ROOT} and {ROOTFS_ROOT}"
        ));
    }
    let numbers = properties(&args.storage_provider_property_int64)?
        .into_iter()
        .map(|(key, value)| match value.parse() {
            Ok(number) => Ok((key, number)),
            Err(_) => Err(Failure::usage(format!(
                "--storage-provider-property-int64 {key}: {value:?} is no number"
            ))),
        })
        .collect::<Result<BTreeMap<String, i64>, _>>()?;
    let profile = Profile {
        binary_firecracker: args.binary_firecracker.clone(),
        binary_jailer: args.binary_jailer.clone(),
        chroot_base: args.chroot_base.clone(),
        run_cache: args.run_cache.clone(),
        storage_provider: args.storage_provider.clone(),
        storage_strings: strings,
        storage_numbers: numbers,
        tracing_enable: args.tracing.tracing_enable.unwrap_or(false),
        tracing_collector_host_port: args
            .tracing
            .tracing_collector_host_port
            .clone()
            .unwrap_or_default(),
        tracing_log_enable: args.tracing.tracing_log_enable.unwrap_or(false),
    };
    let created = profile::create(&profile_dir(flags)?, name, profile, args.overwrite)?;
    let what = match created {
        Created::New => "created",
        Created::Updated => "updated",
        Created::Unchanged => "unchanged",
    };
    output::line(&format!("{} {what}", name.to_ascii_lowercase()));
    Ok(ExitCode::SUCCESS)
}

/// `KEY=VALUE`; a value may hold commas and equals signs.
fn properties(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::usage(format!(
                "the property {text:?} is not KEY=VALUE"
            ))),
        })
        .collect()
}
