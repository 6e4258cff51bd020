//! `firebuild stats`: what VMs use, as a table that refreshes, or as JSON.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use firebuild_engine::instance::Record;
use firebuild_engine::paths::Paths;
use firebuild_engine::session::{BalloonStatistics, Sample, Stats};
use firebuild_engine::{inspect, ls};
use serde_json::json;

use super::Done;
use crate::args::{Format, StatsArgs};
use crate::failure::Failure;
use crate::report::output;
use crate::report::table::{Table, size};

/// How often samples come and the table is drawn.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between the two samples that a rate needs, where there is to be only one line.
const SHORT: Duration = Duration::from_millis(500);
/// How long a VM may take for them.
const PATIENCE: Duration = Duration::from_secs(6);
/// Clears the screen from the top.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What is known of one VM.
#[derive(Debug, Default)]
struct Seen {
    name: String,
    before: Option<Sample>,
    last: Option<Sample>,
    balloon: Option<BalloonStatistics>,
    over: bool,
}

/// News of a VM, by its id.
type News = (String, Option<(Sample, Option<BalloonStatistics>)>);

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &StatsArgs) -> Done {
    let (news, samples) = channel();
    let mut seen = BTreeMap::new();
    let watching = Watching {
        paths,
        interval: if args.no_stream { SHORT } else { INTERVAL },
        with_balloon: args.format == Format::Json,
        news,
    };
    if args.vms.is_empty() {
        watching.look(&mut seen)?;
    }
    for vm in &args.vms {
        // By its own id, so that one that is named twice is one.
        let value = inspect::inspect(paths, vm)?;
        let text = |key: &str| {
            value
                .pointer(key)
                .and_then(|text| text.as_str())
                .unwrap_or_default()
        };
        let name = text("/Name").trim_start_matches('/').to_owned();
        watching.watch(text("/Id"), &name, &mut seen)?;
    }
    if args.no_stream {
        once(&samples, &mut seen);
        print(&seen, args.format, false)?;
        return Ok(ExitCode::SUCCESS);
    }
    let clears = args.format == Format::Table && std::io::stdout().is_terminal();
    loop {
        let until = Instant::now() + INTERVAL;
        while let Ok(news) = samples.recv_timeout(until.saturating_duration_since(Instant::now())) {
            take(news, &mut seen);
        }
        seen.retain(|_, vm: &mut Seen| !vm.over);
        if args.vms.is_empty() {
            watching.look(&mut seen)?;
        } else if seen.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        print(&seen, args.format, clears)?;
    }
}

/// How VMs are watched.
struct Watching<'a> {
    paths: &'a Paths,
    interval: Duration,
    /// Whether their balloons are asked, too.
    with_balloon: bool,
    news: Sender<News>,
}

impl Watching<'_> {
    /// Begins to watch what runs and is not watched yet. One that has just ended is none.
    fn look(&self, seen: &mut BTreeMap<String, Seen>) -> Result<(), Failure> {
        for listed in ls::ls(self.paths, false)?.instances {
            let Record { id, name, .. } = &listed.record;
            if !seen.contains_key(id.as_str()) {
                let _ = self.watch(id.as_str(), name, seen);
            }
        }
        Ok(())
    }

    /// Watches a VM in a thread of its own: one that does not answer holds up no other.
    fn watch(
        &self,
        id: &str,
        name: &str,
        seen: &mut BTreeMap<String, Seen>,
    ) -> Result<(), Failure> {
        let begun = Stats::begin(self.paths, id, Some(self.interval));
        let vm = Seen {
            name: name.to_owned(),
            ..Seen::default()
        };
        // One that is paused runs too; it has no numbers.
        let mut stats = match begun {
            Ok(stats) => stats,
            Err(error)
                if error.kind() == firebuild_engine::instance::InstanceErrorKind::Control =>
            {
                seen.insert(id.to_owned(), vm);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        seen.insert(id.to_owned(), vm);
        let (id, news, with_balloon) = (id.to_owned(), self.news.clone(), self.with_balloon);
        let listen = move || {
            loop {
                let told = stats.next_sample().map(|sample| {
                    let balloon = with_balloon.then(|| stats.balloon()).flatten();
                    (sample, balloon)
                });
                let is_last = told.is_none();
                if news.send((id.clone(), told)).is_err() || is_last {
                    return;
                }
            }
        };
        std::thread::Builder::new().spawn(listen)?;
        Ok(())
    }
}

fn take((id, told): News, seen: &mut BTreeMap<String, Seen>) {
    let Some(vm) = seen.get_mut(&id) else { return };
    match told {
        Some((sample, balloon)) => {
            vm.before = vm.last.replace(sample);
            vm.balloon = balloon;
        }
        None => vm.over = true,
    }
}

/// Waits until everybody has given two samples, or has had the time to.
fn once(samples: &Receiver<News>, seen: &mut BTreeMap<String, Seen>) {
    let until = Instant::now() + PATIENCE;
    while seen.values().any(|vm| vm.before.is_none() && !vm.over) {
        match samples.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(news) => take(news, seen),
            Err(_) => return,
        }
    }
}

fn print(seen: &BTreeMap<String, Seen>, format: Format, clears: bool) -> Result<(), Failure> {
    if format == Format::Json {
        for (id, vm) in seen {
            output::line(&serde_json::to_string(&line(id, vm))?);
        }
        return Ok(());
    }
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "NET I/O",
        "BLOCK I/O",
        "DISK",
        "PIDS",
    ]);
    for (id, vm) in seen {
        let row = Row::of(vm);
        table.row(vec![
            id[..id.len().min(12)].to_owned(),
            vm.name.clone(),
            row.cpu,
            row.memory,
            row.memory_percent,
            row.network,
            row.disks,
            row.disk,
            row.processes,
        ]);
    }
    let text = table.text();
    output::raw(
        if clears {
            CLEAR.to_owned() + &text
        } else {
            text
        }
        .as_bytes(),
    );
    Ok(())
}

/// Docker's keys, and the numbers themselves.
fn line(id: &str, vm: &Seen) -> serde_json::Value {
    let row = Row::of(vm);
    json!({
        "ID": id[..id.len().min(12)], "Name": vm.name, "CPUPerc": row.cpu, "MemUsage": row.memory,
        "MemPerc": row.memory_percent, "NetIO": row.network, "BlockIO": row.disks, "Disk": row.disk,
        "PIDs": row.processes, "Sample": vm.last, "Balloon": vm.balloon,
    })
}

/// The cells of a row; `--` for what is not known.
struct Row {
    cpu: String,
    memory: String,
    memory_percent: String,
    network: String,
    disks: String,
    disk: String,
    processes: String,
}

impl Row {
    fn of(vm: &Seen) -> Row {
        let unknown = || "--".to_owned();
        let Some(last) = &vm.last else {
            return Row {
                cpu: unknown(),
                memory: "-- / --".to_owned(),
                memory_percent: unknown(),
                network: "-- / --".to_owned(),
                disks: "-- / --".to_owned(),
                disk: "-- / --".to_owned(),
                processes: unknown(),
            };
        };
        let both = |one: u64, other: u64| format!("{} / {}", size(one), size(other));
        Row {
            cpu: vm.before.as_ref().map_or_else(unknown, |before| {
                let time = last.uptime_ns.saturating_sub(before.uptime_ns);
                percent(last.cpu_ns.saturating_sub(before.cpu_ns), time)
            }),
            memory: both(last.memory_used, last.memory_total),
            memory_percent: percent(last.memory_used, last.memory_total),
            network: both(last.net_received, last.net_sent),
            disks: both(last.disk_read, last.disk_written),
            disk: both(last.disk_used, last.disk_total),
            processes: last.processes.to_string(),
        }
    }
}

/// Two digits behind the point, as Docker prints it; more than one processor gives more than 100.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0.00%".to_owned();
    }
    let hundredths = u128::from(part) * 10_000 / u128::from(whole);
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use firebuild_engine::session::Sample;

    use super::{Row, Seen, percent};

    #[test]
    fn rates_are_differences() {
        let before = Sample {
            uptime_ns: 1_000_000_000,
            cpu_ns: 500_000_000,
            ..Sample::default()
        };
        let last = Sample {
            uptime_ns: 2_000_000_000,
            cpu_ns: 2_012_300_000,
            memory_used: 512 << 20,
            memory_total: 1 << 30,
            processes: 3,
            ..Sample::default()
        };
        let mut vm = Seen {
            before: Some(before),
            last: Some(last),
            ..Seen::default()
        };
        let row = Row::of(&vm);
        assert_eq!(row.cpu, "151.23%");
        assert_eq!(
            (row.memory_percent.as_str(), row.processes.as_str()),
            ("50.00%", "3")
        );
        vm.before = None;
        assert_eq!(Row::of(&vm).cpu, "--");
        assert_eq!(Row::of(&Seen::default()).memory, "-- / --");
        assert_eq!(percent(1, 0), "0.00%");
        assert_eq!(percent(u64::MAX, 1), "1844674407370955161500.00%");
    }
}
