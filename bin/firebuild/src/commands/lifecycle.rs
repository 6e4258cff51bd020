//! `firebuild inspect`, `wait`, `stop`, `kill`, `pause`, `unpause`, `rm` and `purge`: one engine call each.
//!
//! Commands on several VMs go on past a failure; the exit code says that there was one.

use std::process::ExitCode;
use std::time::Duration;

use firebuild_engine::instance::InstanceError;
use firebuild_engine::paths::Paths;
use firebuild_engine::{inspect, kill, purge, rm, session, stop, wait};

use super::Done;
use crate::args::{InspectArgs, KillArgs, RmArgs, StopArgs, VmsArgs};
use crate::failure::Failure;
use crate::report::diagnostic::render;
use crate::report::output;

/// `firebuild inspect`
pub(crate) fn inspect(paths: &Paths, args: &InspectArgs) -> Done {
    let value = inspect::inspect(paths, args.vm.name())?;
    output::line(&serde_json::to_string_pretty(&value)?);
    Ok(ExitCode::SUCCESS)
}

/// `firebuild wait`: prints the codes, one a line, as `docker wait` does; its own code says whether it could.
pub(crate) fn wait(paths: &Paths, args: &VmsArgs) -> Done {
    for vm in &args.vms {
        let code = wait::wait(paths, vm)?;
        output::line(&code.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// `firebuild stop`
pub(crate) fn stop(paths: &Paths, args: &StopArgs) -> Done {
    let signal = args.signal.as_deref().map(signal).transpose()?;
    each(&args.vms.vms, |vm| {
        stop::stop(paths, vm, args.time.map(grace), signal)
    })
}

/// `firebuild kill`
pub(crate) fn kill(paths: &Paths, args: &KillArgs) -> Done {
    let signal = args.signal.as_deref().map(signal).transpose()?;
    let vms: Vec<String> = args.vms.iter().chain(&args.vmm_id).cloned().collect();
    match &args.shutdown_timeout {
        Some(text) => {
            let grace = duration(text)?;
            each(&vms, |vm| stop::stop(paths, vm, Some(grace), signal))
        }
        None => each(&vms, |vm| kill::kill(paths, vm, signal)),
    }
}

/// `firebuild pause`
pub(crate) fn pause(paths: &Paths, args: &VmsArgs) -> Done {
    each(&args.vms, |vm| session::pause(paths, vm))
}

/// `firebuild unpause`
pub(crate) fn unpause(paths: &Paths, args: &VmsArgs) -> Done {
    each(&args.vms, |vm| session::unpause(paths, vm))
}

/// `firebuild rm`
pub(crate) fn rm(paths: &Paths, args: &RmArgs) -> Done {
    each(&args.vms.vms, |vm| rm::rm(paths, vm, args.force))
}

/// `firebuild purge`
pub(crate) fn purge(paths: &Paths) -> Done {
    let purged = purge::purge(paths)?;
    for (id, name) in &purged.instances {
        output::line(&format!("{} {name}", &id[..id.len().min(12)]));
    }
    for leftover in &purged.leftovers {
        output::line(leftover);
    }
    for error in &purged.failed {
        output::note(render(error, None, &[]).trim_end());
    }
    Ok(if purged.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn each(vms: &[String], mut work: impl FnMut(&str) -> Result<(), InstanceError>) -> Done {
    let mut code = ExitCode::SUCCESS;
    for vm in vms {
        match work(vm) {
            Ok(()) => output::line(vm),
            Err(error) => {
                output::note(render(&error, None, &[]).trim_end());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// A grace period in seconds; below 0 it never ends.
pub(super) fn grace(seconds: i64) -> Duration {
    u64::try_from(seconds).map_or(Duration::MAX, Duration::from_secs)
}

pub(super) fn signal(text: &str) -> Result<u8, Failure> {
    stop::signal_number(text).ok_or_else(|| {
        Failure::usage(format!("{text:?} is no signal")).hint("TERM, SIGUSR1, 15, RTMIN+3")
    })
}

/// A duration as the original's flags take it: `15s`, `500ms`, `2m`, or seconds.
fn duration(text: &str) -> Result<Duration, Failure> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let count: u64 = text[..split].parse().unwrap_or(u64::MAX);
    let unit = match &text[split..] {
        "" | "s" => 1000,
        "ms" => 1,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match count.checked_mul(unit) {
        Some(milliseconds) if unit > 0 => Ok(Duration::from_millis(milliseconds)),
        _ => Err(Failure::usage(format!("{text:?} is no duration")).hint("15s, 500ms, 2m")),
    }
}
