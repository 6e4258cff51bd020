//! Who runs: `USER` of a Dockerfile, `User` of an image config.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{AccountsError, ErrorKind, Id};
use crate::parse::{Accounts, User};
use crate::{Part, part};

/// Whom a process becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// The whole list for `setgroups(2)`: the primary group first, then the supplementary ones, none twice.
    ///
    /// The primary group is in it on purpose: a process that changes its gid must not thereby shed a group that a file
    /// denies access to (CVE-2022-36109).
    pub groups: Vec<u32>,
    /// What `HOME` is unless the environment says so; `/` when `/etc/passwd` names none.
    pub home: PathBuf,
    /// Login name, where `/etc/passwd` knows one.
    pub name: Option<OsString>,
}

impl Accounts {
    /// Whom `user[:group]` names, by Docker's rules (moby/sys `user.GetExecUser`, runc `init_linux.go`):
    ///
    /// | text | uid | gid | supplementary groups |
    /// |---|---|---|---|
    /// | empty | 0 | of passwd, else 0 | those of the first user with uid 0 |
    /// | name or number in passwd | its | of passwd | all groups that list its name |
    /// | number without entry | it | 0 | none |
    /// | `user:group` | as above | the group's | none |
    ///
    /// A part of digits is a number, never a name. `HOME` is looked up by uid, as runc does.
    ///
    /// # Errors
    /// [`ErrorKind::Unknown`] for a name without an entry; [`ErrorKind::OutOfRange`] for a number outside 0 to 2³¹ − 1.
    pub fn resolve_user(&self, spec: &str) -> Result<Identity, AccountsError> {
        let (user_text, group_text) = spec.split_once(':').unwrap_or((spec, ""));

        let (uid, entry) = match self.user_part(user_text)? {
            Part::Number(uid) => (uid, self.user_by_uid(uid)),
            Part::Name(name) => {
                let entry = self
                    .user_by_name(name)
                    .ok_or_else(|| AccountsError::new(ErrorKind::Unknown, Id::User, user_text))?;
                (entry.uid, Some(entry))
            }
        };
        let (gid, supplementary) = if group_text.is_empty() {
            (
                entry.map_or(0, |user| user.gid),
                entry.map_or_else(Vec::new, |user| self.supplementary(user)),
            )
        } else {
            (self.group_part(group_text)?, Vec::new())
        };

        let mut groups = vec![gid];
        for group in supplementary {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        let home = self
            .user_by_uid(uid)
            .map(|user| user.home.clone())
            .filter(|home| !home.as_os_str().is_empty());
        Ok(Identity {
            uid,
            gid,
            groups,
            home: home.unwrap_or_else(|| PathBuf::from("/")),
            name: entry.map(|user| user.name.clone()),
        })
    }

    fn user_part<'a>(&self, text: &'a str) -> Result<Part<'a>, AccountsError> {
        if text.is_empty() {
            Ok(Part::Number(0))
        } else {
            part(text, Id::User)
        }
    }

    fn group_part(&self, text: &str) -> Result<u32, AccountsError> {
        match part(text, Id::Group)? {
            Part::Number(gid) => Ok(gid),
            Part::Name(name) => self
                .group_by_name(name)
                .map(|group| group.gid)
                .ok_or_else(|| AccountsError::new(ErrorKind::Unknown, Id::Group, text)),
        }
    }

    fn supplementary(&self, user: &User) -> Vec<u32> {
        self.groups()
            .iter()
            .filter(|group| group.members.contains(&user.name))
            .map(|group| group.gid)
            .collect()
    }
}
