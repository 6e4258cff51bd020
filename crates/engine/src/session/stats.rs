//! `firebuild stats`: what VMs use, by what their guests say.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use firebuild_guest_proto::SessionWork;
use firebuild_guest_proto::sample::Sample;

use firebuild_vm::hardware::BalloonStatistics;

use super::connect::running;
use super::quiet::Quiet;
use crate::instance::{Instance, InstanceError};
use crate::monitor::control::{Request, ask};
use crate::paths::Paths;

/// The longest line of a sample.
const LONGEST: u64 = 16 << 10;
/// How long a guest may take for a single sample: one that is paused or hostile says nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// A stream of samples of one VM.
#[derive(Debug)]
pub struct Stats {
    lines: BufReader<Quiet>,
    instance: Instance,
    /// Whether its VMM has always answered.
    answers: bool,
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
            instance,
            answers: true,
        })
    }

    /// What its balloon tells of the guest's memory now; `None` where there is none that does.
    pub fn balloon(&mut self) -> Option<BalloonStatistics> {
        if !self.answers {
            return None;
        }
        match ask(&self.instance, &Request::Balloon) {
            Ok(answer) => answer?.balloon.map(|balloon| *balloon),
            Err(_) => {
                // One that hangs must not hold up every sample.
                self.answers = false;
                None
            }
        }
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
