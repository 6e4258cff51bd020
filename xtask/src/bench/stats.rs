//! Medians of alternating runs: what disturbs one candidate disturbs all of them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Fallible;

/// One of the things that are compared.
pub(super) struct Candidate<'a> {
    pub(super) name: &'static str,
    /// Removes what an earlier run left; not timed.
    pub(super) prepare: Box<dyn Fn() -> Fallible<()> + 'a>,
    /// A process from its start to its end is what is timed.
    pub(super) command: Box<dyn Fn() -> Command + 'a>,
}

/// The median time of one candidate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Median {
    pub(super) name: &'static str,
    pub(super) time: Duration,
}

/// What takes longer than this is run once and not again: it is far from all others, and nobody waits for it six times.
pub(super) const LONG: Duration = Duration::from_secs(25);

/// Runs all candidates in turns, one round to warm up and `rounds` that count. Each round begins with another one, so
/// that nobody always comes after the same neighbour. Of what is [`LONG`] the first run counts, and there is no other.
pub(super) fn alternate(rounds: usize, candidates: &[Candidate<'_>]) -> Fallible<Vec<Median>> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); candidates.len()];
    for round in 0..=rounds {
        for turn in 0..candidates.len() {
            let at = (round + turn) % candidates.len();
            let (candidate, times) = (&candidates[at], &mut times[at]);
            if times.first().is_some_and(|time| *time > LONG) {
                continue;
            }
            (candidate.prepare)()?;
            // What others wrote shall not be paid for in this run.
            rustix::fs::sync();
            let mut command = (candidate.command)();
            command.stdout(Stdio::null());
            let start = Instant::now();
            let status = command.status()?;
            let time = start.elapsed();
            if !status.success() {
                return Err(format!("{} failed: {command:?}", candidate.name).into());
            }
            if round > 0 || time > LONG {
                times.push(time);
            }
        }
    }
    Ok(candidates
        .iter()
        .zip(times)
        .map(|(candidate, times)| Median {
            name: candidate.name,
            time: median(times),
        })
        .collect())
}

/// Runs a command that is not measured; its standard error is in the error.
pub(super) fn succeed(mut command: Command) -> Fallible<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}

/// The middle one; of an even number the mean of the two in the middle.
pub(super) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    match (times.len(), times.len() / 2) {
        (0, _) => Duration::ZERO,
        (len, half) if len % 2 == 1 => times[half],
        (_, half) => (times[half - 1] + times[half]) / 2,
    }
}

/// How many times as long `time` is as that of the candidate `name`.
pub(super) fn ratio(medians: &[Median], time: Duration, name: &str) -> String {
    medians
        .iter()
        .find(|median| median.name == name)
        .map_or_else(
            || "–".to_owned(),
            |median| format!("{:.2}", time.as_secs_f64() / median.time.as_secs_f64()),
        )
}

/// A time with three digits or so.
pub(super) fn shown(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 100.0 {
        format!("{ms:.1} ms")
    } else if ms < 10_000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        let ms = Duration::from_millis;
        assert_eq!(median(vec![ms(3), ms(1), ms(2)]), ms(2));
        assert_eq!(
            median(vec![ms(4), ms(1), ms(2), ms(3)]),
            Duration::from_micros(2500)
        );
        assert_eq!(median(Vec::new()), Duration::ZERO);
        let medians = [
            Median {
                name: "a",
                time: ms(10),
            },
            Median {
                name: "b",
                time: ms(40),
            },
        ];
        assert_eq!(ratio(&medians, ms(10), "b"), "0.25");
        assert_eq!(ratio(&medians, ms(10), "c"), "–");
        assert_eq!(shown(ms(1500)), "1500 ms");
        assert_eq!(shown(Duration::from_micros(700)), "0.7 ms");
        assert_eq!(shown(ms(34_000)), "34.0 s");
    }
}
