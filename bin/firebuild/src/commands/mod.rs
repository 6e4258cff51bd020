//! One command, one file.

mod kernel;
mod shell;

use std::process::ExitCode;

use firebuild_engine::config::Overrides;
use firebuild_engine::paths::Paths;

use crate::args::{Cli, Command};
use crate::failure::Failure;

/// What a command gives.
pub(crate) type Done = Result<ExitCode, Failure>;

/// Runs a helper process if this is one: the name of the helper stands in the first argument.
pub(crate) fn helper() -> Option<ExitCode> {
    None
}

/// Runs the command that was asked for.
pub(crate) fn dispatch(cli: Cli) -> Done {
    let paths = || {
        let overrides = Overrides { home: cli.home.home.clone(), ..Overrides::default() };
        Paths::of_process(&overrides)
    };
    match &cli.command {
        Command::Kernel(args) => kernel::run(&paths()?, args),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
        _ => Err(Failure::new("not there yet")),
    }
}
