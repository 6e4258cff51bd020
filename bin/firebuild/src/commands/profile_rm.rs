//! `firebuild profile-rm`: removes a profile, and nothing that it refers to.

use std::process::ExitCode;

use firebuild_engine::profile;

use super::{Done, profile_dir};
use crate::args::ProfileArg;
use crate::failure::Failure;
use crate::flags::Profile as ProfileFlags;

/// Runs the command. The environment does not name what is removed.
pub(crate) fn run(flags: &ProfileFlags, args: &ProfileArg) -> Done {
    let name = args
        .name
        .as_ref()
        .or(flags.profile.as_ref())
        .ok_or_else(|| {
            Failure::usage("no profile was named")
                .hint("firebuild profile-rm --profile=NAME; profile-ls shows the names")
        })?;
    profile::rm(&profile_dir(flags)?, name)?;
    Ok(ExitCode::SUCCESS)
}
