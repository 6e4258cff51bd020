//! Everything that a test's processes have started, orphans included, and numbers that look random.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};

/// The descendants of this process. Orphans among them come to it as to their init, so none is lost; a test that asks for
/// this has to be alone in its process or to take turns.
#[derive(Debug)]
pub struct Family(());

impl Family {
    /// Adopts orphans from now on.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn new() -> Self {
        set_child_subreaper(Some(getpid())).expect("the kernel adopts for us");
        Self(())
    }

    /// Those that live; zombies do not.
    #[must_use]
    pub fn living(&self) -> Vec<Pid> {
        let stats: Vec<(i32, i32)> = fs_err::read_dir("/proc")
            .expect("/proc is mounted")
            .flatten()
            .filter_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                // The name of the program stands in parentheses and may hold anything.
                let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
                let state = fields.next()?;
                let parent = fields.next()?.parse().ok()?;
                (state != "Z" && state != "X").then_some((pid, parent))
            })
            .collect();
        let mut known = vec![getpid().as_raw_nonzero().get()];
        let mut at = 0;
        while let Some(parent) = known.get(at).copied() {
            known.extend(stats.iter().filter(|of| of.1 == parent).map(|of| of.0));
            at += 1;
        }
        known.drain(..1);
        known.into_iter().filter_map(Pid::from_raw).collect()
    }

    /// Waits until nobody is left, and says who is when the time is over.
    ///
    /// # Errors
    /// The command lines of those that still live.
    pub fn gone(&self, limit: Duration) -> Result<(), Vec<String>> {
        let begin = Instant::now();
        loop {
            while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
            let living = self.living();
            if living.is_empty() {
                return Ok(());
            }
            if begin.elapsed() > limit {
                return Err(living.into_iter().map(command_line).collect());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Default for Family {
    fn default() -> Self {
        Self::new()
    }
}

fn command_line(pid: Pid) -> String {
    let number = pid.as_raw_nonzero();
    let line = fs_err::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    format!("{number} {line}")
}

/// Numbers from a seed: `FIREBUILD_TEST_SEED`, else another one each time. A test says the seed when it fails.
#[derive(Debug)]
pub struct Dice {
    /// What the numbers are made of.
    pub seed: u64,
    state: u64,
}

impl Dice {
    /// With the seed of the environment, or of the clock.
    ///
    /// # Panics
    /// When the environment has a seed that is no number.
    #[must_use]
    pub fn new() -> Self {
        let seed = match std::env::var("FIREBUILD_TEST_SEED") {
            Ok(text) => text.parse().expect("FIREBUILD_TEST_SEED is a number"),
            Err(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |time| u64::from(time.subsec_nanos())),
        };
        Self {
            seed,
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % bound.max(1)
    }

    /// A part of a time, up to a fifth more than all of it.
    pub fn part_of(&mut self, time: Duration) -> Duration {
        let part = u32::try_from(self.below(1200)).unwrap_or(0);
        time * part / 1000
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}

/// How often a test of chance tries: `FIREBUILD_TEST_ROUNDS`, else `default`.
///
/// # Panics
/// When the environment says something that is no number.
#[must_use]
pub fn rounds(default: usize) -> usize {
    std::env::var("FIREBUILD_TEST_ROUNDS").map_or(default, |text| {
        text.parse().expect("FIREBUILD_TEST_ROUNDS is a number")
    })
}
