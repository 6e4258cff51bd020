//! `cargo xtask`: the checks that keep the workspace as its documents say, and the benchmarks.
//!
//! ```text
//! cargo xtask check-deps        dependencies point down the levels of docs/architecture.md
//! cargo xtask licences          every crate of the lock file has a licence on the list
//! cargo xtask docs-check        every relative link in the documents leads somewhere
//! cargo xtask bench [WHAT…]     times, side by side with the tools they are measured against; --write for docs
//! ```
//!
//! A check prints every problem that it finds and ends with 1 if there was one.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers: its output is its purpose"
)]

mod bench;
mod check_deps;
mod docs_check;
mod licences;
mod metadata;
mod spdx;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What goes wrong here is shown to a developer and nothing else.
type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// The root of the workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn main() -> ExitCode {
    // The benchmark of steps runs some by itself.
    if let Some(code) = firebuild_build::sandbox::child_main() {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let problems = match args.as_slice() {
        ["check-deps"] => check_deps::problems(&root()),
        ["licences" | "licenses"] => licences::problems(&root()),
        ["docs-check"] => docs_check::problems(&root()),
        ["bench", rest @ ..] => bench::run(&root(), rest).map(|()| Vec::new()),
        _ => {
            eprintln!(
                "usage: cargo xtask check-deps | licences | docs-check | bench [--write] [--rounds N] [ext4|step|build]"
            );
            return ExitCode::from(2);
        }
    };
    match problems {
        Ok(problems) => {
            for problem in &problems {
                eprintln!("{problem}");
            }
            if problems.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
