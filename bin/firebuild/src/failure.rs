//! A failed command: the error, where it is in a file, what to do about it, and the exit code.

use std::error::Error;
use std::io::ErrorKind;
use std::process::ExitCode;

use crate::report::diagnostic::{Snippet, render};
use crate::report::output;

/// firebuild itself failed while it should have run something (as in Docker).
pub(crate) const FAILED_TO_RUN: u8 = 125;
/// Any other failed command.
const FAILED: u8 = 1;
/// Wrong usage that clap cannot see.
const USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Box<dyn Error>,
    snippet: Option<Snippet>,
    hints: Vec<String>,
    code: u8,
}

impl Failure {
    /// A failure with the general exit code.
    pub(crate) fn new(error: impl Into<Box<dyn Error>>) -> Self {
        Self {
            error: error.into(),
            snippet: None,
            hints: Vec::new(),
            code: FAILED,
        }
    }

    /// Arguments that contradict each other.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            ..Self::new(message.into())
        }
    }

    /// Another exit code.
    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Something to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The place in a file.
    pub(crate) fn snippet(mut self, snippet: Option<Snippet>) -> Self {
        self.snippet = snippet;
        self
    }

    /// Tells the person, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let mut hints = self.hints.clone();
        if is_full(&*self.error) && !hints.iter().any(|hint| hint.contains("free some space")) {
            hints.push("free some space, or point --home to a larger disk".to_owned());
        }
        output::note(render(&*self.error, self.snippet.as_ref(), &hints).trim_end());
        ExitCode::from(self.code)
    }
}

/// Whether a full disk is the reason, somewhere beneath.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        let kind = error
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        let text = error.to_string();
        // What another process met comes as a text.
        if matches!(
            kind,
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        ) || text.contains("No space left on device")
            || text.contains("no space is left")
        {
            return true;
        }
        at = error.source();
    }
    false
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}
