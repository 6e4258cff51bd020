//! One command, one file.

mod baseos;
mod image;
mod kernel;
mod lifecycle;
mod logs;
mod ls;
mod rootfs;
mod run;
mod shell;

use std::process::ExitCode;

use firebuild_engine::cancel::on_interrupt;
use firebuild_engine::config::Overrides;
use firebuild_engine::monitor;
use firebuild_engine::paths::Paths;

use crate::args::{Cli, Command};
use crate::failure::{FAILED_TO_RUN, Failure};
use crate::init::VMINIT;

/// What a command gives.
pub(crate) type Done = Result<ExitCode, Failure>;

/// Runs a helper process if this is one: the name of the helper stands in the first argument.
pub(crate) fn helper() -> Option<ExitCode> {
    firebuild_engine::build::sandbox_main().or_else(|| {
        let mut args = std::env::args_os().skip(1);
        // The second word is the id of its VM, for people who look at the process list.
        let is_monitor = args.next().is_some_and(|name| name == monitor::HELPER) && args.len() == 1;
        is_monitor.then(|| ExitCode::from(monitor::helper_main(VMINIT)))
    })
}

/// Runs the command that was asked for.
pub(crate) fn dispatch(cli: Cli) -> Done {
    let paths = || {
        let overrides = Overrides {
            home: cli.home.home.clone(),
            ..Overrides::default()
        };
        Paths::of_process(&overrides).map_err(Failure::from)
    };
    let log_as_json = cli.log.log_as_json.unwrap_or(false);
    match &cli.command {
        Command::Rootfs(args) => rootfs::run(&paths()?, args, &on_interrupt()?),
        Command::Baseos(args) => baseos::run(&paths()?, args, &on_interrupt()?),
        Command::Image(args) => image::run(&paths()?, args),
        Command::Kernel(args) => kernel::run(&paths()?, args),
        Command::Run(args) => run::run(
            &paths().map_err(|error| error.code(FAILED_TO_RUN))?,
            args,
            log_as_json,
        ),
        Command::Ls(args) => ls::run(&paths()?, args, log_as_json),
        Command::Inspect(args) => lifecycle::inspect(&paths()?, args),
        Command::Logs(args) => logs::run(&paths()?, args, &on_interrupt()?),
        Command::Wait(args) => lifecycle::wait(&paths()?, args),
        Command::Stop(args) => lifecycle::stop(&paths()?, args),
        Command::Kill(args) => lifecycle::kill(&paths()?, args),
        Command::Rm(args) => lifecycle::rm(&paths()?, args),
        Command::Purge(_) => lifecycle::purge(&paths()?),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
    }
}
