//! How much may pass in one direction: buckets that fill by themselves, and that what passes empties.
//!
//! Whoever carries bytes asks `Meter::wait` before it reads more, and tells with `Meter::count` what it has read. A
//! read may take more than is in the bucket: then there is a debt, and nothing is read until it is paid. So nothing is
//! ever lost, and in the long run no more passes than the bucket's rate; whoever sends is slowed down by full buffers.

use std::time::{Duration, Instant};

/// A bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How much it holds.
    pub size: u64,
    /// From empty to full.
    pub refill: Duration,
    /// What it holds at the start beyond that.
    pub burst: u64,
}

/// Limits of one direction; a missing one is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Bytes of frames.
    pub bytes: Option<Rate>,
    /// Frames.
    pub frames: Option<Rate>,
}

/// What has passed in one direction, beside its limits.
#[derive(Debug)]
pub(crate) struct Meter {
    buckets: [Option<Bucket>; 2],
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// What it held when it was looked at last; negative for a debt.
    level: f64,
    at: Instant,
}

impl Meter {
    pub(crate) fn new(limit: Limit, now: Instant) -> Self {
        let bucket = |rate: Rate| Bucket {
            rate,
            level: rate.size as f64 + rate.burst as f64,
            at: now,
        };
        Self {
            buckets: [limit.bytes.map(bucket), limit.frames.map(bucket)],
        }
    }

    /// How long nothing may be read; `None` when something may.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let waits = self.buckets.iter_mut().flatten();
        waits.filter_map(|bucket| bucket.wait(now)).max()
    }

    /// So much has been read.
    pub(crate) fn count(&mut self, bytes: u64, frames: u64) {
        for (bucket, amount) in self.buckets.iter_mut().zip([bytes, frames]) {
            if let Some(bucket) = bucket {
                bucket.level -= amount as f64;
            }
        }
    }
}

impl Bucket {
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        let per_second = self.rate.size as f64 / self.rate.refill.as_secs_f64().max(1e-3);
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let full = self.rate.size as f64;
        // What is there beyond a full bucket is the burst, which is not filled up again.
        if self.level < full {
            self.level = (self.level + passed * per_second).min(full);
        }
        if self.level > 0.0 {
            return None;
        }
        let seconds = (1.0 - self.level) / per_second.max(1e-9);
        // A poll that comes too early asks again.
        Some(Duration::from_secs_f64(seconds.clamp(1e-3, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Limit, Meter, Rate};

    #[test]
    fn what_passes_is_what_the_bucket_gives() {
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        let rate = Rate {
            size: 1000,
            refill: Duration::from_millis(100),
            burst: 500,
        };
        let limit = Limit {
            bytes: Some(rate),
            frames: None,
        };
        let mut meter = Meter::new(limit, begin);
        assert_eq!(meter.wait(at(0)), None);
        // The whole bucket, the burst, and as much again as a debt.
        meter.count(2500, 1);
        let wait = meter.wait(at(0)).unwrap();
        assert!(
            wait > Duration::from_millis(99) && wait < Duration::from_millis(102),
            "{wait:?}"
        );
        assert!(meter.wait(at(99)).is_some());
        assert_eq!(meter.wait(at(101)), None);
        // Never fuller than full: the burst was for once.
        assert_eq!(meter.wait(at(10_000)), None);
        meter.count(1000, 1);
        assert!(meter.wait(at(10_000)).is_some());

        // Over a second: the rate.
        let mut passed = 0;
        for milliseconds in 20_000..21_000 {
            while meter.wait(at(milliseconds)).is_none() {
                meter.count(100, 1);
                passed += 100;
            }
        }
        assert!((10_000..=11_200).contains(&passed), "{passed}");
    }

    #[test]
    fn frames_are_counted_beside_bytes() {
        let now = Instant::now();
        let rate = Rate {
            size: 2,
            refill: Duration::from_secs(1),
            burst: 0,
        };
        let mut meter = Meter::new(
            Limit {
                bytes: None,
                frames: Some(rate),
            },
            now,
        );
        meter.count(1 << 30, 1);
        assert_eq!(meter.wait(now), None);
        meter.count(1, 1);
        assert!(meter.wait(now).is_some());
        let mut free = Meter::new(Limit::default(), now);
        free.count(u64::MAX, u64::MAX);
        assert_eq!(free.wait(now), None);
    }
}
