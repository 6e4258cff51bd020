//! One command, one file.

mod attach;
mod baseos;
mod check;
mod completion;
mod cp;
mod exec;
mod image;
mod isolation;
mod kernel;
mod lifecycle;
mod logs;
mod ls;
mod mmds;
mod profile_create;
mod profile_inspect;
mod profile_ls;
mod profile_rm;
mod publish;
mod results;
mod room;
mod rootfs;
mod run;
mod shell;
mod source;
mod start;
mod stats;
mod top;
mod vmm;

use std::path::Path;
use std::process::ExitCode;

use firebuild_engine::cancel::on_interrupt;
use firebuild_engine::config::Overrides;
use firebuild_engine::monitor;
use firebuild_engine::paths::Paths;
use firebuild_engine::profile::{Profile, ProfileDir};

use crate::args::{Cli, Command};
use crate::failure::{FAILED_TO_RUN, Failure};
use crate::flags::Profile as ProfileFlags;
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
pub(crate) fn dispatch(cli: &Cli) -> Done {
    let log = &cli.log;
    let places = || -> Result<(Paths, Profile), Failure> {
        let profile = saved_flags(cli)?;
        Ok((paths(cli, &profile)?, profile))
    };
    let paths = || places().map(|(paths, _)| paths);
    log.mention(&cli.command.tracing(), "yet");
    match &cli.command {
        Command::Rootfs(args) => {
            let (paths, profile) = places()?;
            rootfs::run(&paths, args, &profile, log, &on_interrupt()?)
        }
        Command::Baseos(args) => {
            let (paths, profile) = places()?;
            baseos::run(&paths, args, &profile, &on_interrupt()?)
        }
        Command::Image(args) => image::run(&paths()?, args),
        Command::Kernel(args) => kernel::run(&paths()?, args),
        Command::Run(args) => {
            let (paths, profile) = places().map_err(|failure| failure.code(FAILED_TO_RUN))?;
            run::run(&paths, args, &profile, log)
        }
        Command::Ls(args) => ls::run(&paths()?, args, log),
        Command::Inspect(args) => lifecycle::inspect(&paths()?, args),
        Command::Mmds(args) => mmds::run(&paths()?, args),
        Command::Logs(args) => logs::run(&paths()?, args, &on_interrupt()?),
        Command::Exec(args) => exec::run(&paths()?, args),
        Command::Attach(args) => attach::run(&paths()?, args),
        Command::Cp(args) => cp::run(&paths()?, args),
        Command::Stats(args) => stats::run(&paths()?, args),
        Command::Top(args) => top::run(&paths()?, args),
        Command::Pause(args) => lifecycle::pause(&paths()?, args),
        Command::Unpause(args) => lifecycle::unpause(&paths()?, args),
        Command::Wait(args) => lifecycle::wait(&paths()?, args),
        Command::Start(args) => start::start(&paths()?, args),
        Command::Restart(args) => start::restart(&paths()?, args),
        Command::Stop(args) => lifecycle::stop(&paths()?, args),
        Command::Kill(args) => lifecycle::kill(&paths()?, args),
        Command::Rm(args) => lifecycle::rm(&paths()?, args),
        Command::Du(args) => room::du(&paths()?, args, &on_interrupt()?),
        Command::Prune(args) => room::prune(&paths()?, args, &on_interrupt()?),
        Command::Purge(_) => lifecycle::purge(&paths()?),
        Command::ProfileCreate(args) => profile_create::run(&cli.profile, args),
        Command::ProfileLs(args) => profile_ls::run(&cli.profile, args, log),
        Command::ProfileInspect(args) => profile_inspect::run(&cli.profile, args),
        Command::ProfileRm(args) => profile_rm::run(&cli.profile, args),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
    }
}

/// The flags of the profile that was named; none without one.
fn saved_flags(cli: &Cli) -> Result<Profile, Failure> {
    match cli.profile.name() {
        Some(name) => Ok(profile_dir(&cli.profile)?.load(&name)?),
        None => Ok(Profile::default()),
    }
}

fn profile_dir(flags: &ProfileFlags) -> Result<ProfileDir, Failure> {
    ProfileDir::of_process(flags.profile_conf_dir.as_deref()).map_err(Failure::from)
}

/// Where things are: by flags, the environment, the profile, or default.
fn paths(cli: &Cli, profile: &Profile) -> Result<Paths, Failure> {
    let run_cache = cli.command.run_cache().cloned();
    if run_cache.as_deref() == Some(Path::new("/")) {
        return Err(Failure::usage("--run-cache cannot be /"));
    }
    let overrides = Overrides {
        home: cli.home.home.clone(),
        state: run_cache,
        profile_state: profile.run_cache(),
        ..Overrides::default()
    };
    Paths::of_process(&overrides).map_err(Failure::from)
}
