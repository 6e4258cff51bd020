//! What the machine uses, as its kernel tells it.

use std::io::Write as _;
use std::time::{Duration, Instant};

use firebuild_guest_proto::sample::Sample;

use super::processes;
use crate::clock;

/// `USER_HZ` is 100 on every architecture that matters: a tick of `/proc/stat` in nanoseconds.
const TICK_NS: u64 = 10_000_000;
/// What `/proc/diskstats` counts in.
const SECTOR_BYTES: u64 = 512;

/// Writes a sample a line; with an interval of 0 a single one.
pub(super) fn stream(interval_ms: u64) -> Result<(), String> {
    let mut next = Instant::now();
    loop {
        let mut line = serde_json::to_vec(&take()).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(&line).and_then(|()| stdout.flush());
        if interval_ms == 0 {
            return written.map_err(|error| error.to_string());
        }
        // Nobody listens any more.
        if written.is_err() {
            return Ok(());
        }
        next += Duration::from_millis(interval_ms);
        // A reader that was away gets no backlog.
        let now = Instant::now();
        next = next.max(now);
        std::thread::sleep(next - now);
    }
}

fn take() -> Sample {
    let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
    let mut sample = Sample {
        uptime_ns: clock::uptime_ns(),
        processes: processes::count(),
        ..Sample::default()
    };
    cpu(&read("/proc/stat"), &mut sample);
    memory(&read("/proc/meminfo"), &mut sample);
    disks(&read("/proc/diskstats"), &mut sample);
    network(&read("/proc/net/dev"), &mut sample);
    if let Ok(root) = rustix::fs::statvfs("/") {
        sample.disk_total = root.f_blocks.saturating_mul(root.f_frsize);
        sample.disk_used = root
            .f_blocks
            .saturating_sub(root.f_bfree)
            .saturating_mul(root.f_frsize);
    }
    sample
}

/// `proc_stat(5)`: user nice system idle iowait irq softirq steal guest guest_nice; guests are in user and nice already.
fn cpu(text: &str, sample: &mut Sample) {
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("cpu") else {
            continue;
        };
        if let Some(all) = rest.strip_prefix(' ') {
            let ticks = numbers(all);
            let sum =
                |places: &[usize]| -> u64 { places.iter().filter_map(|at| ticks.get(*at)).sum() };
            sample.cpu_ns = sum(&[0, 1, 2, 5, 6]).saturating_mul(TICK_NS);
            sample.cpu_system_ns = sum(&[2, 5, 6]).saturating_mul(TICK_NS);
        } else {
            sample.cpus += 1;
        }
    }
}

fn memory(text: &str, sample: &mut Sample) {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| numbers(rest.trim_start_matches(':')).first().copied());
        kib.unwrap_or(0).saturating_mul(1024)
    };
    sample.memory_total = field("MemTotal");
    sample.memory_used = sample.memory_total.saturating_sub(field("MemAvailable"));
    sample.memory_cache = field("Cached");
}

/// Whole virtio disks (`vda`); what is mounted from them in loops would count twice.
fn disks(text: &str, sample: &mut Sample) {
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_disk = words.get(2).is_some_and(|name| {
            name.strip_prefix("vd")
                .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_lowercase()))
        });
        if is_disk {
            let sectors = |at: usize| -> u64 {
                words
                    .get(at)
                    .and_then(|word| word.parse().ok())
                    .unwrap_or(0)
            };
            sample.disk_read += sectors(5).saturating_mul(SECTOR_BYTES);
            sample.disk_written += sectors(9).saturating_mul(SECTOR_BYTES);
        }
    }
}

fn network(text: &str, sample: &mut Sample) {
    for (name, rest) in text.lines().filter_map(|line| line.split_once(':')) {
        let counts = numbers(rest);
        if name.trim() != "lo" && counts.len() > 8 {
            sample.net_received += counts[0];
            sample.net_sent += counts[8];
        }
    }
}

/// The numbers at the beginning of a text.
fn numbers(text: &str) -> Vec<u64> {
    text.split_ascii_whitespace()
        .map_while(|word| word.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use firebuild_guest_proto::sample::Sample;

    use super::{cpu, disks, memory, network};

    #[test]
    fn what_the_kernel_tells_is_added_up() {
        let mut sample = Sample::default();
        cpu(
            "cpu  10 2 30 400 5 6 7 0 3 0\ncpu0 5 1 15 200 2 3 3 0 0 0\ncpu1 5 1 15 200 3 3 4 0 0 0\nintr 1\n",
            &mut sample,
        );
        assert_eq!(
            (sample.cpus, sample.cpu_ns, sample.cpu_system_ns),
            (2, 550_000_000, 430_000_000)
        );
        memory(
            "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  600 kB\nCached:  50 kB\nSwapCached: 9 kB\n",
            &mut sample,
        );
        assert_eq!(
            (sample.memory_total, sample.memory_used, sample.memory_cache),
            (1_024_000, 409_600, 51_200)
        );
        disks(
            " 254 0 vda 1 0 100 0 2 0 50 0 0 0 0\n 254 1 vda1 1 0 100 0 2 0 50 0 0 0 0\n 254 16 vdb 0 0 1 0 0 0 2 0 0 0 0\n 7 0 loop0 1 0 9 0 0 0 9 0\n",
            &mut sample,
        );
        assert_eq!(
            (sample.disk_read, sample.disk_written),
            (101 * 512, 52 * 512)
        );
        network(
            "Inter-| Receive\n face |bytes\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n",
            &mut sample,
        );
        assert_eq!((sample.net_received, sample.net_sent), (100, 200));
        let before = sample.clone();
        cpu("", &mut sample);
        disks("vda", &mut sample);
        network("eth0: x", &mut sample);
        assert_eq!(sample, before, "what is not there counts nothing");
    }
}
