//! `firebuild logs`: what the application printed, each stream where it came from, or the guest's console.

use std::io::Write as _;
use std::process::ExitCode;

use firebuild_engine::cancel::Cancel;
use firebuild_engine::log_file::Stream;
use firebuild_engine::logs::{self, moment};
use firebuild_engine::{ls, paths::Paths};

use super::Done;
use crate::args::LogsArgs;
use crate::failure::Failure;

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &LogsArgs, cancel: &Cancel) -> Done {
    let now = ls::now();
    let time = |text: &Option<String>| {
        let moment = text.as_deref().map(|text| moment::parse(text, now));
        moment
            .transpose()
            .map_err(|error| Failure::new(error).code(2))
    };
    let request = logs::Request {
        wanted: args.vm.clone(),
        follow: args.follow,
        tail: tail(args.tail.as_deref())?,
        since: time(&args.since)?,
        until: time(&args.until)?,
    };
    // A reader that goes away ends the command.
    if args.console {
        logs::console(paths, &request, cancel, &mut |bytes| {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush()).is_ok()
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    logs::logs(paths, &request, cancel, &mut |record| {
        let mut text = String::new();
        if args.timestamps {
            // All nine digits, so that the lines are aligned, as in Docker.
            text.push_str(&format!("{:.9} ", record.time));
        }
        text.push_str(&record.log);
        let written = match record.stream {
            Stream::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            Stream::Stderr => std::io::stderr().lock().write_all(text.as_bytes()),
        };
        written.is_ok()
    })?;
    Ok(ExitCode::SUCCESS)
}

/// How many lines; none for all of them.
fn tail(text: Option<&str>) -> Result<Option<usize>, Failure> {
    match text {
        None | Some("all") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Failure::usage(format!("--tail {text:?} is no number of lines")).hint("20, or all")
        }),
    }
}
