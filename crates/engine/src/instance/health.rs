//! What is known of the health of an application: `health.json`, in Docker's own words, so that `inspect` shows it as it
//! is.

use firebuild_guest_proto::{HealthReport, HealthStatus};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Probes that are remembered (moby's `maxLogEntries`).
const REMEMBERED: usize = 5;

/// The health of an application that is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last probes, the oldest first.
    pub log: Vec<HealthLog>,
}

/// A probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthLog {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Its exit code; -1 if it could not be started or took too long.
    pub exit_code: i32,
    /// What it printed.
    pub output: String,
}

impl Health {
    /// Before the first probe.
    pub(crate) fn starting() -> Self {
        Self {
            status: HealthStatus::Starting.word().to_owned(),
            failing_streak: 0,
            log: Vec::new(),
        }
    }

    /// Takes in what the guest tells; a time that cannot be is now.
    pub(crate) fn take(&mut self, report: HealthReport) {
        let time =
            |ns: u64| Timestamp::from_nanosecond(ns.into()).unwrap_or_else(|_| Timestamp::now());
        self.status = report.verdict.status.word().to_owned();
        self.failing_streak = report.verdict.failing_streak;
        let probe = report.probe;
        if self.log.len() >= REMEMBERED {
            self.log.drain(..=self.log.len() - REMEMBERED);
        }
        self.log.push(HealthLog {
            start: time(probe.started_unix_ns),
            end: time(probe.ended_unix_ns),
            exit_code: probe.exit_code,
            output: probe.output,
        });
    }

    /// As it is told of an application that has ended: nobody looks any more, which Docker calls unhealthy.
    pub(crate) fn ended(mut self) -> Self {
        HealthStatus::Unhealthy.word().clone_into(&mut self.status);
        self
    }
}

#[cfg(test)]
mod tests {
    use firebuild_guest_proto::{HealthReport, HealthStatus, Probe, Verdict};

    use super::Health;

    #[test]
    fn the_last_five_are_remembered() {
        let mut health = Health::starting();
        for number in 0..7 {
            health.take(HealthReport {
                verdict: Verdict {
                    status: HealthStatus::Healthy,
                    failing_streak: 0,
                },
                probe: Probe {
                    started_unix_ns: 1_800_000_000_000_000_000,
                    ended_unix_ns: u64::MAX,
                    exit_code: number,
                    output: String::new(),
                },
            });
        }
        let codes: Vec<i32> = health.log.iter().map(|probe| probe.exit_code).collect();
        assert_eq!(codes, [2, 3, 4, 5, 6]);
        assert_eq!(health.status, "healthy");
        let text = serde_json::to_value(&health).unwrap();
        assert_eq!(
            text.pointer("/Log/0/Start").unwrap(),
            "2027-01-15T08:00:00Z"
        );
        assert_eq!(text.pointer("/Log/4/ExitCode").unwrap(), 6);
        assert_eq!(health.ended().status, "unhealthy");
    }
}
