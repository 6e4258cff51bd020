//! How much memory processes use at most, together.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Fallible;

/// How often is looked.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs a command and gives the largest sum, in bytes, of the proportional set sizes of it, of the daemon that works for
/// it, and of all that they have started.
pub(super) fn peak(mut command: Command, daemon: Option<u32>) -> Fallible<u64> {
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let mut roots = vec![child.id()];
    roots.extend(daemon);
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak = peak.max(sum(&roots));
        std::thread::sleep(PAUSE);
    };
    if !status.success() {
        return Err(format!("{command:?} failed").into());
    }
    Ok(peak)
}

/// The sizes of all processes below `roots`. What ends meanwhile counts for nothing.
fn sum(roots: &[u32]) -> u64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let Ok(entries) = fs_err::read_dir("/proc") else {
        return 0;
    };
    for entry in entries.flatten() {
        if let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            && let Some(parent) = parent(pid)
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut todo = roots.to_vec();
    let mut total = 0;
    while let Some(pid) = todo.pop() {
        total += size(pid).unwrap_or(0);
        todo.extend(children.remove(&pid).unwrap_or_default());
    }
    total
}

/// The parent of a process, the second word after its name in brackets (`proc_pid_stat(5)`).
fn parent(pid: u32) -> Option<u32> {
    let text = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn size(pid: u32) -> Option<u64> {
    let text = fs_err::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn what_a_process_and_its_children_hold_is_seen() {
        let mut command = Command::new("sh");
        // A child of the child holds some 32 MiB for a while.
        command.args([
            "-c",
            "x=$(head -c 32000000 /dev/zero | tr '\\0' x); sleep 0.2; :",
        ]);
        let peak = super::peak(command, None).unwrap();
        assert!(peak > 25 << 20, "{peak}");
        assert!(super::peak(Command::new("false"), None).is_err());
    }
}
