//! `firebuild start` and `firebuild restart`.
//!
//! They go on past a VM that cannot be started; the exit code says that there was one.

use std::process::ExitCode;

use firebuild_engine::monitor::{Notice, Stdio};
use firebuild_engine::paths::Paths;
use firebuild_engine::run::{Outcome, RunError};
use firebuild_engine::session::AttachRequest;
use firebuild_engine::start;

use super::lifecycle::{grace, signal};
use super::{Done, attach, run};
use crate::args::{StartArgs, StopArgs};
use crate::failure::Failure;
use crate::report::output;

/// `firebuild start`
pub(crate) fn start(paths: &Paths, args: &StartArgs) -> Done {
    let vms = &args.vms.vms;
    if !args.attach && !args.interactive {
        return Ok(each(vms, |vm| start::start(paths, vm, &mut note)));
    }
    let [vm] = vms.as_slice() else {
        return Err(
            Failure::usage("-a and -i are for one VM").hint("start the others first, without them")
        );
    };
    let request = AttachRequest {
        stdin: args.interactive,
        keys: attach::keys(&args.detach_keys)?,
        sig_proxy: true,
    };
    let stdio = Stdio::of_process(request.stdin)?;
    let end =
        start::start_attached(paths, vm, &request, stdio, &mut note).map_err(run::with_hint)?;
    Ok(attach::code(end))
}

/// `firebuild restart`
pub(crate) fn restart(paths: &Paths, args: &StopArgs) -> Done {
    let signal = args.signal.as_deref().map(signal).transpose()?;
    let grace = args.time.map(grace);
    Ok(each(&args.vms.vms, |vm| {
        start::restart(paths, vm, grace, signal, &mut note)
    }))
}

fn note(notice: Notice) {
    if let Notice::Note(text) = notice {
        output::note(&format!("note: {text}"));
    }
}

fn each(
    vms: &[String],
    mut work: impl FnMut(&str) -> Result<Option<Outcome>, RunError>,
) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for vm in vms {
        match work(vm) {
            Ok(None) => output::line(vm),
            Ok(Some(outcome)) => {
                run::ended(&outcome);
                code = ExitCode::FAILURE;
            }
            Err(error) => {
                let _ = run::with_hint(error).report();
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
