//! Where the files of a tar are.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use super::error::{LayoutError, LayoutErrorKind as Kind};
use crate::media_type::{Compression, sniff_compression};

/// More members than any image has.
const MAX_MEMBERS: usize = 100_000;
/// Links that lead from one to the next.
const MAX_LINKS: usize = 8;

/// A member.
#[derive(Clone, Debug)]
enum Member {
    /// Offset and length of the content in the tar, bytes.
    File(u64, u64),
    /// Another name, from the root of the tar.
    Link(String),
}

/// The names in a tar.
#[derive(Debug)]
pub(super) struct Members(HashMap<String, Member>);

impl Members {
    /// Reads the headers of a tar. Later members replace earlier ones of the same name, as when unpacking.
    pub(super) fn read(path: &Path, file: &mut File) -> Result<Self, LayoutError> {
        let damaged = |error| {
            LayoutError::with(
                Kind::NotALayout,
                format!("{} is no tar archive", path.display()),
                error,
            )
        };
        let mut head = Vec::new();
        file.by_ref()
            .take(4)
            .read_to_end(&mut head)
            .map_err(damaged)?;
        if sniff_compression(&head) != Compression::None {
            return Err(LayoutError::new(
                Kind::NotALayout,
                format!(
                    "{} is compressed: decompress it first, e.g. with gunzip or zstd -d",
                    path.display()
                ),
            ));
        }
        file.rewind().map_err(damaged)?;
        let mut archive = tar::Archive::new(file);
        let mut members = HashMap::new();
        for entry in archive.entries_with_seek().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            if members.len() >= MAX_MEMBERS {
                return Err(LayoutError::new(
                    Kind::NotALayout,
                    format!("{} has more than {MAX_MEMBERS} members", path.display()),
                ));
            }
            let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else {
                continue;
            };
            let Some(name) = clean("", &name) else {
                continue;
            };
            let link = || {
                entry
                    .link_name_bytes()
                    .and_then(|bytes| String::from_utf8(bytes.into_owned()).ok())
            };
            let kind = entry.header().entry_type();
            let member = if kind.is_file() || kind == tar::EntryType::Continuous {
                Some(Member::File(entry.raw_file_position(), entry.size()))
            } else if kind.is_symlink() {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                link()
                    .and_then(|target| clean(directory, &target))
                    .map(Member::Link)
            } else if kind.is_hard_link() {
                link()
                    .and_then(|target| clean("", &target))
                    .map(Member::Link)
            } else {
                None
            };
            if let Some(member) = member {
                members.insert(name, member);
            }
        }
        Ok(Self(members))
    }

    /// Offset and length of a file, bytes; links are followed.
    pub(super) fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = clean("", name)?;
        for _ in 0..=MAX_LINKS {
            match self.0.get(&name)? {
                Member::File(offset, len) => return Some((*offset, *len)),
                Member::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

/// `path` seen from `directory`, without `.`, `..` and empty parts; `None` if it leaves the root or is absolute.
fn clean(directory: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn names() {
        for (directory, path, wanted) in [
            ("", "./a/b", Some("a/b")),
            ("", "a//b/", Some("a/b")),
            ("x", "../y/layer.tar", Some("y/layer.tar")),
            ("x", "layer.tar", Some("x/layer.tar")),
            ("x", "../../y", None),
            ("", "/a", None),
            ("", "", Some("")),
        ] {
            assert_eq!(
                clean(directory, path).as_deref(),
                wanted,
                "{directory} {path}"
            );
        }
    }
}
