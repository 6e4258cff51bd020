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

/// How a kernel begins to say that it gives up.
const FATAL: [&str; 3] = ["BUG: ", "Oops", PANIC];
/// Its last sentence.
const PANIC: &str = "Kernel panic";
/// Lines before those, which often have the cause: what process 1 did, what was asked of the kernel.
const BEFORE: usize = 2;

/// The lines of a console that tell why a machine ended: what a kernel said from its first fatal word on, its panic
/// among them however long the trace before it is; else the last ones.
fn interesting(console: &[String]) -> Vec<&str> {
    let fatal = console
        .iter()
        .position(|line| FATAL.iter().any(|word| line.contains(word)));
    let from = match fatal {
        Some(fatal) => fatal.saturating_sub(BEFORE),
        None => console.len().saturating_sub(CONSOLE_LINES),
    };
    let mut lines: Vec<&str> = console[from..].iter().map(String::as_str).collect();
    let panic = lines.iter().position(|line| line.contains(PANIC));
    if let Some(late) = panic.filter(|at| *at >= CONSOLE_LINES) {
        lines.swap(CONSOLE_LINES - 1, late);
    }
    lines.truncate(CONSOLE_LINES);
    lines
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{CONSOLE_LINES, interesting};

    fn console(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn many(word: &str) -> String {
        (0..60).map(|number| format!("{word} {number}\n")).collect()
    }

    #[test]
    fn a_panic_is_shown_with_what_came_before_it() {
        let text = format!(
            "{}init[1]: bad opcode\ncode: 00\nKernel panic - not syncing: init\n{}",
            many("boot"),
            many("trace")
        );
        let console = console(&text);
        let shown = interesting(&console);
        assert_eq!(shown.len(), CONSOLE_LINES);
        assert_eq!(
            shown[..4],
            [
                "init[1]: bad opcode",
                "code: 00",
                "Kernel panic - not syncing: init",
                "trace 0"
            ]
        );
    }

    #[test]
    fn the_panic_after_a_long_trace_is_shown_too() {
        let text = format!(
            "boot\nBUG: null pointer\nOops: 2\n{}Kernel panic - not syncing: Fatal exception\n",
            many("trace")
        );
        let console = console(&text);
        let shown = interesting(&console);
        assert_eq!(shown[..3], ["boot", "BUG: null pointer", "Oops: 2"]);
        assert_eq!(
            shown[CONSOLE_LINES - 1],
            "Kernel panic - not syncing: Fatal exception"
        );
    }

    #[test]
    fn without_one_the_last_lines_are_shown() {
        let text = many("boot");
        let console = console(&text);
        let shown = interesting(&console);
        assert_eq!((shown[0], shown.len()), ("boot 52", CONSOLE_LINES));
        assert!(interesting(&[]).is_empty());
    }
}
