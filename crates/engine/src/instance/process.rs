//! A process, named so that another one with the same number is not taken for it.
//!
//! Numbers are given out again. The start time tells two processes of one number apart within a boot
//! (`proc_pid_stat(5)`, field 22), and a pidfd that is opened *before* the check keeps the number from
//! being given away between the check and the signal.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRef {
    /// Its number.
    pub pid: i32,
    /// Clock ticks from the boot to its start.
    pub start_ticks: u64,
}

impl ProcessRef {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self {
            pid,
            start_ticks: start_ticks(pid)?,
        })
    }

    /// The process that asks.
    pub fn myself() -> Option<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// A descriptor of exactly this process; `None` when it has gone.
    pub fn open(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        (start_ticks(self.pid) == Some(self.start_ticks)).then_some(pidfd)
    }

    /// Kills exactly this process and waits until it has gone, for at most two seconds. Says whether it
    /// was there.
    pub fn kill(&self) -> bool {
        let Some(pidfd) = self.open() else {
            return false;
        };
        // It may end by itself meanwhile.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        let timeout = rustix::event::Timespec {
            tv_sec: 2,
            tv_nsec: 0,
        };
        let mut fds = [rustix::event::PollFd::new(
            &pidfd,
            rustix::event::PollFlags::IN,
        )];
        let _ = rustix::event::poll(&mut fds, Some(&timeout));
        true
    }
}

/// The identity of the host's current boot.
pub fn boot_id() -> String {
    fs_err::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// When a process started; `None` for one that has gone or is a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start(&stat)
}

/// The name in parentheses may hold spaces and parentheses; the last one closes it.
fn parse_start(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok() // field 22; the state is field 3
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{ProcessRef, boot_id, parse_start};

    #[test]
    fn a_process_is_known_by_its_start() {
        let myself = ProcessRef::myself().unwrap();
        assert!(myself.open().is_some());
        let other = ProcessRef {
            start_ticks: myself.start_ticks + 1,
            ..myself
        };
        assert!(other.open().is_none());
        assert!(
            !other.kill(),
            "another process of that number is left alone"
        );
    }

    #[test]
    fn killing_kills_and_a_zombie_is_gone() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = ProcessRef::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(process.kill());
        assert!(process.open().is_none(), "a zombie counts as gone");
        child.wait().unwrap();
        assert!(!process.kill());
    }

    #[test]
    fn odd_names_do_not_confuse() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_start(stat), Some(4242));
        assert_eq!(parse_start("7 (a) Z 1 2 3"), None);
        assert_eq!(parse_start(""), None);
        assert_eq!(boot_id().len(), 36);
    }
}
