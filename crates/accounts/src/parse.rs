//! Reads `passwd(5)` and `group(5)` as tolerantly as container tools do: what is no entry is skipped, nothing fails.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// How much of each file is read, in bytes. A real `/etc/group` of a large site has a few hundred KiB.
pub const MAX_FILE: usize = 4 << 20;

/// An entry of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name; any bytes but `:`, newline and NUL.
    pub name: OsString,
    /// User id.
    pub uid: u32,
    /// Id of the primary group.
    pub gid: u32,
    /// Home directory as written, possibly empty.
    pub home: PathBuf,
}

/// An entry of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name; any bytes but `:`, newline and NUL.
    pub name: OsString,
    /// Group id.
    pub gid: u32,
    /// Names of the users for whom it is a supplementary group.
    pub members: Vec<OsString>,
}

/// The users and groups that a root file system knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    /// Reads the bytes of `/etc/passwd` and `/etc/group`; `None` for a file that is not there.
    ///
    /// Never fails: lines that are no entries are skipped, and only the whole lines of the first [`MAX_FILE`] bytes count.
    #[must_use]
    pub fn parse(passwd: Option<&[u8]>, group: Option<&[u8]>) -> Self {
        Self {
            users: lines(passwd.unwrap_or_default()).filter_map(user).collect(),
            groups: lines(group.unwrap_or_default())
                .filter_map(self::group)
                .collect(),
        }
    }

    /// The users, in file order.
    #[must_use]
    pub fn users(&self) -> &[User] {
        &self.users
    }

    /// The groups, in file order.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The first user with this name.
    #[must_use]
    pub fn user_by_name(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The first user with this id.
    #[must_use]
    pub fn user_by_uid(&self, uid: u32) -> Option<&User> {
        self.users.iter().find(|user| user.uid == uid)
    }

    /// The first group with this name.
    #[must_use]
    pub fn group_by_name(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }
}

/// The lines of a file, trimmed, without those that cannot be entries.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = match bytes.get(..MAX_FILE) {
        Some(head) => &head[..head.iter().rposition(|byte| *byte == b'\n').unwrap_or(0)],
        None => bytes,
    };
    whole
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.contains(&0))
}

/// `name:password:uid:gid:gecos:home:shell`; the fields after gid may be missing.
fn user(line: &[u8]) -> Option<User> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = name(fields.next()?)?;
    let _password = fields.next()?;
    let uid = id(fields.next()?)?;
    let gid = id(fields.next()?)?;
    let _gecos = fields.next();
    let home = PathBuf::from(OsString::from_vec(
        fields.next().unwrap_or_default().to_vec(),
    ));
    Some(User {
        name,
        uid,
        gid,
        home,
    })
}

/// `name:password:gid:member,member`; the members may be missing.
fn group(line: &[u8]) -> Option<Group> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = name(fields.next()?)?;
    let _password = fields.next()?;
    let gid = id(fields.next()?)?;
    let members = fields
        .next()
        .unwrap_or_default()
        .split(|byte| *byte == b',')
        .filter_map(self::name)
        .collect();
    Some(Group { name, gid, members })
}

fn name(bytes: &[u8]) -> Option<OsString> {
    let bytes = bytes.trim_ascii();
    (!bytes.is_empty()).then(|| OsString::from_vec(bytes.to_vec()))
}

/// A decimal id. 2³² − 1 is "no id" to the kernel and therefore none here.
fn id(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes.trim_ascii()).ok()?;
    text.parse().ok().filter(|id| *id != u32::MAX)
}
