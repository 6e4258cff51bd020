//! `firebuild stats`: what VMs use, by what their guests say.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use firebuild_guest_proto::SessionWork;
use firebuild_guest_proto::sample::Sample;

use super::connect::running;
use super::quiet::Quiet;
use crate::instance::InstanceError;
use crate::paths::Paths;

/// The longest line of a sample.
const LONGEST: u64 = 16 << 10;
/// How long a guest may take for a single sample: one that is paused or hostile says nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// A stream of samples of one VM.
#[derive(Debug)]
pub struct Stats {
    lines: BufReader<Quiet>,
}

impl Stats {
    /// Begins to ask a VM: for a sample each `interval`, or a single one without.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`; `NotRunning`; `Control` when the VM refuses; `Io`.
    pub fn begin(
        paths: &Paths,
        wanted: &str,
        interval: Option<Duration>,
    ) -> Result<Self, InstanceError> {
        let instance = running(paths, wanted)?;
        let milliseconds = interval.map_or(0, |interval| interval.as_millis());
        let work = SessionWork::Stats {
            interval_ms: u64::try_from(milliseconds).unwrap_or(u64::MAX),
        };
        Ok(Self {
            lines: BufReader::new(Quiet::begin(&instance, &work, Some(PATIENCE))?),
        })
    }

    /// The next sample; waits for it. `None` at the end, and for a guest that makes no sense.
    pub fn next_sample(&mut self) -> Option<Sample> {
        let mut line = Vec::new();
        let read = (&mut self.lines).take(LONGEST).read_until(b'\n', &mut line);
        let count = read.ok()?;
        if count == 0 {
            return None;
        }
        serde_json::from_slice(&line).ok()
    }
}

/// A single sample of a VM; `None` when its guest gives none in time.
///
/// # Errors
/// As [`Stats::begin`].
pub fn stats(paths: &Paths, wanted: &str) -> Result<Option<Sample>, InstanceError> {
    Ok(Stats::begin(paths, wanted, None)?.next_sample())
}
