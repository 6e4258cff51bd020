//! firebuild: a Dockerfile goes in, a microVM comes out.
//!
//! This file is a shim: helper processes first (before any thread exists), then parse, dispatch, report.

mod args;
mod commands;
mod failure;
mod flags;
mod init;
mod report;
mod sizes;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // Re-executed helpers (build sandbox, monitor) are single-threaded by birth and never come back.
    if let Some(code) = commands::helper() {
        return code;
    }
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // 0 for --help and --version, 2 for wrong usage.
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match commands::dispatch(&cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
