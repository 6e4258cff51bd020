//! `firebuild profile-ls`: the names of profiles.

use std::process::ExitCode;

use firebuild_engine::profile;

use super::{Done, profile_dir};
use crate::args::{Format, FormatArgs};
use crate::flags::{Log, Profile as ProfileFlags};
use crate::report::output;

/// Runs the command.
pub(crate) fn run(flags: &ProfileFlags, args: &FormatArgs, log: &Log) -> Done {
    let listing = profile::ls(&profile_dir(flags)?)?;
    if args.format == Format::Json {
        output::line(&serde_json::to_string_pretty(&listing.names)?);
    } else {
        for name in &listing.names {
            output::line(name);
        }
    }
    for broken in &listing.broken {
        log.note("warning", &broken.to_string());
    }
    Ok(ExitCode::SUCCESS)
}
