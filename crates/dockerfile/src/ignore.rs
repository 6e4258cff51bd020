//! `.dockerignore` files and the patterns of `--exclude`.
//!
//! The rules are those of moby/patternmatcher, not those of git: patterns are anchored at the root, `**` stands for any
//! depth, a match on a directory covers everything below, and the last matching pattern decides. An exception (`!`)
//! works below an excluded directory, so a walk may leave a directory out only when [`IgnorePatterns::skips_below`]
//! says so.
//!
//! As BuildKit walks a context, a pattern is not looked at where it would change nothing: a plain one where the patterns before it
//! ignore the path already, an exception where they do not. For an exception that names a directory this can be seen: `!d` brings
//! back everything in `d` where `d` itself was ignored before, and nothing of it where only the files in it were (`**/*.txt` and
//! then `!d` leaves `d/a.txt` out), though a look at that path alone would bring it back.
//!
//! Paths are relative to the root, with slashes, without `.` and `..`; any bytes. To hold one against a pattern takes at most
//! the product of their lengths.

use std::fmt;

use crate::glob::check;
use crate::limits::{MAX_FILE_BYTES, MAX_IGNORE_PATTERNS};

mod steps;

use steps::{Places, Steps};

/// An ordered list of patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnorePatterns {
    patterns: Vec<IgnorePattern>,
    has_exceptions: bool,
    ignores_all: bool,
}

/// Why an ignore file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreError {
    line: usize,
    message: String,
}

impl IgnoreError {
    /// The line, counted from 1 (of a list: the element).
    pub fn line(&self) -> usize {
        self.line
    }
}

impl fmt::Display for IgnoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for IgnoreError {}

#[derive(Clone, Debug, PartialEq, Eq)]
struct IgnorePattern {
    /// Starts with `!`.
    exception: bool,
    matcher: Matcher,
}

/// The three common shapes are compared as text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Matcher {
    /// No wildcard.
    Exact(Vec<u8>),
    /// `text**`
    Prefix(Vec<u8>),
    /// `**text`; with a slash in front it also matches without that slash.
    Suffix(Vec<u8>),
    /// Anything else.
    Steps(Steps),
}

impl IgnorePatterns {
    /// Reads an ignore file.
    ///
    /// # Errors
    ///
    /// A lone `!`, a pattern with bad syntax, or a file above 16 MiB or 100 000 patterns.
    pub fn parse(file: &[u8]) -> Result<Self, IgnoreError> {
        if file.len() > MAX_FILE_BYTES {
            return Err(IgnoreError {
                line: 1,
                message: format!("the ignore file is larger than {MAX_FILE_BYTES} bytes"),
            });
        }
        let text = String::from_utf8_lossy(file);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut list = Self::default();
        for (number, line) in text.split('\n').enumerate() {
            if !line.starts_with('#') {
                list.add(line, number + 1, false)?;
            }
        }
        Ok(list)
    }

    /// Makes a list of the values of `--exclude`. Paths have no slash at their beginning, so a pattern that has one matches
    /// nothing; in an ignore file it means nothing.
    ///
    /// # Errors
    ///
    /// As [`IgnorePatterns::parse`].
    pub fn from_patterns<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, IgnoreError> {
        let mut list = Self::default();
        for (index, pattern) in patterns.into_iter().enumerate() {
            list.add(pattern, index + 1, true)?;
        }
        Ok(list)
    }

    fn add(&mut self, text: &str, line: usize, rooted: bool) -> Result<(), IgnoreError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(());
        }
        let error = |message: String| IgnoreError { line, message };
        if self.patterns.len() >= MAX_IGNORE_PATTERNS {
            return Err(error(format!("more than {MAX_IGNORE_PATTERNS} patterns")));
        }
        let (body, exception) = match text.strip_prefix('!') {
            Some(body) => (body.trim(), true),
            None => (text, false),
        };
        if body.is_empty() {
            return Err(error("illegal exclusion pattern: \"!\"".to_owned()));
        }
        let pattern = clean(body);
        check(&pattern).map_err(|e| error(format!("illegal pattern {text:?}: {e}")))?;
        self.has_exceptions |= exception;
        let matcher = if rooted && body.starts_with('/') {
            Matcher::Exact(body.as_bytes().to_vec())
        } else {
            self.ignores_all |= !exception && matches!(pattern.as_str(), "*" | "**" | "**/*");
            Matcher::new(&pattern)
        };
        self.patterns.push(IgnorePattern { exception, matcher });
        Ok(())
    }

    /// Whether there is nothing to ignore.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a pattern starts with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.has_exceptions
    }

    /// Whether a pattern (`*`, `**` or `**/*`) leaves out whatever is in the root.
    pub fn ignores_all(&self) -> bool {
        self.ignores_all
    }

    /// Whether a path is ignored. The root itself (the empty path or `.`) never is.
    pub fn is_ignored(&self, path: &[u8]) -> bool {
        if path.is_empty() || path == b"." {
            return false;
        }
        if !self.has_exceptions {
            return self
                .patterns
                .iter()
                .any(|pattern| pattern.matcher.covers(path));
        }
        let mut walks: Vec<Walk<'_>> = self.patterns.iter().map(Walk::new).collect();
        let mut ignored = false;
        for end in ends(path) {
            ignored = false;
            for walk in &mut walks {
                let matches = walk.matches(path, end);
                walk.covers |= matches && walk.pattern.exception == ignored;
                if walk.covers {
                    ignored = !walk.pattern.exception;
                }
            }
        }
        ignored
    }

    /// Whether a directory is ignored with everything in it, so that a walk need not enter it.
    ///
    /// That is so when it is ignored itself and no exception can match anything below it.
    pub fn skips_below(&self, directory: &[u8]) -> bool {
        if !self.is_ignored(directory) {
            return false;
        }
        let below = [directory, b"/"].concat();
        !self
            .patterns
            .iter()
            .any(|pattern| pattern.exception && pattern.matcher.may_match_below(&below))
    }
}

/// One pattern on its way along a path.
struct Walk<'p> {
    pattern: &'p IgnorePattern,
    /// It was looked at and matched, here or at a directory above.
    covers: bool,
    /// Where a pattern of steps is, with the length that it has taken; none where it can match no more.
    at: Option<(Places<'p>, usize)>,
}

impl<'p> Walk<'p> {
    fn new(pattern: &'p IgnorePattern) -> Self {
        let at = match &pattern.matcher {
            Matcher::Steps(steps) => Some((steps.start(), 0)),
            _ => None,
        };
        Self {
            pattern,
            covers: false,
            at,
        }
    }

    /// Whether the pattern matches the path up to an end, directories above it left aside. Ends come in their order.
    fn matches(&mut self, path: &[u8], end: usize) -> bool {
        let here = &path[..end];
        match &self.pattern.matcher {
            Matcher::Exact(text) => here == text,
            Matcher::Prefix(text) => here.starts_with(text),
            Matcher::Suffix(text) => is_suffix(text, here),
            Matcher::Steps(_) => {
                let Some((places, taken)) = &mut self.at else {
                    return false;
                };
                if !places.take_all(&here[*taken..]) {
                    self.at = None;
                    return false;
                }
                *taken = end;
                places.hold_the_end()
            }
        }
    }
}

impl Matcher {
    /// From a cleaned pattern with good syntax.
    fn new(pattern: &str) -> Self {
        if let Some(rest) = pattern.strip_prefix("**")
            && !rest.contains(['*', '?', '[', ']', '\\'])
        {
            return Self::Suffix(rest.as_bytes().to_vec());
        }
        if let Some(rest) = pattern.strip_suffix("**")
            && !rest.contains(['*', '?', '[', ']', '\\'])
        {
            return Self::Prefix(rest.as_bytes().to_vec());
        }
        if !pattern.contains(['*', '?', '[', ']', '\\']) {
            return Self::Exact(pattern.as_bytes().to_vec());
        }
        Self::Steps(Steps::new(pattern))
    }

    /// Whether the pattern matches the path or a directory above it.
    fn covers(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path
                .strip_prefix(text.as_slice())
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'/'))),
            // What is below a path begins as the path does.
            Self::Prefix(text) => path.starts_with(text),
            Self::Suffix(text) => ends(path).any(|end| is_suffix(text, &path[..end])),
            Self::Steps(steps) => steps.cover(path),
        }
    }

    /// Whether some path below can match; `below` is the directory and a slash.
    fn may_match_below(&self, below: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.starts_with(below),
            Self::Prefix(text) => text.starts_with(below) || below.starts_with(text),
            Self::Suffix(_) => true,
            Self::Steps(steps) => steps.go_on_behind(below),
        }
    }
}

/// Where the directories above a path end, and the path.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> {
    let above = (0..path.len()).filter(|&at| path[at] == b'/');
    above.chain([path.len()])
}

/// Whether `**text` matches a path.
fn is_suffix(text: &[u8], path: &[u8]) -> bool {
    path.ends_with(text) || text.strip_prefix(b"/").is_some_and(|rest| path == rest)
}

/// Cleans a path like Go's `filepath.Clean`, then cuts a leading slash.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let rooted = pattern.starts_with('/');
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (parts.is_empty(), rooted) {
        (true, true) => "/".to_owned(),
        (true, false) => ".".to_owned(),
        (false, _) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests;
