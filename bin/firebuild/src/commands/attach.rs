//! `firebuild attach`: the streams of a VM's application.

use std::process::ExitCode;

use firebuild_engine::monitor::Stdio;
use firebuild_engine::paths::Paths;
use firebuild_engine::session::{self, AttachRequest, DetachKeys, DetachKeysError, SessionEnd};

use super::{Done, exec};
use crate::args::AttachArgs;
use crate::failure::Failure;
use crate::report::output;

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &AttachArgs) -> Done {
    let request = AttachRequest {
        stdin: !args.no_stdin,
        keys: keys(&args.detach_keys)?,
        sig_proxy: args.sig_proxy,
    };
    let stdio = Stdio::of_process(request.stdin)?;
    let end = session::attach(paths, &args.vm, &request, stdio)?;
    Ok(code(end))
}

/// The keys that leave it.
pub(super) fn keys(text: &str) -> Result<DetachKeys, Failure> {
    text.parse()
        .map_err(|error: DetachKeysError| Failure::new(error).code(2))
}

/// The exit code; a terminal that is left is told so.
pub(super) fn code(end: SessionEnd) -> ExitCode {
    if end == SessionEnd::Detached {
        output::note("detached; the VM goes on");
    }
    exec::code(end)
}
