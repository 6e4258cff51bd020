//! The state of an instance.

use super::health::Health;
use super::record::{Ended, MachineRecord, Started};

/// What an instance does, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is being started.
    Created,
    /// Its application runs.
    Running {
        /// Since when.
        started: Started,
        /// As which processes.
        machine: Option<MachineRecord>,
        /// Its processors stand still.
        paused: bool,
    },
    /// It has ended so, and its owner starts it again.
    Restarting(Ended),
    /// It has ended.
    Exited(Ended),
    /// Its owner died without a word.
    Dead,
}

impl State {
    /// Docker's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running { paused: true, .. } => "paused",
            State::Running { .. } => "running",
            State::Restarting(_) => "restarting",
            State::Exited(_) => "exited",
            State::Dead => "dead",
        }
    }

    /// How an application in this state is, of which this is known.
    pub(crate) fn health(&self, known: Health) -> Health {
        match self {
            State::Created | State::Running { .. } => known,
            State::Restarting(_) | State::Exited(_) | State::Dead => known.ended(),
        }
    }

    /// Whether an owner lives.
    pub fn is_alive(&self) -> bool {
        !matches!(self, State::Exited(_) | State::Dead)
    }
}
