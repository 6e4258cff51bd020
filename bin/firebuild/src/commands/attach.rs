//! `firebuild attach`: the streams of a VM's application.

use firebuild_engine::monitor::Stdio;
use firebuild_engine::paths::Paths;
use firebuild_engine::session::{self, AttachRequest, SessionEnd};

use super::{Done, exec};
use crate::args::AttachArgs;
use crate::failure::Failure;
use crate::report::output;

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &AttachArgs) -> Done {
    let keys = args.detach_keys.parse();
    let request = AttachRequest {
        stdin: !args.no_stdin,
        keys: keys.map_err(|error| Failure::new(error).code(2))?,
        sig_proxy: args.sig_proxy,
    };
    let stdio = Stdio::of_process(request.stdin)?;
    let end = session::attach(paths, &args.vm, &request, stdio)?;
    if end == SessionEnd::Detached {
        output::note("detached; the VM goes on");
    }
    Ok(exec::code(end))
}
