//! The user namespace of an ordinary user's build.
//!
//! It is made once: a helper unshares, the maps are put in from outside, and the descriptor keeps the namespace for all
//! steps that follow. They join it, which costs nothing against running `newuidmap` and `newgidmap` for each.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use firebuild_accounts::Accounts;
use firebuild_sys::caps::{self, CapabilitySet};
use firebuild_sys::idmap::{self, Mapping};

use super::process::Running;
use crate::exec::{ExecError, ExecErrorKind};
use firebuild_sandbox::job::{Job, Reply, Scope};

/// Whose ids steps have.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) scope: Scope,
    /// None for the host's own.
    pub(super) fd: Option<OwnedFd>,
    /// What would give steps more ids than they have.
    pub(super) hint: Option<String>,
    /// The maps as text, which is part of a snapshot's name: with other maps its files have other owners.
    pub(super) maps: String,
}

impl Namespace {
    /// Finds out what the caller may do and makes the best of it.
    pub(super) fn make(program: &Path) -> Result<Self, ExecError> {
        let needed = CapabilitySet::SYS_ADMIN
            | CapabilitySet::CHOWN
            | CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::FOWNER
            | CapabilitySet::SETUID
            | CapabilitySet::SETGID
            | CapabilitySet::SETPCAP
            | CapabilitySet::MKNOD;
        let root = rustix::process::geteuid().is_root() && caps::has(needed).unwrap_or(false);
        if root {
            return Ok(Self {
                scope: Scope::Host,
                fd: None,
                hint: None,
                maps: String::new(),
            });
        }
        let ids = Ids::of_caller();
        let why = match ids.mapped() {
            Ok((uids, gids)) => match make_with(program, |child| {
                idmap::apply_with_tools(child, &uids, &gids)
            }) {
                Ok(fd) => {
                    let maps = format!("{} {}", text(&uids), text(&gids));
                    return Ok(Self {
                        scope: Scope::Mapped,
                        fd: Some(fd),
                        hint: None,
                        maps,
                    });
                }
                Err(Making::Map(error)) => error.to_string(),
                Err(Making::Other(error)) => return Err(error),
            },
            Err(why) => why,
        };
        let (uid, gid) = (ids.uid, ids.gid);
        match make_with(program, |child| idmap::apply_single(child, uid, gid)) {
            Ok(fd) => Ok(Self {
                scope: Scope::Single,
                fd: Some(fd),
                hint: Some(format!(
                    "steps have one user id only, since {why}: {}",
                    ids.remedy()
                )),
                maps: format!("0 {uid} 1 0 {gid} 1"),
            }),
            Err(Making::Map(error)) => Err(ExecError::caused(
                ExecErrorKind::Host,
                "cannot map the caller in a user namespace",
                error,
            )),
            Err(Making::Other(error)) => Err(error),
        }
    }
}

enum Making {
    /// The maps were refused.
    Map(std::io::Error),
    Other(ExecError),
}

fn make_with(
    program: &Path,
    apply: impl FnOnce(rustix::process::Pid) -> std::io::Result<()>,
) -> Result<OwnedFd, Making> {
    let refused = |error: ExecError| {
        Making::Other(error.with_hint(
            "an ordinary user's build needs user namespaces: see /proc/sys/user/max_user_namespaces, \
             /proc/sys/kernel/unprivileged_userns_clone and /proc/sys/kernel/apparmor_restrict_unprivileged_userns, \
             or build as root",
        ))
    };
    let mut running = Running::spawn(program, false).map_err(Making::Other)?;
    running
        .begin(Job::Hold, Scope::Host, None, None)
        .map_err(Making::Other)?;
    let fd = match running.reply().map_err(refused)? {
        (Reply::Namespace, mut fds) => fds.pop(),
        _ => None,
    };
    let fd = fd.ok_or_else(|| {
        Making::Other(ExecError::new(
            ExecErrorKind::Host,
            "no user namespace was handed out",
        ))
    })?;
    apply(running.pid()).map_err(Making::Map)?;
    running.finish().map_err(Making::Other)?;
    Ok(fd)
}

fn text(map: &[Mapping]) -> String {
    map.iter()
        .map(Mapping::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

struct Ids {
    uid: u32,
    gid: u32,
    name: Option<OsString>,
}

impl Ids {
    fn of_caller() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let passwd = fs_err::read("/etc/passwd").ok();
        let accounts = Accounts::parse(passwd.as_deref(), None);
        let name = accounts.user_by_uid(uid).map(|user| user.name.clone());
        Self {
            uid,
            gid: rustix::process::getegid().as_raw(),
            name,
        }
    }

    /// The maps that the administrator allows, or why there are none.
    fn mapped(&self) -> Result<(Vec<Mapping>, Vec<Mapping>), String> {
        let ranges = |path: &str| {
            let file = fs_err::read(path).unwrap_or_default();
            idmap::ranges(&file, self.name.as_deref(), self.uid)
        };
        let (uids, gids) = (ranges("/etc/subuid"), ranges("/etc/subgid"));
        let missing: Vec<&str> = [("/etc/subuid", &uids), ("/etc/subgid", &gids)]
            .iter()
            .filter(|(_, ranges)| ranges.is_empty())
            .map(|(path, _)| *path)
            .collect();
        if !missing.is_empty() {
            return Err(format!(
                "{} has no range for this user",
                missing.join(" or ")
            ));
        }
        Ok((idmap::map(self.uid, &uids), idmap::map(self.gid, &gids)))
    }

    fn remedy(&self) -> String {
        let name = self.name.as_ref().map_or_else(
            || self.uid.to_string(),
            |name| name.to_string_lossy().into_owned(),
        );
        format!(
            "install newuidmap (package uidmap) and, as root, run \
             `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}` with a range that is free"
        )
    }
}
