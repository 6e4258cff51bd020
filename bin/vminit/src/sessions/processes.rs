//! The processes of the machine, from `/proc`; without those of the kernel and of this program.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use firebuild_accounts::Accounts;
use firebuild_guest_proto::sample::{MAX_COMMAND_BYTES, MAX_PROCESSES, ProcessInfo, ProcessList};

use crate::user;

/// A tick of `/proc/PID/stat` in milliseconds.
const TICK_MS: u64 = 10;
/// The bit of a process's flags that marks a thread of the kernel (`PF_KTHREAD`, `include/linux/sched.h`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Writes the list.
pub(super) fn list() -> Result<(), String> {
    let accounts = user::accounts();
    let boot = boot_time();
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut all = ProcessList::default();
    for (pid, place, stat) in each() {
        if all.processes.len() >= MAX_PROCESSES {
            all.more += 1;
            continue;
        }
        all.processes.push(ProcessInfo {
            user: owner(&place, &accounts),
            pid,
            ppid: u32::try_from(stat.number(1)).unwrap_or(0),
            cpu_ms: (stat.number(11) + stat.number(12)).saturating_mul(TICK_MS),
            memory: stat.number(21).saturating_mul(page),
            started_unix: boot + stat.number(19) * TICK_MS / 1000,
            terminal: terminal(stat.number(4)),
            command: command(&place, &stat.name),
        });
    }
    let text = serde_json::to_vec(&all).map_err(|error| error.to_string())?;
    std::io::stdout()
        .write_all(&text)
        .map_err(|error| error.to_string())
}

/// How many there are.
pub(super) fn count() -> u64 {
    u64::try_from(each().count()).unwrap_or(u64::MAX)
}

/// Each by its id; those that end meanwhile are left out.
fn each() -> impl Iterator<Item = (u32, PathBuf, Stat)> {
    let own = identity(Path::new("/proc/self/exe"));
    let mut pids: Vec<u32> = fs_err::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter().filter_map(move |pid| {
        let place = PathBuf::from(format!("/proc/{pid}"));
        let stat = Stat::parse(&fs_err::read(place.join("stat")).ok()?)?;
        let is_kernel = stat.number(6) & KERNEL_THREAD != 0;
        let is_ours = own.is_some() && identity(&place.join("exe")) == own;
        (!is_kernel && !is_ours).then_some((pid, place, stat))
    })
}

/// What a link to a program leads to.
fn identity(exe: &Path) -> Option<(u64, u64)> {
    let file = fs_err::metadata(exe).ok()?;
    Some((file.dev(), file.ino()))
}

/// `proc_pid_stat(5)`: what stands in parentheses may hold anything, so the fields are counted from behind it.
struct Stat {
    name: String,
    fields: Vec<u64>,
}

impl Stat {
    fn parse(bytes: &[u8]) -> Option<Stat> {
        let text = String::from_utf8_lossy(bytes);
        let (before, after) = text.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        // The state is a letter and counts as 0; numbers below zero do too.
        let fields = after
            .split_ascii_whitespace()
            .map(|word| word.parse().unwrap_or(0));
        Some(Stat {
            name: name.to_owned(),
            fields: fields.collect(),
        })
    }

    /// A field by its place behind the name: 0 state, 1 parent, 4 terminal, 6 flags, 11 and 12 times, 19 start, 21 pages.
    fn number(&self, at: usize) -> u64 {
        self.fields.get(at).copied().unwrap_or(0)
    }
}

fn owner(place: &Path, accounts: &Accounts) -> String {
    let Ok(file) = fs_err::metadata(place) else {
        return String::new();
    };
    let known = accounts.user_by_uid(file.uid());
    known.map_or_else(
        || file.uid().to_string(),
        |user| user.name.to_string_lossy().into_owned(),
    )
}

fn command(place: &Path, name: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs_err::File::open(place.join("cmdline")) {
        let most = u64::try_from(MAX_COMMAND_BYTES).unwrap_or(u64::MAX);
        let _ = file.take(most).read_to_end(&mut bytes);
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return format!("[{name}]");
    }
    let text = String::from_utf8_lossy(&bytes);
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The name of a terminal by its number (`admin-guide/devices.txt` of the kernel).
fn terminal(number: u64) -> String {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xf_ff00);
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor >= 64 => format!("ttyS{}", minor - 64),
        4 => format!("tty{minor}"),
        5 if minor == 1 => "console".to_owned(),
        229 => format!("hvc{minor}"),
        _ => String::new(),
    }
}

/// When the kernel started, in seconds since 1970.
fn boot_time() -> u64 {
    let text = fs_err::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|time| time.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Stat, each, terminal};

    #[test]
    fn a_name_may_hold_anything() {
        let stat = Stat::parse(
            b"7 (a) R 1 (b) S 5 7 7 34816 -1 4194304 1 2 3 4 50 60 0 0 20 0 1 0 700 8 9",
        )
        .unwrap();
        assert_eq!(stat.name, "a) R 1 (b");
        let at = |place| stat.number(place);
        assert_eq!(
            (at(1), at(4), at(11), at(12), at(19), at(21)),
            (5, 34816, 50, 60, 700, 9)
        );
        assert_eq!(stat.number(99), 0);
        assert!(Stat::parse(b"no parentheses").is_none());
    }

    #[test]
    fn terminals_have_names() {
        let names = [
            (0, ""),
            (34816, "pts/0"),
            (34817, "pts/1"),
            (1088, "ttyS0"),
            (1281, "console"),
        ];
        for (number, name) in names {
            assert_eq!(terminal(number), name);
        }
    }

    #[test]
    fn other_programs_are_seen_and_this_one_is_not() {
        let mut child = std::process::Command::new("sleep")
            .arg("5")
            .spawn()
            .unwrap();
        let seen: Vec<u32> = each().map(|(pid, _, _)| pid).collect();
        assert!(seen.contains(&child.id()));
        assert!(!seen.contains(&std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
