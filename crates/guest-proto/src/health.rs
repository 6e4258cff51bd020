//! HEALTHCHECK: what the guest runs to see whether its application is well, and what it tells of it.
//!
//! The rules are Docker's (moby `daemon/health.go`): a probe that exits with 0 makes the application healthy at once;
//! `retries` failures in a row make it unhealthy, and those in the start period do not count as long as no probe has
//! succeeded. [`Verdict`] is that rule, without a clock.

use serde::{Deserialize, Serialize};

/// The longest output of a probe that is kept, in bytes (moby's `maxOutputLen`).
pub const MAX_PROBE_OUTPUT_BYTES: usize = 4096;
/// The exit code of a probe that could not be started or took too long (moby).
pub const PROBE_FAILED: i32 = -1;

/// A check as the guest is told to run it; what was left open has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// The probe and its arguments; a shell form has its shell in front.
    pub argv: Vec<String>,
    /// From the end of a probe to the next one, in milliseconds.
    pub interval_ms: u64,
    /// How long a probe may take, in milliseconds.
    pub timeout_ms: u64,
    /// How long failures do not count, from the start of the application, in milliseconds.
    pub start_period_ms: u64,
    /// The interval in the start period as long as no probe has succeeded, in milliseconds.
    pub start_interval_ms: u64,
    /// Failures in a row that make the application unhealthy.
    pub retries: u32,
}

/// Docker's words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthStatus {
    /// No probe has decided yet.
    Starting,
    /// The last probes succeeded.
    Healthy,
    /// The last probes failed.
    Unhealthy,
}

impl HealthStatus {
    /// The word as Docker shows it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// What the probes up to now mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The status.
    pub status: HealthStatus,
    /// Failures in a row that count.
    pub failing_streak: u32,
}

impl Default for Verdict {
    fn default() -> Self {
        Verdict {
            status: HealthStatus::Starting,
            failing_streak: 0,
        }
    }
}

impl Verdict {
    /// Takes a probe's exit code into account. The probe began `began_ms` milliseconds after the application.
    pub fn take(&mut self, check: &HealthCheck, exit_code: i32, began_ms: u64) {
        if exit_code == 0 {
            *self = Verdict {
                status: HealthStatus::Healthy,
                failing_streak: 0,
            };
            return;
        }
        if self.status == HealthStatus::Starting && began_ms < check.start_period_ms {
            return;
        }
        self.failing_streak = self.failing_streak.saturating_add(1);
        if self.failing_streak >= check.retries {
            self.status = HealthStatus::Unhealthy;
        }
    }

    /// How long to wait until the next probe, `now_ms` milliseconds after the application's start.
    #[must_use]
    pub fn interval_ms(&self, check: &HealthCheck, now_ms: u64) -> u64 {
        if self.status == HealthStatus::Starting && now_ms < check.start_period_ms {
            check.start_interval_ms
        } else {
            check.interval_ms
        }
    }
}

/// One probe that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// When it began: nanoseconds since 1970 by the guest's clock.
    pub started_unix_ns: u64,
    /// When it ended.
    pub ended_unix_ns: u64,
    /// Its exit code; [`PROBE_FAILED`] if it has none.
    pub exit_code: i32,
    /// The beginning of what it printed, at most [`MAX_PROBE_OUTPUT_BYTES`].
    pub output: String,
}

impl Probe {
    /// Cuts the output to what is kept.
    pub fn clip(&mut self) {
        let mut end = self.output.len().min(MAX_PROBE_OUTPUT_BYTES);
        while !self.output.is_char_boundary(end) {
            end -= 1;
        }
        self.output.truncate(end);
    }
}

/// What the guest tells after each probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthReport {
    /// What all probes up to now mean.
    pub verdict: Verdict,
    /// The last one.
    pub probe: Probe,
}

#[cfg(test)]
mod tests {
    use super::{HealthCheck, HealthStatus, Verdict};

    fn check() -> HealthCheck {
        HealthCheck {
            argv: vec!["true".to_owned()],
            interval_ms: 30_000,
            timeout_ms: 30_000,
            start_period_ms: 10_000,
            start_interval_ms: 1_000,
            retries: 3,
        }
    }

    #[test]
    fn failures_count_after_the_start_period_and_in_a_row() {
        let (check, mut verdict) = (check(), Verdict::default());
        for began in [0, 5_000, 9_999] {
            verdict.take(&check, 1, began);
        }
        assert_eq!(verdict, Verdict::default());
        verdict.take(&check, 1, 10_000);
        verdict.take(&check, -1, 11_000);
        assert_eq!(
            (verdict.status, verdict.failing_streak),
            (HealthStatus::Starting, 2)
        );
        verdict.take(&check, 0, 12_000);
        assert_eq!(
            (verdict.status, verdict.failing_streak),
            (HealthStatus::Healthy, 0)
        );
        for (count, expected) in [
            (1, HealthStatus::Healthy),
            (2, HealthStatus::Healthy),
            (3, HealthStatus::Unhealthy),
            (4, HealthStatus::Unhealthy),
        ] {
            verdict.take(&check, 2, 13_000);
            assert_eq!((verdict.status, verdict.failing_streak), (expected, count));
        }
        verdict.take(&check, 0, 14_000);
        assert_eq!(verdict.status, HealthStatus::Healthy);
    }

    #[test]
    fn a_success_ends_the_start_period() {
        let (check, mut verdict) = (check(), Verdict::default());
        assert_eq!(verdict.interval_ms(&check, 0), 1_000);
        assert_eq!(verdict.interval_ms(&check, 10_000), 30_000);
        verdict.take(&check, 0, 1_000);
        assert_eq!(verdict.interval_ms(&check, 1_000), 30_000);
        // From then on failures count, start period or not.
        verdict.take(&check, 1, 2_000);
        assert_eq!(verdict.failing_streak, 1);
    }
}
