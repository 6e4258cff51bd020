//! Files in and out of a guest, as `docker cp` copies them; the same code on both sides.
//!
//! ```text
//!   side that has it                                  side that gets it
//!   Source::find(path) ─▶ CopySource (a document) ──▶ Target::find(path, source)      Docker's rules
//!   Source::pack(out)  ─▶ tar ──────────────────────▶ Target::unpack(in)              beneath one directory
//! ```
//!
//! The side that gets an archive trusts nothing in it: all that it makes lies beneath the directory that its own user has
//! named, no link is followed there, and bytes and entries have limits. Owners, set-id bits, device nodes and attributes
//! beside `user.*` come across only where they were asked for.
//!
//! Rules: <https://docs.docker.com/reference/cli/docker/container/cp/>.

mod source;
mod target;

use std::fmt;
use std::io;

pub use source::{Source, agreed};
pub use target::{Limits, Target};

/// Why something cannot be copied.
#[derive(Debug)]
pub struct CopyError {
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CopyError {
    fn new(text: impl Into<String>) -> CopyError {
        CopyError {
            text: text.into(),
            source: None,
        }
    }

    fn caused(
        text: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CopyError {
        CopyError {
            text: text.into(),
            source: Some(source.into()),
        }
    }

    fn at(verb: &str, path: &str, source: impl Into<io::Error>) -> CopyError {
        CopyError::caused(format!("cannot {verb} {path}"), source.into())
    }

    /// The error and its causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.text.clone();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(&format!(": {cause}"));
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CopyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// A path taken apart: where its last component is, and what its end says.
#[derive(Debug, PartialEq, Eq)]
struct Ends<'a> {
    /// The path without slashes and dots at its end; `/` and `.` for those that are nothing else.
    path: &'a str,
    /// The last component; none for `/`, `.` and what ends in `..`.
    name: Option<&'a str>,
    /// It ends in a slash: a directory is meant.
    slash: bool,
    /// It ends in `/.`, or is `.`: what is in the directory is meant.
    dot: bool,
}

impl Ends<'_> {
    fn of(text: &str) -> Ends<'_> {
        let bare = text.trim_end_matches('/');
        let slash = bare.len() < text.len();
        let (path, dot) = match bare.strip_suffix("/.") {
            Some(rest) => (rest.trim_end_matches('/'), true),
            None if bare == "." => (".", true),
            None => (bare, false),
        };
        let path = if path.is_empty() { "/" } else { path };
        let name = path
            .rsplit('/')
            .next()
            .filter(|name| !matches!(*name, "" | "." | ".."));
        Ends {
            path,
            name,
            slash,
            dot,
        }
    }

    /// The directory that the last component is in.
    fn parent(&self) -> &str {
        let Some(name) = self.name else {
            return self.path;
        };
        match self.path[..self.path.len() - name.len()].trim_end_matches('/') {
            "" if self.path.starts_with('/') => "/",
            "" => ".",
            parent => parent,
        }
    }
}

#[cfg(test)]
mod tests;
