//! The oracle is the definition that moby/patternmatcher gives: a pattern is turned into a regular expression, paths are
//! matched with what was found for the directory above them, the last match decides.

use firebuild_dockerfile::IgnorePatterns;
use regex::Regex;

/// An ignore file, a NUL, then paths, one a line: a directory that may be left out holds nothing that is kept, and
/// plain patterns match what their regular expressions match.
pub fn ignore(bytes: &[u8]) {
    let at = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    let (file, paths) = bytes.split_at(at);
    let Ok(list) = IgnorePatterns::parse(file) else {
        return;
    };
    // Expressions take a hundred times as long as the rest: every eighth input, by its length.
    let oracle = bytes
        .len()
        .is_multiple_of(8)
        .then(|| std::str::from_utf8(file).ok().and_then(Oracle::new))
        .flatten();
    for path in paths
        .split(|byte| matches!(byte, 0 | b'\n'))
        .filter(|path| is_clean(path))
        .take(8)
    {
        let ignored = list.is_ignored(path);
        for end in (0..path.len()).filter(|end| path[*end] == b'/') {
            if list.skips_below(&path[..end]) {
                assert!(ignored, "{:?} is below what is skipped", show(path));
            }
        }
        if let (Some(oracle), Ok(path)) = (&oracle, std::str::from_utf8(path)) {
            assert_eq!(ignored, oracle.is_ignored(path), "{path:?}");
        }
    }
}

fn show(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn is_clean(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/')
        .all(|part| !matches!(part, b"" | b"." | b".."))
}

enum How {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Regex(Regex),
}

struct Oracle(Vec<(bool, How)>);

impl Oracle {
    /// `None` for files with something that is out of the oracle's reach.
    fn new(file: &str) -> Option<Self> {
        let mut patterns = Vec::new();
        let file = file.strip_prefix('\u{feff}').unwrap_or(file);
        for line in file.split('\n').filter(|line| !line.starts_with('#')) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let (exception, body) = match line.strip_prefix('!') {
                Some(body) => (true, body.trim()),
                None => (false, line),
            };
            if patterns.len() == 8 || !is_clean(body.as_bytes()) {
                return None;
            }
            patterns.push((exception, how(body)?));
        }
        Some(Self(patterns))
    }

    fn is_ignored(&self, path: &str) -> bool {
        self.look(path).1
    }

    /// Which patterns cover a path, and whether it is ignored (`MatchesUsingParentResults`): what covers the directory above
    /// covers what is in it, and else a pattern is looked at only where it would change something.
    fn look(&self, path: &str) -> (Vec<bool>, bool) {
        let above = path.rsplit_once('/').map(|(above, _)| self.look(above).0);
        let mut ignored = false;
        let mut covering = Vec::with_capacity(self.0.len());
        for (index, (exception, how)) in self.0.iter().enumerate() {
            let covered_above = above.as_ref().is_some_and(|above| above[index]);
            let covers = covered_above || (*exception == ignored && matches(how, path));
            if covers {
                ignored = !exception;
            }
            covering.push(covers);
        }
        (covering, ignored)
    }
}

fn matches(how: &How, path: &str) -> bool {
    match how {
        How::Exact(text) => path == text,
        How::Prefix(text) => path.starts_with(text),
        How::Suffix(text) => {
            path.ends_with(text) || text.strip_prefix('/').is_some_and(|text| text == path)
        }
        How::Regex(regex) => regex.is_match(path),
    }
}

/// The kinds of a pattern as they follow from reading it from the left.
fn how(pattern: &str) -> Option<How> {
    #[derive(PartialEq)]
    enum Kind {
        Exact,
        Prefix,
        Suffix,
        Regex,
    }
    let mut regex = String::from("^");
    let mut kind = Kind::Exact;
    let mut chars = pattern.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                chars.next_if_eq(&'/');
                if chars.peek().is_none() {
                    if kind == Kind::Exact {
                        kind = Kind::Prefix;
                    } else {
                        regex += ".*";
                        kind = Kind::Regex;
                    }
                } else {
                    regex += "(.*/)?";
                    kind = Kind::Regex;
                }
                if first {
                    kind = Kind::Suffix;
                }
            }
            '*' => {
                regex += "[^/]*";
                kind = Kind::Regex;
            }
            '?' => {
                regex += "[^/]";
                kind = Kind::Regex;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => regex.extend(['\\', c]),
            '\\' => {
                // Letters and digits would be classes and the like.
                let next = chars.next().filter(char::is_ascii_punctuation)?;
                regex.extend(['\\', next]);
                kind = Kind::Regex;
            }
            '[' => {
                // Sets of plain characters and ranges; in others the two languages differ.
                regex.push('[');
                if let Some(not) = chars.next_if_eq(&'^') {
                    regex.push(not);
                }
                loop {
                    match chars.next()? {
                        ']' => break,
                        c if c.is_ascii_alphanumeric() => regex.push(c),
                        '-' if chars.peek().is_some_and(char::is_ascii_alphanumeric) => {
                            regex.push('-');
                        }
                        _ => return None,
                    }
                }
                regex.push(']');
                kind = Kind::Regex;
            }
            ']' | '^' => return None,
            c => regex.push(c),
        }
        first = false;
    }
    Some(match kind {
        Kind::Exact => How::Exact(pattern.to_owned()),
        Kind::Prefix => How::Prefix(pattern.strip_suffix("**")?.to_owned()),
        Kind::Suffix => How::Suffix(pattern.strip_prefix("**")?.to_owned()),
        Kind::Regex => {
            regex.push('$');
            How::Regex(Regex::new(&regex).ok()?)
        }
    })
}
