//! Id ranges of a user namespace: `subuid(5)`, `newuidmap(1)`, `user_namespaces(7)`.
//!
//! A user namespace shows ids of the host under other numbers. Without privilege one may map oneself, and the
//! administrator may lend ranges in `/etc/subuid` and `/etc/subgid`, which the set-id tools `newuidmap` and `newgidmap`
//! put into force. The map made here is always the same for the same files: 0 is the caller, 1 and on are the ranges.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

/// The kernel takes at most 340 lines (`UID_GID_MAP_MAX_EXTENTS`).
const MAX_MAPPINGS: usize = 340;

/// Ids that an administrator lends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first one, as the host numbers it.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// One line of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First id inside of the namespace.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl fmt::Display for Mapping {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", self.inside, self.outside, self.count)
    }
}

/// The ranges of a user in the bytes of `/etc/subuid` or `/etc/subgid`; entries are by name or by uid.
///
/// Lines that are no entries, ranges that leave the 32 bits and what overlaps an earlier range of the same user are
/// skipped.
#[must_use]
pub fn ranges(file: &[u8], name: Option<&OsStr>, uid: u32) -> Vec<Range> {
    let uid = uid.to_string();
    let mut found: Vec<Range> = Vec::new();
    for line in file.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.trim_ascii().split(|byte| *byte == b':').collect();
        let [owner, first, count] = fields[..] else {
            continue;
        };
        if owner != uid.as_bytes() && name.is_none_or(|name| name.as_bytes() != owner) {
            continue;
        }
        let (Some(first), Some(count)) = (number(first), number(count)) else {
            continue;
        };
        let Some(end) = first.checked_add(count) else {
            continue;
        };
        if count > 0
            && found
                .iter()
                .all(|range| end <= range.first || range.first + range.count <= first)
        {
            found.push(Range { first, count });
        }
    }
    found
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The map that makes `own` 0 and numbers the ranges from 1 on.
#[must_use]
pub fn map(own: u32, ranges: &[Range]) -> Vec<Mapping> {
    let mut mappings = vec![Mapping {
        inside: 0,
        outside: own,
        count: 1,
    }];
    let mut inside = 1u32;
    for range in ranges {
        let Some(next) = inside.checked_add(range.count) else {
            break;
        };
        if mappings.len() == MAX_MAPPINGS {
            break;
        }
        mappings.push(Mapping {
            inside,
            outside: range.first,
            count: range.count,
        });
        inside = next;
    }
    mappings
}

/// Puts maps into force for a process in a new user namespace by running `newuidmap` and `newgidmap`.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when a tool is not installed; else an error with what the tool printed, for example when a
/// range is not lent.
pub fn apply_with_tools(process: Pid, uids: &[Mapping], gids: &[Mapping]) -> io::Result<()> {
    let start = |tool: &str, mappings: &[Mapping]| -> io::Result<Child> {
        let mut command = Command::new(find_tool(tool)?);
        command.arg(process.as_raw_nonzero().to_string());
        for mapping in mappings {
            command.args(
                [mapping.inside, mapping.outside, mapping.count].map(|number| number.to_string()),
            );
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    };
    // Both at once: they cost more than the namespace itself.
    let uid_tool = start("newuidmap", uids)?;
    let gid_tool = start("newgidmap", gids);
    finish("newuidmap", uid_tool)?;
    finish("newgidmap", gid_tool?)
}

/// The tool's path: from `PATH`, else where distributions put it, since a service may have a short `PATH`.
fn find_tool(tool: &str) -> io::Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/sbin", "/bin", "/usr/local/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(usual)
        .map(|directory| directory.join(tool))
        .find(|candidate| Path::is_file(candidate))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{tool} is not installed")))
}

fn finish(tool: &str, child: Child) -> io::Result<()> {
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{tool}: {}", said.trim())))
}

/// Puts maps of one id each into force, which needs no privilege: the caller is 0 inside, as user and as group.
///
/// # Errors
/// `EPERM` when the namespace is not one that the caller's user made.
pub fn apply_single(process: Pid, uid: u32, gid: u32) -> io::Result<()> {
    let process = process.as_raw_nonzero();
    // A group may be mapped without privilege only by who cannot drop groups (CVE-2014-8989).
    fs_err::write(format!("/proc/{process}/setgroups"), "deny")?;
    fs_err::write(format!("/proc/{process}/uid_map"), format!("0 {uid} 1"))?;
    fs_err::write(format!("/proc/{process}/gid_map"), format!("0 {gid} 1"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::{Mapping, Range, map, ranges};

    #[test]
    fn ranges_by_name_and_by_uid() {
        let file = b"other:1:5\nme:100000:65536\n# me:1:1\n1000:300000:10\n me:400000:1 \nme:100001:5\nme:x:5\nme:5\n\
            me:4294967295:2\nme:7:0\n10001:5:5\n";
        let expected = [(100_000, 65_536), (300_000, 10), (400_000, 1)]
            .map(|(first, count)| Range { first, count });
        assert_eq!(ranges(file, Some(OsStr::new("me")), 1000), expected);
        assert_eq!(
            ranges(file, None, 1000),
            [Range {
                first: 300_000,
                count: 10
            }]
        );
        assert!(ranges(b"", Some(OsStr::new("me")), 1000).is_empty());
    }

    #[test]
    fn the_caller_is_root_and_the_ranges_follow() {
        let lent = [
            Range {
                first: 100_000,
                count: 65_536,
            },
            Range { first: 7, count: 2 },
        ];
        let text: Vec<String> = map(1000, &lent).iter().map(Mapping::to_string).collect();
        assert_eq!(text, ["0 1000 1", "1 100000 65536", "65537 7 2"]);
        assert_eq!(map(0, &[]).len(), 1);
        let huge = [
            Range {
                first: 0,
                count: u32::MAX,
            },
            Range { first: 5, count: 5 },
        ];
        assert_eq!(
            map(0, &huge).len(),
            1,
            "what does not fit into 32 bits is not mapped"
        );
        let many: Vec<Range> = (0..1000).map(|first| Range { first, count: 1 }).collect();
        assert_eq!(map(0, &many).len(), 340);
    }
}
