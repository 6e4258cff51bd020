//! Paths inside a tree: bytes, relative to the root, without empty, `.` or `..` components. The root is the empty path.
//!
//! Two ways bring foreign text into that form. [`clean_strict`] is for archives: a `..` that leaves the root is an
//! attack or a mistake and is refused. [`clean_rooted`] is for what a user writes (Go's `path.Join("/", p)`, which
//! Docker applies to sources and destinations): `..` at the root stays at the root.

use std::fmt;

/// Longest name of one component, in bytes (`NAME_MAX`).
pub const MAX_NAME: usize = 255;
/// Most components that a path may have.
pub const MAX_DEPTH: usize = 1024;
/// Longest target of a symbolic link, in bytes (`PATH_MAX` less the NUL).
pub const MAX_TARGET: usize = 4095;

/// Why a path or a name is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A `..` component leads above the root.
    #[error("the path climbs out of the root with ..")]
    Escapes,
    /// A component has more than [`MAX_NAME`] bytes.
    #[error("a name has more than {MAX_NAME} bytes")]
    NameTooLong,
    /// There are more than [`MAX_DEPTH`] components.
    #[error("the path has more than {MAX_DEPTH} components")]
    TooDeep,
    /// The path holds a NUL byte.
    #[error("the path holds a NUL byte")]
    Nul,
}

/// Whether `name` can be the name of a directory entry.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.iter().any(|&b| b == b'/' || b == 0)
}

/// The components of any path text: empty ones and `.` are left out, `..` is given as it stands.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/')
        .filter(|c| !c.is_empty() && *c != b".")
}

/// Brings an archive's path into the form of a tree: a leading `/` is dropped, `..` is resolved by its text.
///
/// # Errors
/// When `..` leads above the root, and when a limit is broken.
pub fn clean_strict(path: &[u8]) -> Result<Vec<u8>, PathError> {
    clean(path, true)
}

/// Brings a user's path into the form of a tree: as [`clean_strict`], but `..` at the root stays there.
///
/// # Errors
/// When a limit is broken.
pub fn clean_rooted(path: &[u8]) -> Result<Vec<u8>, PathError> {
    clean(path, false)
}

fn clean(path: &[u8], strict: bool) -> Result<Vec<u8>, PathError> {
    if path.contains(&0) {
        return Err(PathError::Nul);
    }
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut depth = 0usize;
    for component in components(path) {
        if component == b".." {
            if depth == 0 {
                if strict {
                    return Err(PathError::Escapes);
                }
                continue;
            }
            depth -= 1;
            out.truncate(parent(&out).len());
            continue;
        }
        if component.len() > MAX_NAME {
            return Err(PathError::NameTooLong);
        }
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(PathError::TooDeep);
        }
        push(&mut out, component);
    }
    Ok(out)
}

/// The path of the directory that holds a clean path; the root's is the root.
#[must_use]
pub fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => &path[..at],
        None => b"",
    }
}

/// The last component of a clean path; empty for the root.
#[must_use]
pub fn file_name(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => &path[at + 1..],
        None => path,
    }
}

/// Appends a component (or a clean relative path) to a clean path.
pub fn push(path: &mut Vec<u8>, component: &[u8]) {
    if !path.is_empty() && !component.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(component);
}

/// Joins two clean paths.
#[must_use]
pub fn join(base: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(base.len() + rest.len() + 1);
    out.extend_from_slice(base);
    push(&mut out, rest);
    out
}

/// Whether the clean path `path` is `dir` or below it.
#[must_use]
pub fn is_within(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty()
        || path
            .strip_prefix(dir)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Shows a clean path in a message: with a leading `/`, text as it is, control characters and bytes that are not UTF-8
/// as `\xHH`.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("/")?;
        fmt::Display::fmt(&Text(self.0), f)
    }
}

/// Shows any bytes in a message, as [`Shown`] does but without the `/`.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || c == '\\' {
                    let mut buffer = [0; 4];
                    for byte in c.encode_utf8(&mut buffer).bytes() {
                        write!(f, "\\x{byte:02x}")?;
                    }
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Bytes as one word of printable ASCII: everything else, blanks, `\` and `=` become `\xHH`. [`unescape`] is the inverse.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'\\' && byte != b'=' {
            out.push(char::from(byte));
        } else {
            out.push_str("\\x");
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

/// The inverse of [`escape`]. Beside `\xHH` it takes `\\`, `\n` and `\t`, and any other character stands for itself.
/// `None` when a backslash is followed by something else.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next()? {
            b'x' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'\\' => out.push(b'\\'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_may_not_climb_out() {
        assert_eq!(clean_strict(b"/a//b/./c/").unwrap(), b"a/b/c");
        assert_eq!(clean_strict(b"a/../b").unwrap(), b"b");
        assert_eq!(clean_strict(b"./").unwrap(), b"");
        assert_eq!(clean_strict(b"a/../../b"), Err(PathError::Escapes));
        assert_eq!(clean_strict(b".."), Err(PathError::Escapes));
        assert_eq!(clean_strict(b"a\0b"), Err(PathError::Nul));
    }

    #[test]
    fn users_stay_at_the_root() {
        assert_eq!(clean_rooted(b"../../a").unwrap(), b"a");
        assert_eq!(clean_rooted(b"/a/b/../..").unwrap(), b"");
    }

    #[test]
    fn limits() {
        assert_eq!(clean_strict(&[b'a'; 256]), Err(PathError::NameTooLong));
        assert!(clean_strict(&[b'a'; 255]).is_ok());
        assert_eq!(clean_strict(&b"a/".repeat(1025)), Err(PathError::TooDeep));
        assert!(clean_strict(&b"a/".repeat(1024)).is_ok());
    }

    #[test]
    fn parts() {
        assert_eq!(parent(b"a/b/c"), b"a/b");
        assert_eq!(parent(b"a"), b"");
        assert_eq!(file_name(b"a/b"), b"b");
        assert_eq!(join(b"", b"a"), b"a");
        assert_eq!(join(b"a", b""), b"a");
        assert!(is_within(b"a/b", b"a"));
        assert!(!is_within(b"ab", b"a"));
        assert!(is_within(b"ab", b""));
    }

    #[test]
    fn escaping_is_reversible() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&escape(&all)).unwrap(), all);
        assert_eq!(escape(b"a b\\"), "a\\x20b\\x5c");
        assert_eq!(unescape("a\\nb").unwrap(), b"a\nb");
        assert_eq!(unescape("\\q"), None);
        assert_eq!(unescape("\\x1"), None);
    }

    #[test]
    fn messages_keep_text_and_show_bytes() {
        assert_eq!(Shown("é\n".as_bytes()).to_string(), "/é\\x0a");
        assert_eq!(Shown(b"\xff").to_string(), "/\\xff");
    }
}
