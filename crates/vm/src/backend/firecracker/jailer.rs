//! Firecracker's jailer: a directory of its own for each VMM, a user of its own, a cgroup.
//!
//! ```text
//! <chroot base>/                       shared; stays
//! └── <name of the program>/           shared by all machines of that program; goes when it is empty
//!     └── <short id>/        0700      the machine's, gone with it
//!         └── root/                    what the VMM sees as /; the jailer gives it to the machine's user
//!             ├── firecracker          a copy, made by the jailer
//!             ├── firecracker.pid dev/ run/     made by the jailer
//!             ├── kernel disk0 …       the files themselves, seen here too (hard link, else bind mount)
//!             ├── memory/initrd        tmpfs: it holds secrets
//!             ├── log console          named pipes that the launcher reads
//!             ├── api.sock v.sock      made by Firecracker
//!             └── v.sock_1024          the launcher listens here for the channel
//! ```
//!
//! The short id is the name of the jail, so that paths of sockets stay far below what the kernel takes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::PlanError;
use super::{API_SOCKET, CHANNEL_SOCKET, VSOCK_SOCKET};
use crate::places::{Owner, Place};
use crate::remainder::Remainder;
use crate::run_dir::{MAX_SOCKET_PATH_BYTES, SHORT_ID_BYTES};

/// Where jails are, unless somebody says otherwise (the jailer's own default).
pub const CHROOT_BASE: &str = "/srv/jailer";
/// The directory in a jail that is memory.
pub(super) const MEMORY: &str = "memory";

/// The jailer on this host, and what it shall hold machines to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// The program.
    pub program: PathBuf,
    /// Under which directory jails are made.
    pub chroot_base: PathBuf,
    /// A user and a group for the machine instead of those of its run dir; neither is 0.
    pub user: Option<Owner>,
    /// What the VMM is limited to.
    pub cgroup: Cgroup,
    /// Largest file that the VMM may write, in bytes.
    pub max_file_bytes: Option<u64>,
    /// Most descriptors that the VMM may have open; the jailer's default is 2048.
    pub max_open_files: Option<u64>,
}

/// The cgroup of a jail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// What this host has.
    pub host: CgroupHost,
    /// The cgroup in which the machine's is made, relative to the root; by default named as the program.
    pub parent: Option<String>,
    /// Files of the machine's cgroup and what is written to them, like `memory.max` and `268435456`.
    pub settings: Vec<(String, String)>,
}

/// Which cgroups a host has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupHost {
    /// None that could be found.
    #[default]
    None,
    /// Version 1: a directory for each controller.
    V1(BTreeMap<String, PathBuf>),
    /// Version 2: one directory.
    V2(PathBuf),
}

impl CgroupHost {
    /// The cgroups in a mount table (`/proc/mounts`). With `wanted` only those of that version; by default version 1 where
    /// a host has both, since it is the one with controllers then (`systemd(1)`: hybrid).
    #[must_use]
    pub fn of_mounts(mounts: &str, wanted: Option<u8>) -> Self {
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, dir, kind, options, ..] = fields[..] else {
                continue;
            };
            match kind {
                "cgroup" => {
                    for controller in options.split(',') {
                        v1.entry(controller.to_owned())
                            .or_insert_with(|| PathBuf::from(dir));
                    }
                }
                "cgroup2" if v2.is_none() => v2 = Some(PathBuf::from(dir)),
                _ => {}
            }
        }
        // Options that are no controllers, and hierarchies without one.
        for option in [
            "rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime", "seclabel",
        ] {
            v1.remove(option);
        }
        v1.retain(|name, _| !name.contains('='));
        match (wanted, v2) {
            (Some(1) | None, _) if !v1.is_empty() => Self::V1(v1),
            (Some(2) | None, Some(dir)) => Self::V2(dir),
            _ => Self::None,
        }
    }

    /// Number of its version, as the jailer takes it.
    fn version(&self) -> u8 {
        match self {
            Self::V1(_) => 1,
            Self::None | Self::V2(_) => 2,
        }
    }
}

/// The longest base of jails for a program of this name, in bytes.
#[must_use]
pub fn longest_chroot_base(program: &str) -> usize {
    let below = format!(
        "/{program}/{}/root/{CHANNEL_SOCKET}",
        "0".repeat(SHORT_ID_BYTES)
    );
    MAX_SOCKET_PATH_BYTES.saturating_sub(below.len())
}

/// Where one machine's jail is.
#[derive(Debug)]
pub(super) struct Layout {
    base: PathBuf,
    /// `<base>/<program>`.
    shared: PathBuf,
    /// `<base>/<program>/<id>`.
    own: PathBuf,
    /// What the VMM sees as `/`.
    pub(super) root: PathBuf,
    id: String,
}

impl Layout {
    pub(super) fn new(jail: &Jail, firecracker: &Path, id: &str) -> Result<Self, PlanError> {
        let jail_error = |text: String| Err(PlanError::Jail(text));
        let base = jail.chroot_base.clone();
        let Some(program) = firecracker.file_name().and_then(|name| name.to_str()) else {
            return jail_error(format!(
                "{} has no name that can be a part of a jail's path",
                firecracker.display()
            ));
        };
        if !base.is_absolute() || base.parent().is_none() || base.to_str().is_none() {
            return jail_error(format!(
                "--chroot-base {} is not an absolute path of a directory below /",
                base.display()
            ));
        }
        let shared = base.join(program);
        let own = shared.join(id);
        let root = own.join("root");
        for name in [API_SOCKET, VSOCK_SOCKET, CHANNEL_SOCKET] {
            let path = root.join(name);
            let bytes = path.as_os_str().as_bytes().len();
            if bytes > MAX_SOCKET_PATH_BYTES {
                let most = longest_chroot_base(program);
                return Err(PlanError::PathTooLong {
                    what: "socket",
                    path,
                    bytes,
                    most: MAX_SOCKET_PATH_BYTES,
                    remedy: format!(
                        "give a --chroot-base of at most {most} bytes ({} has {}), or the program a shorter name",
                        base.display(),
                        base.as_os_str().as_bytes().len()
                    ),
                });
            }
        }
        Ok(Self {
            base,
            shared,
            own,
            root,
            id: id.to_owned(),
        })
    }

    /// The directories of the jail.
    pub(super) fn places(&self) -> Vec<Place> {
        let directory = |path: &Path| Place::Directory {
            path: path.to_owned(),
            mode: 0o700,
            owner: None,
        };
        vec![
            Place::Shared {
                path: self.shared.clone(),
            },
            directory(&self.own),
            directory(&self.root),
            Place::Memory {
                path: self.root.join(MEMORY),
            },
        ]
    }

    /// What is to be removed in the end, beside mounts: the jail, the cgroups that the jailer makes, and the directories
    /// that machines share when nobody uses them any more.
    pub(super) fn remainders(&self, jail: &Jail) -> Result<Vec<Remainder>, PlanError> {
        let mut own = vec![Remainder::Directory {
            path: self.own.clone(),
        }];
        let mut shared = vec![self.shared.clone()];
        for parent in self.cgroup_parents(jail)? {
            own.push(Remainder::ControlGroup {
                path: parent.join(&self.id),
            });
            shared.push(parent);
        }
        own.extend(
            shared
                .into_iter()
                .map(|path| Remainder::EmptyDirectory { path }),
        );
        Ok(own)
    }

    /// The directories in which the jailer makes the machine's cgroups.
    fn cgroup_parents(&self, jail: &Jail) -> Result<Vec<PathBuf>, PlanError> {
        let Cgroup {
            host,
            parent,
            settings,
        } = &jail.cgroup;
        let default = self
            .shared
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let parent = parent.as_deref().unwrap_or(&default);
        let plain = Path::new(parent)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain || parent.is_empty() {
            return Err(PlanError::Jail(format!(
                "the parent cgroup {parent:?} is not a relative path without . and .."
            )));
        }
        let mut roots = BTreeSet::new();
        for (file, _) in settings {
            let controller = file.split_once('.').map(|(controller, _)| controller);
            let root = match (host, controller) {
                (_, None) => None,
                (CgroupHost::V1(roots), Some(controller)) => roots.get(controller),
                (CgroupHost::V2(root), Some(_)) => Some(root),
                (CgroupHost::None, Some(_)) => None,
            };
            match root {
                Some(root) => roots.insert(root.clone()),
                None => {
                    return Err(PlanError::Jail(format!(
                        "this host has no cgroup with the file {file:?}; see /proc/mounts"
                    )));
                }
            };
        }
        Ok(roots.into_iter().map(|root| root.join(parent)).collect())
    }

    /// The jailer's command line, up to the program's own arguments.
    pub(super) fn args(
        &self,
        jail: &Jail,
        firecracker: &Path,
        owner: Owner,
        netns: Option<&Path>,
    ) -> Vec<String> {
        let mut args = Vec::new();
        let mut add = |name: &str, value: String| args.extend([name.to_owned(), value]);
        add("--id", self.id.clone());
        add("--exec-file", firecracker.display().to_string());
        add("--uid", owner.uid.to_string());
        add("--gid", owner.gid.to_string());
        add("--chroot-base-dir", self.base.display().to_string());
        if let Some(netns) = netns {
            add("--netns", netns.display().to_string());
        }
        let version = jail.cgroup.host.version();
        add("--cgroup-version", version.to_string());
        if let Some(parent) = &jail.cgroup.parent {
            add("--parent-cgroup", parent.clone());
        }
        for (file, value) in &jail.cgroup.settings {
            add("--cgroup", format!("{file}={value}"));
        }
        if let Some(bytes) = jail.max_file_bytes {
            add("--resource-limit", format!("fsize={bytes}"));
        }
        if let Some(count) = jail.max_open_files {
            add("--resource-limit", format!("no-file={count}"));
        }
        args.push("--".to_owned());
        args
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{CHROOT_BASE, CgroupHost, longest_chroot_base};

    const HYBRID: &str = "\
        tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0\n\
        cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
        cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,xattr,name=systemd 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
    const UNIFIED: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime 0 0\n";

    #[test]
    fn cgroups_are_found() {
        let CgroupHost::V1(found) = CgroupHost::of_mounts(HYBRID, None) else {
            panic!("version 1 has the controllers");
        };
        assert_eq!(found["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found["memory"], Path::new("/sys/fs/cgroup/memory"));
        assert!(!found.contains_key("relatime") && !found.contains_key("name=systemd"));
        let unified = |dir: &str| CgroupHost::V2(PathBuf::from(dir));
        assert_eq!(
            CgroupHost::of_mounts(HYBRID, Some(2)),
            unified("/sys/fs/cgroup/unified")
        );
        assert_eq!(
            CgroupHost::of_mounts(UNIFIED, None),
            unified("/sys/fs/cgroup")
        );
        assert_eq!(CgroupHost::of_mounts(UNIFIED, Some(1)), CgroupHost::None);
        assert_eq!(CgroupHost::of_mounts("", None), CgroupHost::None);
    }

    #[test]
    fn the_usual_base_leaves_room_for_long_names() {
        assert_eq!(longest_chroot_base("firecracker"), 65);
        assert!(longest_chroot_base("firecracker-v1.10.1-x86_64") > CHROOT_BASE.len());
    }
}
