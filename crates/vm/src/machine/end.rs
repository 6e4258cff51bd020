//! How a machine ended, for people.

use std::fmt;

use firebuild_sys::process::Exit;

/// How a machine ended.
#[derive(Debug)]
pub struct MachineEnd {
    /// How the VMM ended; `None` if it never ran.
    pub exit: Option<Exit>,
    /// What that means, where the VMM's documentation gives its exit codes a meaning.
    pub reason: Option<&'static str>,
    /// Whether this program ended it.
    pub killed: bool,
    /// What the VMM and its helpers said last, a line each, after `role: `.
    pub log: Vec<String>,
    /// The last lines of the console.
    pub console: Vec<String>,
    /// What could not be cleaned up.
    pub cleanup: Vec<CleanupError>,
}

impl MachineEnd {
    fn panicked(&self) -> bool {
        // `kernel/panic.c`
        let said = |line: &String| line.contains("Kernel panic - not syncing");
        self.console.iter().any(said)
    }

    /// How the VMM ended, in words, with what it said last; for a machine that ended without an exit record.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = match self.exit {
            None => "the VMM never ran".to_owned(),
            Some(_) if self.killed => "the machine was killed".to_owned(),
            Some(Exit::Code(0)) if self.panicked() => {
                "the kernel of the guest gave up with a panic".to_owned()
            }
            Some(Exit::Code(0)) => "the guest restarted or powered off without a report".to_owned(),
            Some(exit) => {
                let reason = self.reason.map(|reason| format!(": {reason}"));
                format!("the VMM {}{}", exit_words(exit), reason.unwrap_or_default())
            }
        };
        for line in &self.log {
            words.push_str("\n  ");
            words.push_str(line);
        }
        words
    }
}

/// Something that stayed behind.
#[derive(Debug)]
pub struct CleanupError {
    what: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl CleanupError {
    pub(crate) fn new(
        what: String,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            what,
            source: source.into(),
        }
    }
}

impl fmt::Display for CleanupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot clean up {}", self.what)
    }
}

impl std::error::Error for CleanupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

pub(super) fn exit_words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("ended with status {code}"),
        Exit::Signal(number) => format!("was killed by signal {number}"),
    }
}
