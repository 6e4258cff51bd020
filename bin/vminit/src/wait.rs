//! Waiting for devices: a bounded wait that wakes when the kernel tells of a device.

use std::time::{Duration, Instant};

use firebuild_sys::uevent::Uevents;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::journal::Journal;

/// How long a device may take to appear. Generous: under emulation on a busy host everything takes long.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to sleep at most before looking again, should the kernel say nothing: some changes have no event.
const SAFETY_NET: Duration = Duration::from_millis(250);

/// Waits for devices. Made before the drivers are loaded, so that no event is missed.
#[derive(Debug)]
pub(crate) struct Devices {
    uevents: Option<Uevents>,
}

impl Devices {
    pub(crate) fn watch(journal: &mut Journal) -> Devices {
        let uevents = Uevents::open();
        if let Err(error) = &uevents {
            journal.debug(&format!("cannot listen for devices: {error}"));
        }
        Devices {
            uevents: uevents.ok(),
        }
    }

    /// Asks `look` now and after each event until it finds something or patience ends.
    pub(crate) fn find<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(uevents) = &self.uevents {
                // Before looking: what comes afterwards wakes us.
                let _ = uevents.drain();
            }
            if let Some(found) = look() {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            self.sleep(left.min(SAFETY_NET));
        }
    }

    fn sleep(&self, most: Duration) {
        let timeout = timespec(most);
        let mut fds: Vec<PollFd<'_>> = self
            .uevents
            .iter()
            .map(|uevents| PollFd::new(uevents, PollFlags::IN))
            .collect();
        // An interrupted or failed wait only means that we look early.
        let _ = poll(&mut fds, Some(&timeout));
    }
}

/// A duration as poll(2) takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
