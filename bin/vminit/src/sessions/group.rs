//! A control group for the processes of one session, so that all of them can be killed, wherever they have gone.
//!
//! Only version 2 is used, and none of its controllers: groups without controllers may stand beside processes of the
//! root, and what an init of the image does with its own is not touched.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

/// Where the groups are.
const ROOT: &str = "/sys/fs/cgroup";

/// A group; it is removed when nothing is in it any more.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes one; none where the kernel has no groups.
    pub(super) fn make(session: u32) -> Option<Group> {
        let path = PathBuf::from(ROOT).join(format!("vminit.{session}"));
        fs_err::create_dir(&path).ok()?;
        let group = Group { path };
        // A kernel before 5.14 could not kill it whole; and a directory that is no group has no such file.
        if group.path.join("cgroup.kill").exists() {
            Some(group)
        } else {
            group.remove();
            None
        }
    }

    /// What a process writes `0` to, to enter.
    pub(super) fn door(&self) -> Option<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::open(self.path.join("cgroup.procs"), flags, Mode::empty()).ok()
    }

    /// Kills everything in it; says whether it could.
    pub(super) fn kill(&self) -> bool {
        fs_err::write(self.path.join("cgroup.kill"), "1").is_ok()
    }

    /// Removes it; says whether it is gone. It stays while a process is in it.
    pub(super) fn remove(&self) -> bool {
        match fs_err::remove_dir(&self.path) {
            Ok(()) => true,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }
}
