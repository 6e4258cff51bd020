//! Time and entropy: what a machine that has just been made knows too little of.

use firebuild_sys::entropy;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::journal::Journal;

/// A difference to the host's clock below this one is not worth a step, in nanoseconds.
const TOLERANCE_NS: u64 = 2_000_000;

/// A difference below this one may be the way that the time has come, in nanoseconds.
const DRIFT_NS: u64 = 100_000_000;

/// Nanoseconds since 1970.
pub(crate) fn unix_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

/// Nanoseconds since the kernel started.
pub(crate) fn uptime_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Boottime))
}

fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Sets the clock to the host's time.
pub(crate) fn set(unix: u64, journal: &mut Journal) {
    if unix_ns().abs_diff(unix) < TOLERANCE_NS {
        return;
    }
    let time = Timespec {
        tv_sec: i64::try_from(unix / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(unix % 1_000_000_000).unwrap_or(0),
    };
    if let Err(error) = clock_settime(ClockId::Realtime, time) {
        journal.warning(&format!("cannot set the clock: {error}"));
    }
}

/// Follows the host's time while the machine runs. What the message has been on its way is no reason for a step.
pub(crate) fn follow(unix: u64, journal: &mut Journal) {
    if unix_ns().abs_diff(unix) >= DRIFT_NS {
        set(unix, journal);
    }
}

/// Credits the host's random bytes to the kernel's pool.
pub(crate) fn add_entropy(bytes: &[u8], journal: &mut Journal) {
    if bytes.is_empty() {
        return;
    }
    let device = fs_err::OpenOptions::new().write(true).open("/dev/random");
    for chunk in bytes.chunks(entropy::MAX_BYTES) {
        let outcome = match &device {
            Ok(device) => entropy::add(device.file(), chunk).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(problem) = outcome {
            journal.warning(&format!("cannot credit entropy: {problem}"));
            return;
        }
    }
}
