//! RUN in the sandbox: as root, as an ordinary user with ranges of ids, and as one without.
//!
//! Needs root, to become the others: the ordinary user exists in a mount namespace only, where copies of `/etc/passwd`,
//! `/etc/subuid` and `/etc/subgid` lie over the host's, so nothing of him is left. Each test runs in a process of its own
//! that executes itself again, so this file has a `main` and speaks the little of libtest's language that cargo and
//! nextest need.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program of its own: it panics and prints"
)]

mod base;
mod cases;
mod harness;
// Not with the others, since a step in a VM has another network.
#[path = "cases/network.rs"]
mod network;
mod subject;
mod user;

use std::process::ExitCode;

fn all_cases() -> impl Iterator<Item = &'static cases::Case> {
    network::CASES.iter().chain(cases::CASES)
}

fn main() -> ExitCode {
    // The inner half of the sandbox is this program.
    if let Some(code) = firebuild_build::sandbox::child_main() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(user::BECOME) => user::become_and_run(&arguments[1..]),
        Some(user::INSIDE) => user::run_inside(&arguments[1..]),
        Some(network::FRAMES) => {
            network::send_frames(&arguments[1..]);
            ExitCode::SUCCESS
        }
        Some(cases::BUILDER) => cases::builder(&arguments[1..]),
        _ => harness::main(&arguments),
    }
}
