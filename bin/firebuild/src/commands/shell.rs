//! `firebuild completions` and `firebuild man`: generated from the same types that parse the command line.

use std::process::ExitCode;

use clap::CommandFactory as _;

use super::{Done, completion};
use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::report::output;

/// Prints a completion script.
pub(crate) fn completions(args: &CompletionsArgs) -> Done {
    output::raw(completion::script(args.shell).as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Writes a man page for firebuild and one for each command.
pub(crate) fn man(args: &ManArgs) -> Done {
    fs_err::create_dir_all(&args.directory)?;
    clap_mangen::generate_to(Cli::command(), &args.directory)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory as _;

    /// Every flag of a build that the help shows stands in the reference.
    #[test]
    fn the_reference_knows_every_flag_of_a_build() {
        let reference = include_str!("../../../../docs/guide/reference.md");
        let command = Cli::command();
        let build = command.find_subcommand("rootfs").expect("it is there");
        let unknown: Vec<String> = build
            .get_arguments()
            .filter(|flag| !flag.is_hide_set())
            .filter_map(|flag| flag.get_long())
            .map(|long| format!("--{}", long.split('.').next().unwrap_or(long)))
            // Those of the original's build server are told of where the original is.
            .filter(|long| !long.starts_with("--bootstrap-"))
            .filter(|long| !reference.contains(long.as_str()))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
