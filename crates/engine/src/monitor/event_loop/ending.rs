//! What is left of a machine: its exit code, and why it ended when its guest did not say.

use firebuild_guest_proto::{ExitRecord, ExitStatus, Signal};
use jiff::Timestamp;

use super::{EndedBy, EventLoop, Finished};
use crate::instance::{Ended, FORMAT};

/// Lines of the console that an error shows; all of them are in the console's log.
const CONSOLE_LINES: usize = 8;

impl<'f> EventLoop<'_, 'f> {
    pub(super) fn finish(mut self) -> Finished<'f> {
        if let Some(log) = &mut self.log {
            let _ = log.finish();
        }
        self.finish_health();
        let end = self.machine.finish();
        let killed = end.killed;
        let (exit_code, error) = match (&self.exit, &self.ended_by) {
            (Some(record), _) => (record.exit_code(), failure(record)),
            (None, Some(EndedBy::Kill)) => (128 + Signal::KILL.number(), String::new()),
            (None, Some(EndedBy::Signal(number))) => (128 + number, String::new()),
            (None, Some(EndedBy::Abandoned)) => (125, "its start was abandoned".to_owned()),
            (None, Some(EndedBy::Fault(text))) => (125, text.clone()),
            (None, None) => {
                let code = match end.exit {
                    Some(firebuild_sys::process::Exit::Signal(9)) if !killed => 137,
                    _ => 125,
                };
                (code, last_words(&end, self.last_words.as_deref()))
            }
        };
        Finished {
            abandoned: self.ended_by == Some(EndedBy::Abandoned),
            ended: Ended {
                format: FORMAT,
                exit_code,
                oom_killed: self.exit.as_ref().is_some_and(|record| record.oom_killed),
                error,
                finished_at: Timestamp::now(),
            },
            server: self.server,
            cleanup: end.cleanup.iter().map(|error| chain(error)).collect(),
            front: self.front,
            ran: self.began.map(|began| began.elapsed()),
            stopped: self.stopped,
            again: self.again,
        }
    }
}

/// What kept the application from running, if it did not run.
pub(super) fn failure(record: &ExitRecord) -> String {
    match &record.status {
        ExitStatus::Failed { message, .. } => message.clone(),
        _ => String::new(),
    }
}

/// For a machine that ended without an exit record: how, and what it said last.
fn last_words(end: &firebuild_vm::MachineEnd, words: Option<&str>) -> String {
    let mut text = end.words();
    if let Some(words) = words {
        text.push_str(&format!("\n  guest init: {words}"));
    }
    for line in interesting(&end.console) {
        text.push_str(&format!("\n  console: {line}"));
    }
    text
}

/// The lines of a console that tell why a machine ended: those from a panic of the kernel on, else the
/// last ones.
fn interesting(console: &[String]) -> &[String] {
    let panic = console
        .iter()
        .position(|line| line.contains("Kernel panic") || line.contains("Oops"));
    let from = panic.unwrap_or(console.len().saturating_sub(CONSOLE_LINES));
    let lines = &console[from..];
    &lines[..lines.len().min(CONSOLE_LINES)]
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
