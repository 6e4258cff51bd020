//! Wildcards with the meaning of Go's `path.Match`: `*`, `?`, `[set]`, `[^set]`, `\x`.
//!
//! `*` and `?` do not cross a slash. Paths are bytes; where they are UTF-8 a wildcard takes whole characters.

use std::fmt;

/// A pattern with bad syntax: an open or empty `[`, or a backslash at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPattern;

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("syntax error in pattern")
    }
}

impl std::error::Error for BadPattern {}

/// What one pattern element matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Glob {
    /// Any run without a slash.
    Star,
    /// One character but a slash.
    Any,
    /// This character.
    Plain(char),
    /// One character of a set.
    Set(Set),
}

/// `[a-z]` or `[^a-z]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Set {
    pub(crate) fn holds(&self, c: char) -> bool {
        self.ranges.iter().any(|&(low, high)| low <= c && c <= high) != self.negated
    }

    /// Reads what follows `[`, up to and with `]`.
    pub(crate) fn parse(chars: &mut std::str::Chars<'_>) -> Result<Self, BadPattern> {
        let mut set = Self {
            negated: false,
            ranges: Vec::new(),
        };
        if chars.as_str().starts_with('^') {
            chars.next();
            set.negated = true;
        }
        loop {
            if !set.ranges.is_empty() && chars.as_str().starts_with(']') {
                chars.next();
                return Ok(set);
            }
            let low = Self::member(chars)?;
            let high = if chars.as_str().starts_with('-') {
                chars.next();
                Self::member(chars)?
            } else {
                low
            };
            set.ranges.push((low, high));
        }
    }

    fn member(chars: &mut std::str::Chars<'_>) -> Result<char, BadPattern> {
        match chars.next() {
            None | Some('-' | ']') => Err(BadPattern),
            Some('\\') => chars.next().ok_or(BadPattern),
            Some(c) => Ok(c),
        }
    }
}

/// Takes a pattern apart.
fn parse(pattern: &str) -> Result<Vec<Glob>, BadPattern> {
    let mut globs = Vec::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        globs.push(match c {
            '*' if globs.last() == Some(&Glob::Star) => continue,
            '*' => Glob::Star,
            '?' => Glob::Any,
            '[' => Glob::Set(Set::parse(&mut chars)?),
            '\\' => Glob::Plain(chars.next().ok_or(BadPattern)?),
            c => Glob::Plain(c),
        });
    }
    Ok(globs)
}

/// Checks the syntax of a pattern.
pub(crate) fn check(pattern: &str) -> Result<(), BadPattern> {
    parse(pattern).map(drop)
}

/// Whether the whole name matches the pattern.
///
/// # Errors
///
/// The syntax of the pattern, whatever the name is.
pub fn glob_match(pattern: &str, name: &[u8]) -> Result<bool, BadPattern> {
    let globs = parse(pattern)?;
    let mut glob = 0;
    let mut at = 0;
    // Where to go on after a mismatch: behind the last star, one character further.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match globs.get(glob) {
            Some(Glob::Star) => {
                glob += 1;
                retry = Some((glob, at));
                continue;
            }
            None if at == name.len() => return Ok(true),
            None => None,
            Some(element) => decode(&name[at..]).filter(|&(c, _)| match element {
                Glob::Star => false,
                Glob::Any => c != '/',
                Glob::Plain(plain) => c == *plain,
                Glob::Set(set) => set.holds(c),
            }),
        };
        if let Some((_, length)) = step {
            glob += 1;
            at += length;
            continue;
        }
        match retry.and_then(|(glob, at)| Some((glob, at, decode(&name[at..])?))) {
            Some((next, from, (c, length))) if c != '/' => {
                retry = Some((next, from + length));
                glob = next;
                at = from + length;
            }
            _ => return Ok(false),
        }
    }
}

/// Whether a source path of `COPY` or `ADD` has a wildcard in it.
pub fn has_wildcard(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

/// The first character of a path and its length; a byte that is no UTF-8 counts as one.
pub(crate) fn decode(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    if first.is_ascii() {
        return Some((char::from(first), 1));
    }
    let window = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => Some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::{glob_match, has_wildcard};

    #[test]
    fn matching() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[!c]", "ab!", true),
            ("ab[!c]", "abd", false),
            ("a?b", "aéb", true),
            ("a??b", "aéb", false),
            ("a[^a]b", "a☺b", true),
            ("[a-ζ]*", "α", true),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[x\\-]", "x", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*x", "xxx", true),
            (".*", ".git", true),
            ("*", ".git", true),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("**", "ab", true),
        ] {
            assert_eq!(
                glob_match(pattern, name.as_bytes()),
                Ok(expected),
                "{pattern} {name}"
            );
        }
        assert_eq!(glob_match("a?b", b"a\xffb"), Ok(true));
    }

    #[test]
    fn bad_patterns() {
        for pattern in [
            "[", "[]", "[]a]", "[-]", "[x-]", "[-x]", "[^", "[a", "[a-", "\\", "a[", "[^]", "[\\",
        ] {
            assert!(glob_match(pattern, b"x").is_err(), "{pattern}");
        }
    }

    #[test]
    fn wildcards() {
        for (text, expected) in [
            ("a*", true),
            ("a?", true),
            ("a[b]", true),
            ("a\\*", false),
            ("a", false),
        ] {
            assert_eq!(has_wildcard(text), expected, "{text}");
        }
    }

    #[test]
    fn no_blow_up() {
        let pattern = "a*".repeat(2000);
        let name = "a".repeat(20_000) + "/";
        assert_eq!(glob_match(&pattern, name.as_bytes()), Ok(false));
    }
}
