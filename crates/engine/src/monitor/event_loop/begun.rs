//! The moment when the application runs: what is written down, and what of an earlier run is no longer true.

use std::time::Instant;

use jiff::Timestamp;

use super::{EventLoop, Phase};
use crate::instance::{FORMAT, RECORDS, Restarts, Started};
use crate::monitor::front::Notice;
use crate::monitor::report::News;

impl EventLoop<'_, '_> {
    pub(super) fn begun(&mut self, uptime_ns: u64) {
        self.phase = self.phase.max(Phase::Running);
        self.began = Some(Instant::now());
        let started = Started {
            format: FORMAT,
            started_at: Timestamp::now(),
            boot_ms: uptime_ns / 1_000_000,
        };
        let written = self.owned.write(RECORDS.started, &started).and_then(|()| {
            // In this order, so that nobody takes the earlier end for the last one.
            self.owned.forget(RECORDS.exit)?;
            if self.restarts > 0 || self.owned.instance().restarts()?.is_some() {
                let restarts = Restarts {
                    format: FORMAT,
                    count: self.restarts,
                    pending: false,
                };
                self.owned.write(RECORDS.restarts, &restarts)?;
            }
            Ok(())
        });
        if let Err(error) = written {
            (self.front.notices)(Notice::Note(format!("the start is not recorded: {error}")));
        }
        self.begin_health();
        if let Some(reporter) = self.front.reporter.take() {
            reporter.tell(&News::Started);
        }
    }
}
