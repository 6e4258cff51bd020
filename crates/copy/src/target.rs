//! Where a copy goes: Docker's rules, and making it beneath one directory.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use firebuild_guest_proto::session::CopySource;
use firebuild_rootfs::unpack::{
    Skipped, StreamError, StreamOptions, UnpackErrorKind, unpack_stream,
};
use firebuild_rootfs::walk::open_root;
use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::{CopyError, Ends};

/// Links that are followed in a row (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// What an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of content.
    pub bytes: u64,
    /// Entries.
    pub entries: usize,
}

/// A place for a copy.
#[derive(Debug)]
pub struct Target {
    /// The directory beneath which everything is made.
    root: OwnedFd,
    /// What the first component of each entry becomes, and what stands before entries that have none of their own.
    name: Option<Vec<u8>>,
    /// Entries begin with a component that `name` replaces.
    replaces: bool,
    shown: String,
}

impl Target {
    /// Finds the place that a path names for a copy of `source`; without one it is an archive of anything, and the path
    /// a directory.
    ///
    /// | source | path | result |
    /// |---|---|---|
    /// | file | not there | a file of that name; an error where it ends in `/` |
    /// | file | a file | replaced |
    /// | file | a link | what it leads to, there or not |
    /// | file, directory | a directory | in it, under its own name |
    /// | directory | not there | a directory of that name with what is in the source |
    /// | directory | a file | an error |
    /// | contents (`/.`) | a directory | what is in the source, in it |
    ///
    /// # Errors
    /// What the table says, and a directory on the way that is not there.
    pub fn find(path: &str, source: Option<&CopySource>) -> Result<Target, CopyError> {
        if path.is_empty() {
            return Err(CopyError::new("the path to copy to is empty"));
        }
        let named = path;
        let path = behind_links(path)?;
        let path = path.as_str();
        let ends = Ends::of(path);
        let stat = match rustix::fs::statat(CWD, path, AtFlags::empty()) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::NOENT) => None,
            // A file with a slash behind it.
            Err(Errno::NOTDIR) => Some(FileType::RegularFile),
            Err(error) => return Err(CopyError::at("look at", path, error)),
        };
        let says_dir = ends.slash || ends.dot || ends.name.is_none();
        let in_dir = stat == Some(FileType::Directory);
        let (directory, name) = match (source, stat) {
            (None, _) if !in_dir => {
                return Err(CopyError::new(format!(
                    "{path} is no directory, and an archive can only be put into one"
                )));
            }
            (Some(source), Some(_)) if !in_dir && source.is_dir => {
                return Err(CopyError::new(format!(
                    "cannot copy a directory to {path}, which is a file"
                )));
            }
            (_, Some(_)) if !in_dir && says_dir => {
                return Err(CopyError::new(format!("{path} is no directory")));
            }
            (Some(source), None) if !source.is_dir && says_dir => {
                return Err(CopyError::new(format!("the directory {path} is not there")));
            }
            (None, _) => (path, None),
            (Some(source), _) if in_dir && (source.contents_only || source.name.is_empty()) => {
                (path, None)
            }
            (Some(source), _) if in_dir => (path, Some(source.name.clone())),
            // A name in its directory, there already or not.
            _ => (
                ends.parent(),
                ends.name.map(|name| name.as_bytes().to_vec()),
            ),
        };
        if name.as_deref().is_some_and(|name| !is_name(name)) {
            return Err(CopyError::new("the copy has no usable name"));
        }
        let root = open_root(Path::new(directory))
            .map_err(|error| CopyError::at("open the directory", directory, error))?;
        Ok(Target {
            root,
            name,
            replaces: source.is_some_and(|source| !source.contents_only),
            shown: named.to_owned(),
        })
    }

    /// Unpacks an archive there. Without `keep_owners` everything belongs to who does this. Gives what was left out.
    ///
    /// # Errors
    /// An archive that is damaged, cut off or too large, and what cannot be made; what was made until then stays.
    pub fn unpack(
        self,
        archive: impl Read,
        keep_owners: bool,
        limits: Limits,
    ) -> Result<Skipped, CopyError> {
        let options = StreamOptions {
            keep_owners,
            owner: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
            max_bytes: limits.bytes,
            max_entries: limits.entries,
            place: &|path| place(path, self.name.as_deref(), self.replaces),
        };
        unpack_stream(archive, self.root.as_fd(), &options).map_err(|error| {
            if let StreamError::Unpack(unpack) = &error
                && matches!(unpack.kind(), UnpackErrorKind::Owner { .. })
            {
                return CopyError::new(format!(
                    "cannot copy to {}: only root can give files to the owners that they had",
                    self.shown
                ));
            }
            CopyError::caused(format!("cannot copy to {}", self.shown), error)
        })
    }
}

/// The path that a path leads to which ends in a link; whoever named it wants what it leads to.
fn behind_links(path: &str) -> Result<String, CopyError> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let ends = Ends::of(&path);
        if ends.slash || ends.dot || ends.name.is_none() {
            return Ok(path);
        }
        let link = match rustix::fs::readlinkat(CWD, &path, Vec::new()) {
            Ok(link) => link,
            // No link, or nothing: what that means is told by whoever looks at it.
            Err(_) => return Ok(path),
        };
        let Ok(link) = link.into_string() else {
            return Ok(path);
        };
        path = if link.starts_with('/') {
            link
        } else {
            format!("{}/{link}", ends.parent())
        };
    }
    Err(CopyError::at("look at", &path, Errno::LOOP))
}

/// Where an entry goes; nowhere for one that is the target directory itself.
fn place(path: &[u8], name: Option<&[u8]>, replaces: bool) -> Option<Vec<u8>> {
    let rest = if replaces && name.is_some() {
        let end = path.iter().position(|byte| *byte == b'/');
        end.map_or(&[][..], |end| &path[end + 1..])
    } else {
        path
    };
    if replaces && path.is_empty() {
        return None;
    }
    match name {
        None => (!path.is_empty()).then(|| path.to_vec()),
        Some(name) if rest.is_empty() => Some(name.to_vec()),
        Some(name) => Some([name, b"/", rest].concat()),
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}
