//! Why the application could not be started.

use std::error::Error;
use std::fmt;

use firebuild_guest_proto::FailureReason;

/// A step that failed, for programs (the reason) and for people (the step, and its cause as the source).
#[derive(Debug)]
pub(crate) struct InitError {
    reason: FailureReason,
    step: String,
    source: Option<Box<dyn Error>>,
}

impl InitError {
    pub(crate) fn new(reason: FailureReason, step: impl Into<String>) -> InitError {
        InitError {
            reason,
            step: step.into(),
            source: None,
        }
    }

    pub(crate) fn caused(
        reason: FailureReason,
        step: impl Into<String>,
        source: impl Into<Box<dyn Error>>,
    ) -> InitError {
        InitError {
            reason,
            step: step.into(),
            source: Some(source.into()),
        }
    }

    /// A step of the set-up that failed.
    pub(crate) fn setup(step: impl Into<String>, source: impl Into<Box<dyn Error>>) -> InitError {
        InitError::caused(FailureReason::Setup, step, source)
    }

    pub(crate) fn reason(&self) -> FailureReason {
        self.reason
    }

    /// The step and all its causes in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.step.clone();
        let mut next = self.source();
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)
    }
}

impl Error for InitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref()
    }
}
