//! The probes of HEALTHCHECK: one at a time, each a process beside the application, by Docker's clock.
//!
//! ```text
//!   interval ──▶ probe ──ends, or takes too long──▶ report ──▶ interval ──▶ …
//! ```
//!
//! The interval begins when a probe has ended, so probes never pile up. A probe is the application's user in the
//! application's environment; it leads a session of its own, and one that takes too long is killed with all of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use firebuild_guest_proto::health::{MAX_PROBE_OUTPUT_BYTES, PROBE_FAILED};
use firebuild_guest_proto::{ExitStatus, HealthCheck, HealthReport, Probe, Signal, Verdict};
use firebuild_sys::signal;
use rustix::io::Errno;
use rustix::process::{Pid, WaitStatus};

use crate::clock;
use crate::launch::{self, Surroundings};
use crate::supervise::exit_status;

/// Bytes of a probe's output that are read in one turn; a probe that floods does not keep us from the rest.
const TURN_BYTES: usize = 64 * 1024;

/// The health of the application.
#[derive(Debug)]
pub(crate) struct Health {
    check: HealthCheck,
    surroundings: Surroundings,
    started: Instant,
    verdict: Verdict,
    /// When the next probe begins; nothing while one runs, or when that lies beyond all time.
    next: Option<Instant>,
    probe: Option<Running>,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    /// Closed when the probe has closed its end.
    output: Option<OwnedFd>,
    text: Vec<u8>,
    began: Instant,
    began_unix_ns: u64,
    exit: Option<i32>,
}

impl Health {
    /// The health of an application that has just been started.
    pub(crate) fn new(check: HealthCheck, surroundings: Surroundings) -> Health {
        let mut health = Health {
            check,
            surroundings,
            started: Instant::now(),
            verdict: Verdict::default(),
            next: None,
            probe: None,
        };
        health.plan();
        health
    }

    /// What to wait for: the output of a probe.
    pub(crate) fn output(&self) -> Option<BorrowedFd<'_>> {
        let output = self.probe.as_ref()?.output.as_ref()?;
        Some(output.as_fd())
    }

    /// When [`Health::turn`] has something to do although nothing has come.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match &self.probe {
            Some(probe) => probe.began.checked_add(self.timeout()),
            None => self.next,
        }
    }

    /// A child has ended; perhaps it is the probe.
    pub(crate) fn ended(&mut self, pid: Pid, status: WaitStatus) {
        if let Some(probe) = &mut self.probe
            && probe.pid == pid
        {
            probe.exit = Some(match exit_status(status) {
                ExitStatus::Exited { code } => code.into(),
                ExitStatus::Signaled { signal, .. } => 128 + i32::from(signal.number()),
                ExitStatus::Failed { .. } => PROBE_FAILED,
            });
        }
    }

    /// Goes on; what there is to tell when a probe has ended.
    pub(crate) fn turn(&mut self) -> Option<HealthReport> {
        let timeout = self.timeout();
        let Some(probe) = &mut self.probe else {
            return self.begin();
        };
        probe.read();
        let late = probe.began.elapsed() >= timeout;
        let exit_code = match probe.exit {
            Some(code) => code,
            None if late => {
                // It leads a group of its own. That it has just ended is no matter.
                let _ = signal::send_group(probe.pid, Signal::KILL.number().into());
                PROBE_FAILED
            }
            None => return None,
        };
        let mut output = String::from_utf8_lossy(&probe.text).into_owned();
        if probe.exit.is_none() {
            let words = format!("Health check exceeded timeout ({})", words(timeout));
            output = if output.is_empty() {
                words
            } else {
                format!("{words}: {output}")
            };
        }
        let (began, began_unix_ns) = (probe.began, probe.began_unix_ns);
        self.probe = None;
        Some(self.conclude(exit_code, output, began, began_unix_ns))
    }

    fn begin(&mut self) -> Option<HealthReport> {
        if self.next.is_none_or(|next| next > Instant::now()) {
            return None;
        }
        self.next = None;
        let (began, began_unix_ns) = (Instant::now(), clock::unix_ns());
        match launch::beside(&self.check.argv, &self.surroundings) {
            Ok((pid, output)) => {
                self.probe = Some(Running {
                    pid,
                    output: Some(output),
                    text: Vec::new(),
                    began,
                    began_unix_ns,
                    exit: None,
                });
                None
            }
            Err(error) => Some(self.conclude(PROBE_FAILED, error.chain(), began, began_unix_ns)),
        }
    }

    fn conclude(
        &mut self,
        exit_code: i32,
        output: String,
        began: Instant,
        began_unix_ns: u64,
    ) -> HealthReport {
        let since_start = milliseconds(began.saturating_duration_since(self.started));
        self.verdict.take(&self.check, exit_code, since_start);
        self.plan();
        let mut probe = Probe {
            started_unix_ns: began_unix_ns,
            ended_unix_ns: clock::unix_ns(),
            exit_code,
            output,
        };
        probe.clip();
        HealthReport {
            verdict: self.verdict,
            probe,
        }
    }

    fn plan(&mut self) {
        let now = milliseconds(self.started.elapsed());
        let interval = Duration::from_millis(self.verdict.interval_ms(&self.check, now));
        self.next = Instant::now().checked_add(interval);
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.check.timeout_ms)
    }
}

impl Running {
    /// Takes what has come; what does not fit is dropped, so that the probe can go on.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        let mut taken = 0;
        while let Some(output) = &self.output
            && taken < TURN_BYTES
        {
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => self.output = None,
                Ok(count) => {
                    taken += count;
                    let room = MAX_PROBE_OUTPUT_BYTES.saturating_sub(self.text.len());
                    self.text.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.output = None,
            }
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration as Go prints it, to the millisecond.
fn words(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 {
        return format!("{milliseconds}ms");
    }
    let fraction = match milliseconds {
        0 => String::new(),
        part => format!(".{part:03}").trim_end_matches('0').to_owned(),
    };
    let rest = format!("{}{fraction}s", seconds % 60);
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::words;

    #[test]
    fn durations_are_written_as_go_does() {
        for (milliseconds, expected) in [
            (1, "1ms"),
            (1_500, "1.5s"),
            (30_000, "30s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(words(Duration::from_millis(milliseconds)), expected);
        }
    }
}
