//! `firebuild profile-inspect`: a profile as JSON, with the keys of its file.

use std::process::ExitCode;

use firebuild_engine::profile;

use super::{Done, profile_dir};
use crate::args::ProfileArg;
use crate::failure::Failure;
use crate::flags::Profile as ProfileFlags;
use crate::report::output;

/// Runs the command.
pub(crate) fn run(flags: &ProfileFlags, args: &ProfileArg) -> Done {
    let name = args.name.clone().or_else(|| flags.name()).ok_or_else(|| {
        Failure::usage("no profile was named")
            .hint("firebuild profile-inspect --profile=NAME; profile-ls shows the names")
    })?;
    output::line(&profile::inspect(&profile_dir(flags)?, &name)?);
    Ok(ExitCode::SUCCESS)
}
