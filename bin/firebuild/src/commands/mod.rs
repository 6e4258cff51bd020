//! One command, one file.

mod image;
mod kernel;
mod rootfs;
mod shell;

use std::process::ExitCode;

use firebuild_engine::cancel::on_interrupt;
use firebuild_engine::config::Overrides;
use firebuild_engine::paths::Paths;

use crate::args::{Cli, Command};
use crate::failure::Failure;

/// What a command gives.
pub(crate) type Done = Result<ExitCode, Failure>;

/// Runs a helper process if this is one: the name of the helper stands in the first argument.
pub(crate) fn helper() -> Option<ExitCode> {
    firebuild_engine::build::sandbox_main()
}

/// Runs the command that was asked for.
pub(crate) fn dispatch(cli: Cli) -> Done {
    let paths = || {
        let overrides = Overrides { home: cli.home.home.clone(), ..Overrides::default() };
        Paths::of_process(&overrides)
    };
    match &cli.command {
        Command::Rootfs(args) => rootfs::run(&paths()?, args, &on_interrupt()?),
        Command::Image(args) => image::run(&paths()?, args),
        Command::Kernel(args) => kernel::run(&paths()?, args),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
        _ => Err(Failure::new("not there yet")),
    }
}
