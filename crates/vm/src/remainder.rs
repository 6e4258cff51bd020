//! What a machine has on this host outside of its run dir: a jail, control groups.
//!
//! A plan lists it, and the launcher writes the list into the run dir **before** anything of it is made. So whoever finds
//! the run dir of a dead machine ([`reclaim`](crate::run_dir::reclaim)) knows what else to remove, at whatever point the
//! owner was killed. A run dir goes last: what could not be removed stays listed, for the next attempt.
//!
//! What the machine has of a private bridge is recorded elsewhere, since it is shared by all users of a network
//! namespace: [`crate::net::bridge`].

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// Name of the list in a run dir.
const FILE: &str = "remainders.json";
/// How long processes of a control group may take to go once they are killed.
const GONE: Duration = Duration::from_secs(2);
/// Nobody lists more.
const LARGEST: u64 = 1 << 20;

/// Something outside of the run dir that belongs to one machine and to nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Remainder {
    /// A directory with everything in it. Symbolic links in it are not followed.
    Directory {
        /// Where.
        path: PathBuf,
    },
    /// Whatever is mounted at a place, be it memory or a file that lies elsewhere; that nothing is, is no error.
    Mount {
        /// Where.
        path: PathBuf,
    },
    /// A directory that machines share, if nothing is in it any more.
    EmptyDirectory {
        /// Where.
        path: PathBuf,
    },
    /// A control group, of version 1 or 2, with those below it. Processes that are still in it are killed.
    ControlGroup {
        /// Its directory.
        path: PathBuf,
    },
}

impl Remainder {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory { path }
            | Self::Mount { path }
            | Self::EmptyDirectory { path }
            | Self::ControlGroup { path } => path,
        }
    }

    /// Removes it. That it is not there is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> io::Result<()> {
        let removed = match self {
            Self::Directory { path } => fs::remove_dir_all(path),
            Self::Mount { path } => detach(path),
            Self::EmptyDirectory { path } => remove_if_empty(path),
            Self::ControlGroup { path } => remove_group(path, Instant::now() + GONE),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// Writes the list into a run dir, at once or not at all. An empty one is no file.
pub(crate) fn record(dir: &Path, list: &[Remainder]) -> io::Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let aside = dir.join(format!("{FILE}.new"));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(&aside)?
        .write_all(&serde_json::to_vec_pretty(list)?)?;
    fs::rename(aside, dir.join(FILE))
}

/// What a run dir lists.
fn recorded(dir: &Path) -> io::Result<Vec<Remainder>> {
    let path = dir.join(FILE);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(found) if !found.is_file() || found.len() > LARGEST => {
            return Err(io::Error::other(format!(
                "{} is no list of what a machine left",
                path.display()
            )));
        }
        found => found.map(drop)?,
    }
    Ok(serde_json::from_slice(&fs::read(&path)?)?)
}

/// Removes everything that a run dir lists, and goes on past what cannot be removed. Gives the first error.
pub(crate) fn remove_recorded(dir: &Path) -> io::Result<()> {
    let mut outcome = Ok(());
    for remainder in recorded(dir)? {
        outcome = outcome.and(remainder.remove());
    }
    outcome
}

/// Takes a mount away, although somebody may still use it.
fn detach(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Nothing is mounted there.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn remove_if_empty(path: &Path) -> io::Result<()> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a control group once it has no processes; `cgroups(7)`.
fn remove_group(path: &Path, deadline: Instant) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path(), deadline)?;
        }
    }
    loop {
        match fs::remove_dir(path) {
            // Processes that end are in it until they are reaped.
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                kill_all(path);
                std::thread::sleep(Duration::from_millis(5));
            }
            removed => return removed,
        }
    }
}

fn kill_all(group: &Path) {
    // A process that is in it now cannot have become another one between the reading and the signal, but by ending first;
    // the group is removed within moments, so its number is not given out again.
    for line in fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
    {
        if let Some(pid) = line.trim().parse().ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Remainder, record, remove_recorded};

    #[test]
    fn what_is_listed_goes_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for dir in ["run", "jail/root/dev", "kept"] {
            fs_err::create_dir_all(at(dir)).unwrap();
        }
        // A link out of the jail is removed, not what it names.
        fs_err::os::unix::fs::symlink(at("kept"), at("jail/root/link")).unwrap();
        let list = [
            Remainder::Directory {
                path: at("never-made"),
            },
            Remainder::Directory { path: at("jail") },
        ];
        record(&at("run"), &list).unwrap();
        remove_recorded(&at("run")).unwrap();
        assert!(!at("jail").exists() && at("kept").exists());
        remove_recorded(&at("run")).unwrap();
        remove_recorded(&at("kept")).unwrap();
    }

    #[test]
    fn the_first_failure_does_not_stop_the_rest() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fs_err::create_dir_all(at("jail")).unwrap();
        fs_err::write(at("file"), "").unwrap();
        let list = [
            Remainder::Directory { path: at("file/x") },
            Remainder::Directory { path: at("jail") },
        ];
        record(temp.path(), &list).unwrap();
        remove_recorded(temp.path()).unwrap_err();
        assert!(!at("jail").exists());
    }
}
