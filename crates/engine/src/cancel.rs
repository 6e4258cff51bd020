//! Ctrl+C for long work.
//!
//! The signals are read by one thread and raise a [`Cancel`]; whoever works polls it. The second one ends the process as the
//! signal would have: somebody who presses Ctrl+C twice does not want to wait for a clean end.

use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process};

pub use firebuild_build::cancel::Cancel;
use firebuild_sys::signal::{SignalFd, unblock_all};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// A [`Cancel`] that Ctrl+C and SIGTERM raise. To be called once, before other threads are started.
///
/// # Errors
/// When the process has no descriptor or thread left.
pub fn on_interrupt() -> io::Result<Cancel> {
    let cancel = Cancel::new()?;
    let signals = SignalFd::new(&[SIGINT, SIGTERM])?;
    let raised = cancel.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || watch(&signals, &raised))?;
    Ok(cancel)
}

fn watch(signals: &SignalFd, cancel: &Cancel) {
    loop {
        let mut fds = [PollFd::new(signals, PollFlags::IN)];
        if poll(&mut fds, None).is_err() {
            continue;
        }
        while let Ok(Some(received)) = signals.read() {
            if cancel.is_raised() {
                // Its own default action then ends the process.
                let _ = unblock_all();
                let signal = if received.number == SIGTERM {
                    Signal::TERM
                } else {
                    Signal::INT
                };
                let _ = kill_process(getpid(), signal);
            }
            cancel.raise();
        }
    }
}
