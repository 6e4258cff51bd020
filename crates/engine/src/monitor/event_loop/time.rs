//! The guest's clock follows the host's: told once a minute, since a virtual clock drifts, and one that stood still with its
//! host does not know it.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{EventLoop, Phase};

/// Between two times that are told.
const EVERY: Duration = Duration::from_secs(60);

impl EventLoop<'_, '_> {
    /// When the time is to be told; while there is an application that can look at it.
    pub(super) fn time_due(&self) -> Option<Instant> {
        let told = self.time_told.or(self.began)?;
        (self.phase == Phase::Running && !self.paused).then(|| told + EVERY)
    }

    pub(super) fn tell_time(&mut self) {
        if self.time_due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.time_told = Some(Instant::now());
        let now = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
        if let Err(error) = self.agent.tell_time(now) {
            self.fault(&error);
        }
    }
}
