//! `firebuild logs`: what the application printed, each stream where it came from.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use firebuild_engine::cancel::Cancel;
use firebuild_engine::log_file::Stream;
use firebuild_engine::logs;
use firebuild_engine::paths::Paths;

use super::Done;
use crate::args::LogsArgs;

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &LogsArgs, cancel: &Cancel) -> Done {
    if args.console {
        let path = logs::console(paths, &args.vm)?;
        let mut file = fs_err::File::open(path)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 || std::io::stdout().write_all(&buffer[..count]).is_err() {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    let request = logs::Request {
        wanted: args.vm.clone(),
        follow: args.follow,
        tail: args
            .tail
            .map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
    };
    logs::logs(paths, &request, cancel, &mut |record| {
        let mut text = String::new();
        if args.timestamps {
            text.push_str(&record.time.to_string());
            text.push(' ');
        }
        text.push_str(&record.log);
        // A reader that goes away ends the command.
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
