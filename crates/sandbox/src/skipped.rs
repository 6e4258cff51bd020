//! What could not be made of a snapshot, as a text beside it.
//!
//! ```text
//! node PATH
//! owner PATH
//! xattr NAME PATH
//! ```
//!
//! Paths and names are escaped as in dumps of trees, so a blank ends them.

use std::fmt::Write;

use firebuild_rootfs::path::{escape, unescape};
use firebuild_rootfs::unpack::{Skipped, SkippedEntry, What};

/// The report as text; empty when nothing is missing.
pub fn to_text(skipped: &Skipped) -> String {
    let mut text = String::new();
    for entry in &skipped.entries {
        let path = escape(&entry.path);
        let written = match &entry.what {
            What::Node => writeln!(text, "node {path}"),
            What::Owner => writeln!(text, "owner {path}"),
            What::Xattr(name) => writeln!(text, "xattr {} {path}", escape(name)),
        };
        written.expect("a String takes everything");
    }
    text
}

/// Reads a report; lines that are none are skipped.
pub fn from_text(text: &str, into: &mut Skipped) {
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (what, path) = match words[..] {
            ["node", path] => (What::Node, path),
            ["owner", path] => (What::Owner, path),
            ["xattr", name, path] => match unescape(name) {
                Some(name) => (What::Xattr(name), path),
                None => continue,
            },
            _ => continue,
        };
        if let Some(path) = unescape(path) {
            into.entries.push(SkippedEntry { path, what });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{from_text, to_text};
    use firebuild_rootfs::unpack::{Skipped, SkippedEntry, What};

    #[test]
    fn a_report_survives_the_text() {
        let entry = |path: &[u8], what| SkippedEntry {
            path: path.to_vec(),
            what,
        };
        let report = Skipped {
            entries: vec![
                entry(b"dev/null", What::Node),
                entry(b"a b\n\xff", What::Owner),
                entry(b"c", What::Xattr(b"trusted.x y".to_vec())),
                entry(b"", What::Owner),
            ],
        };
        let mut read = Skipped::default();
        from_text(&to_text(&report), &mut read);
        assert_eq!(read, report);
        from_text("nonsense\nnode\nxattr a\n", &mut read);
        assert_eq!(read, report);
    }
}
