//! Between the end of a machine and its next start: whether there is one, and when.
//!
//! The pauses are Docker's (moby `restartmanager`): 100 ms, doubled with each start up to a minute, and 100 ms again
//! after a run of ten seconds. While it pauses, an owner still answers: it can be stopped, and it is waited for.

use std::time::{Duration, Instant};

use firebuild_vm::RunDir;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::control::{Answer, Request, Server, Verdict};
use super::front::Front;
use super::order::Order;
use crate::instance::{FORMAT, InstanceError, Owned, RECORDS, RestartPolicy, Restarts};

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length was none that failed at once.
const STEADY: Duration = Duration::from_secs(10);

/// What has been started again, and how long the last pause was.
#[derive(Debug)]
pub(super) struct Restarter {
    policy: RestartPolicy,
    pause: Duration,
    count: u32,
}

/// How a pause ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paused {
    /// It is time to start.
    Over,
    /// Somebody wants it to stay ended.
    Stopped,
}

impl Restarter {
    pub(super) fn new(policy: RestartPolicy) -> Self {
        Self {
            policy,
            pause: Duration::ZERO,
            count: 0,
        }
    }

    /// The pause before the next start, if the policy wants one after an end like this.
    pub(super) fn after(&mut self, exit_code: u8, ran: Duration) -> Option<Duration> {
        if !self.policy.applies(exit_code, self.count) {
            return None;
        }
        self.count = self.count.saturating_add(1);
        self.pause = if ran >= STEADY || self.pause.is_zero() {
            FIRST
        } else {
            self.pause.saturating_mul(2).min(LONGEST)
        };
        Some(self.pause)
    }

    /// How often the policy has had its way.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Writes down that the end was, or will not be, the last one.
    pub(super) fn record(&self, owned: &Owned, pending: bool) -> Result<(), InstanceError> {
        let restarts = Restarts {
            format: FORMAT,
            count: self.count,
            pending,
        };
        owned.write(RECORDS.restarts, &restarts)
    }
}

/// Waits before the next start. `waiting` are the connections of those who wait for the last end.
pub(super) fn pause(
    order: &Order,
    front: &mut Front<'_>,
    waiting: &mut Option<Server>,
    pause: Duration,
) -> Paused {
    let until = Instant::now() + pause;
    // Without a place for the socket nobody can ask; the pause is short.
    let dir = RunDir::create(&order.runtime, order.id.as_str()).ok();
    let mut server = dir.as_ref().and_then(|dir| Server::new(dir).ok());
    if let (Some(server), Some(earlier)) = (&mut server, waiting.take()) {
        server.adopt(earlier);
    }
    let mut paused = Paused::Over;
    loop {
        let mut stop = front.interrupted().is_some();
        let mut at_once = false;
        if let Some(server) = &mut server {
            server.serve(&mut |request| match request {
                Request::Stop { .. } | Request::Kill { signal: None } => {
                    stop = true;
                    Verdict::Answer(Answer::done())
                }
                Request::Restart { .. } => {
                    at_once = true;
                    Verdict::Answer(Answer::done())
                }
                Request::Wait => Verdict::Later,
                _ => Verdict::Answer(Answer::refused("it is being restarted")),
            });
        }
        if stop {
            paused = Paused::Stopped;
            break;
        }
        let left = until.saturating_duration_since(Instant::now());
        if at_once || left.is_zero() {
            break;
        }
        let mut fds = vec![PollFd::new(&front.signals, PollFlags::IN)];
        if let Some(server) = &server {
            server.poll_fds(&mut fds);
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        // An interrupted wait is a wait that is over.
        let _ = poll(&mut fds, Some(&timeout));
    }
    *waiting = server;
    if let Some(dir) = dir {
        // What cannot be removed is in the way of the next start, which says so.
        let _ = dir.remove();
    }
    paused
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{RestartPolicy, Restarter};

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_again_after_a_steady_run() {
        let mut restarter = Restarter::new(RestartPolicy::Always);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            pauses.push(restarter.after(0, Duration::from_secs(1)).unwrap());
        }
        let ms: Vec<u128> = pauses.iter().map(Duration::as_millis).collect();
        assert_eq!(
            ms,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000
            ]
        );
        let after = restarter.after(0, Duration::from_secs(10)).unwrap();
        assert_eq!(after.as_millis(), 100);
        assert_eq!(restarter.count(), 13);
    }

    #[test]
    fn a_limit_is_a_limit() {
        let mut restarter = Restarter::new(RestartPolicy::OnFailure { most: 2 });
        let ran = Duration::from_secs(60);
        assert!(restarter.after(1, ran).is_some() && restarter.after(1, ran).is_some());
        assert!(restarter.after(1, ran).is_none());
        assert_eq!(restarter.count(), 2);
    }
}
