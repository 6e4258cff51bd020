//! What the guest tells of its application's health, on its way to `health.json`.
//!
//! A guest may tell as often as it likes; what is written down is the newest, a few times a second at most.

use std::time::{Duration, Instant};

use firebuild_guest_proto::HealthReport;

use super::EventLoop;
use crate::instance::{Health, RECORDS};
use crate::monitor::front::Notice;

/// Time between two writes.
const PAUSE: Duration = Duration::from_millis(200);

/// What is known and whether it is written.
#[derive(Debug, Default)]
pub(super) struct Told {
    health: Option<Health>,
    /// When it is to be written.
    due: Option<Instant>,
    written: Option<Instant>,
}

impl EventLoop<'_, '_> {
    /// The application runs: a check begins where there is one.
    pub(super) fn begin_health(&mut self) {
        if self.owned.instance().record().is_checked() {
            self.told.health = Some(Health::starting());
            self.told.due = Some(Instant::now());
            self.write_health();
        }
    }

    pub(super) fn take_health(&mut self, report: HealthReport) {
        // Nobody asked for it.
        let Some(health) = &mut self.told.health else {
            return;
        };
        health.take(report);
        let free = self.told.written.map(|at| at + PAUSE);
        let now = Instant::now();
        self.told.due.get_or_insert(free.unwrap_or(now).max(now));
    }

    pub(super) fn health_due(&self) -> Option<Instant> {
        self.told.due
    }

    /// Writes what is due.
    pub(super) fn write_health(&mut self) {
        let now = Instant::now();
        if self.told.due.is_none_or(|due| due > now) {
            return;
        }
        self.told.due = None;
        self.told.written = Some(now);
        if let Some(health) = &self.told.health
            && let Err(error) = self.owned.write(RECORDS.health, health)
        {
            (self.front.notices)(Notice::Note(format!("the health is not recorded: {error}")));
        }
    }

    /// Writes the last of it, due or not.
    pub(super) fn finish_health(&mut self) {
        if self.told.due.is_some() {
            self.told.due = Some(Instant::now());
            self.write_health();
        }
    }
}
