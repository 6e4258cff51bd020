//! The environment of the application: the image's, then the files', then the flags', by Docker's rules.
//!
//! * `PATH`, `HOSTNAME` and, with a terminal, `TERM` have values even when nobody gives them any.
//! * A later value takes the place of an earlier one.
//! * `--env NAME` takes the caller's value; when the caller has none, the image's is taken away.
//! * In a file, a line is `NAME=value` as it stands: no quotes, no expansion, nothing trimmed from the
//!   value. `NAME` alone takes the caller's value, or nothing. `#` begins a comment at the beginning of
//!   a line only.
//!
//! Sources: docker/cli `opts/env.go`, `pkg/kvfile`; moby `container/env.go`, `oci/defaults.go`.

use std::path::Path;

use firebuild_guest_proto::EnvVar;

/// The PATH of a container whose image has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Nobody keeps more variables than this in a file.
const LARGEST_FILE: u64 = 4 << 20;

/// A variable that was asked for.
#[derive(Clone, PartialEq, Eq)]
pub enum Assignment {
    /// It has this value.
    Set(EnvVar),
    /// It shall not be there.
    Unset(String),
}

impl std::fmt::Debug for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Shows the name only.
            Assignment::Set(variable) => variable.fmt(f),
            Assignment::Unset(name) => write!(f, "-{name}"),
        }
    }
}

/// What is wrong with a variable or a file of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// A flag without a name.
    #[error("--env '{0}' names no variable")]
    NoName(String),
    /// A flag with a byte that no environment can hold.
    #[error("the value of --env {0} holds a NUL byte")]
    Nul(String),
    /// A file that cannot be read.
    #[error("cannot read the environment file {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line that means nothing.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads `--env NAME=value` or `--env NAME`; `caller` looks a variable of the caller up.
///
/// # Errors
/// [`EnvError::NoName`], [`EnvError::Nul`].
pub fn parse_flag(
    text: &str,
    caller: impl Fn(&str) -> Option<String>,
) -> Result<Assignment, EnvError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, caller(text)),
    };
    if name.is_empty() {
        return Err(EnvError::NoName(text.to_owned()));
    }
    if text.contains('\0') {
        return Err(EnvError::Nul(name.replace('\0', "\\0")));
    }
    Ok(match value {
        Some(value) => Assignment::Set(EnvVar {
            name: name.to_owned(),
            value,
        }),
        None => Assignment::Unset(name.to_owned()),
    })
}

/// The names of variables that these assignments have given a value, each once and in order.
pub(crate) fn set_by(assignments: &[Assignment], env: &[EnvVar]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for assignment in assignments {
        let (Assignment::Set(EnvVar { name, .. }) | Assignment::Unset(name)) = assignment;
        let is_there = env.iter().any(|variable| variable.name == *name);
        if is_there && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Reads an environment file.
///
/// # Errors
/// [`EnvError::Read`], [`EnvError::Line`] with the place.
pub fn read_file(
    path: &Path,
    caller: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Assignment>, EnvError> {
    use std::io::Read;
    let shown = || path.display().to_string();
    let mut bytes = Vec::new();
    fs_err::File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|source| EnvError::Read {
            path: shown(),
            source,
        })?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(EnvError::Line {
            path: shown(),
            line: 1,
            problem: format!("the file is larger than {} MiB", LARGEST_FILE >> 20),
        });
    }
    parse_file(&bytes, caller).map_err(|(line, problem)| EnvError::Line {
        path: shown(),
        line,
        problem,
    })
}

/// The text of an environment file. An error is a line number and what is wrong there.
fn parse_file(
    bytes: &[u8],
    caller: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Assignment>, (usize, String)> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut assignments = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line)
            .map_err(|_| (number, "the line is not valid UTF-8".to_owned()))?;
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, caller(line)),
        };
        if name.is_empty() {
            return Err((number, "no name before '='".to_owned()));
        }
        if name.contains([' ', '\t']) {
            return Err((number, format!("the name '{name}' contains a space")));
        }
        if line.contains('\0') {
            return Err((number, format!("the value of {name} holds a NUL byte")));
        }
        if let Some(value) = value {
            assignments.push(Assignment::Set(EnvVar {
                name: name.to_owned(),
                value,
            }));
        }
    }
    Ok(assignments)
}

/// Merges everything in the order of its rank: defaults, the image's, what was asked for.
pub fn merge(
    image: &[String],
    asked: &[Assignment],
    hostname: &str,
    terminal: bool,
) -> Vec<EnvVar> {
    let mut merged = Vec::new();
    let mut set = |name: &str, value: &str| {
        let variable = EnvVar {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        put(&mut merged, variable);
    };
    set("PATH", DEFAULT_PATH);
    set("HOSTNAME", hostname);
    if terminal {
        set("TERM", "xterm");
    }
    for entry in image.iter().filter_map(|entry| EnvVar::parse(entry)) {
        put(&mut merged, entry);
    }
    for assignment in asked {
        match assignment {
            Assignment::Set(variable) => put(&mut merged, variable.clone()),
            Assignment::Unset(name) => merged.retain(|variable| variable.name != *name),
        }
    }
    merged
}

fn put(merged: &mut Vec<EnvVar>, variable: EnvVar) {
    match merged.iter_mut().find(|other| other.name == variable.name) {
        Some(other) => *other = variable,
        None => merged.push(variable),
    }
}

#[cfg(test)]
mod tests {
    use super::{Assignment, merge, parse_file, parse_flag};

    fn caller(name: &str) -> Option<String> {
        (name == "MINE").then(|| "from the caller".to_owned())
    }

    fn shown(assignments: &[Assignment]) -> Vec<String> {
        assignments
            .iter()
            .map(|assignment| match assignment {
                Assignment::Set(v) => format!("{}={}", v.name, v.value),
                Assignment::Unset(name) => format!("-{name}"),
            })
            .collect()
    }

    #[test]
    fn flags() {
        for (text, expected) in [
            ("A=b=c", "A=b=c"),
            ("A=", "A="),
            ("U=http://x/?a=1,b=2", "U=http://x/?a=1,b=2"),
            ("MINE", "MINE=from the caller"),
            ("OTHER", "-OTHER"),
            ("a b=c", "a b=c"),
        ] {
            assert_eq!(shown(&[parse_flag(text, caller).unwrap()]), [expected]);
        }
        for bad in ["", "=x", "A=\0"] {
            parse_flag(bad, caller).unwrap_err();
        }
    }

    #[test]
    fn files_are_taken_as_they_stand() {
        let text = "\u{feff}# comment\n\n  A=1\n\tB= two words  \r\nC=\"quoted\" # no comment\n\
                    D=$A\nE='x'\n#F=1\nMINE\nOTHER\nG=\nH=a=b\n   # indented comment\nlast=x";
        assert_eq!(
            shown(&parse_file(text.as_bytes(), caller).unwrap()),
            [
                "A=1",
                "B= two words  ",
                "C=\"quoted\" # no comment",
                "D=$A",
                "E='x'",
                "MINE=from the caller",
                "G=",
                "H=a=b",
                "last=x"
            ]
        );
    }

    #[test]
    fn bad_lines_are_told_by_number() {
        for (text, line, word) in [
            ("A=1\n=x\n", 2, "no name"),
            ("\n\nexport A=1\n", 3, "space"),
            ("A =1\n", 1, "space"),
            ("A\tB\n", 1, "space"),
        ] {
            let (number, problem) = parse_file(text.as_bytes(), caller).unwrap_err();
            assert_eq!(number, line, "{text:?}");
            assert!(problem.contains(word), "{problem}");
        }
        assert!(parse_file(b"A=\xff\n", caller).is_err());
    }

    #[test]
    fn later_values_win_in_the_earlier_place() {
        let image = ["PATH=/image", "A=1", "B=2", "C=3", "broken"].map(str::to_owned);
        let asked: Vec<Assignment> = ["B=4", "OTHER", "C", "D=5"]
            .iter()
            .map(|text| parse_flag(text, caller).unwrap())
            .collect();
        let merged: Vec<String> = merge(&image, &asked, "box", true)
            .into_iter()
            .map(|v| format!("{}={}", v.name, v.value))
            .collect();
        assert_eq!(
            merged,
            [
                "PATH=/image",
                "HOSTNAME=box",
                "TERM=xterm",
                "A=1",
                "B=4",
                "D=5"
            ]
        );
        let bare = merge(&[], &[], "box", false);
        assert_eq!(bare[0].name, "PATH");
        assert_eq!(bare.len(), 2);
    }

    #[test]
    fn debug_shows_no_value() {
        let secret = parse_flag("TOKEN=hunter2", caller).unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
