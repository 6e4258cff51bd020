//! `firebuild completions` and `firebuild man`: generated from the same types that parse the command line.

use std::process::ExitCode;

use clap::CommandFactory as _;

use super::Done;
use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::report::output;

/// Prints a completion script.
pub(crate) fn completions(args: &CompletionsArgs) -> Done {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "firebuild", &mut text);
    output::raw(&text);
    Ok(ExitCode::SUCCESS)
}

/// Writes a man page for firebuild and one for each command.
pub(crate) fn man(args: &ManArgs) -> Done {
    fs_err::create_dir_all(&args.directory)?;
    clap_mangen::generate_to(Cli::command(), &args.directory)?;
    Ok(ExitCode::SUCCESS)
}
