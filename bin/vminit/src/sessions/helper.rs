//! The process of a session that is no program of the image: this program again, with its work as an argument.
//!
//! What it has to say it says as a program would: results on standard output, failures on standard error and as its exit
//! code.

use std::ffi::OsStr;
use std::process::ExitCode;

use firebuild_guest_proto::SessionWork;
use firebuild_sys::{process, signal};

use super::{copy, processes, sample};

/// The first argument that makes this program such a process.
pub(super) const NAME: &str = "session";

/// When this process was started for a session, does its work and gives the code to leave with.
pub(crate) fn main() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next().as_deref() != Some(OsStr::new(NAME)) || rustix::process::getpid().is_init() {
        return None;
    }
    let work = args.next().unwrap_or_default();
    Some(match work_on(&work.to_string_lossy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _ = rustix::io::write(rustix::stdio::stderr(), format!("{problem}\n").as_bytes());
            ExitCode::FAILURE
        }
    })
}

fn work_on(text: &str) -> Result<(), String> {
    let broken = |error: &dyn std::error::Error| error.to_string();
    let work: SessionWork = serde_json::from_str(text).map_err(|error| broken(&error))?;
    signal::unblock_all().map_err(|error| broken(&error))?;
    // PID 1 marks all that it opens; what its libraries open does not matter here either.
    process::close_on_exec_from(3).map_err(|error| broken(&error))?;
    match work {
        SessionWork::CopyOut { path, follow } => copy::out(&path, follow),
        SessionWork::CopyIn {
            path,
            source,
            keep_owners,
        } => copy::into(&path, source.as_ref(), keep_owners),
        SessionWork::Stats { interval_ms } => sample::stream(interval_ms),
        SessionWork::Processes => processes::list(),
        SessionWork::Exec(_) => Err("a program is not a helper's work".to_owned()),
    }
}
