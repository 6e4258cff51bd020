//! `firebuild exec`: a program in a VM beside its application.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use firebuild_engine::monitor::Stdio;
use firebuild_engine::paths::Paths;
use firebuild_engine::run::env;
use firebuild_engine::session::{self, ExecRequest, SessionEnd};

use super::{Done, attach};
use crate::args::ExecArgs;
use crate::failure::Failure;
use crate::report::output;

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &ExecArgs) -> Done {
    if args.interactive && args.tty && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("standard input is no terminal")
            .hint("leave out -t to carry it to the program, or -i to leave it"));
    }
    let caller = |name: &str| std::env::var(name).ok();
    let mut request = ExecRequest {
        argv: args.command.clone(),
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        terminal: args.tty,
        stdin: args.interactive,
        detach: args.detach,
        keys: Some(attach::keys(&args.detach_keys)?),
        ..ExecRequest::default()
    };
    for file in &args.env_file {
        request.env.extend(env::read_file(file, caller)?);
    }
    for text in &args.env {
        let assignment = env::parse_flag(text, caller);
        request
            .env
            .push(assignment.map_err(|error| Failure::new(error).code(2))?);
    }
    let stdio = Stdio::of_process(args.interactive)?;
    let end = session::exec(paths, &args.vm, &request, stdio)?;
    if end == SessionEnd::Detached {
        output::note("detached; the program goes on");
    }
    Ok(code(end))
}

/// The exit code of a command that carried streams; tells why there was nothing to carry.
pub(super) fn code(end: SessionEnd) -> ExitCode {
    match end {
        SessionEnd::Exited(code) => ExitCode::from(code),
        SessionEnd::Failed(code, message) => {
            output::note(&format!("error: {message}"));
            ExitCode::from(code)
        }
        SessionEnd::Detached => ExitCode::SUCCESS,
        SessionEnd::GaveUp(signal) => ExitCode::from(128 + signal),
    }
}
