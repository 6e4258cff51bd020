//! Which Firecracker it is: what it can do depends on that, so it is asked before anything is planned.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The oldest version that this backend drives.
pub const OLDEST: Version = Version::new(1, 10, 0);

/// How long `--version` may take.
const LIMIT: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(2);
/// What is read of its answer.
const MOST_BYTES: u64 = 4096;

/// A version of Firecracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

/// A version that cannot be known or used.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VersionError {
    /// The program does not tell; what it did instead.
    Silent(String),
    /// It is older than [`OLDEST`].
    Old(Version),
}

impl fmt::Display for VersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(how) => write!(f, "it does not tell its version: {how}"),
            Self::Old(version) => write!(
                f,
                "it is version {version}, and {OLDEST} is the oldest that can be used; get a newer one"
            ),
        }
    }
}

impl std::error::Error for VersionError {}

impl Version {
    /// A version by its numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Reads the first line of `firecracker --version`: `Firecracker v1.17.0-dev`.
    fn parse(text: &str) -> Option<Self> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Firecracker v"))?;
        let numbers = line.split(['-', '+', ' ']).next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self {
            major: next()?,
            minor: next()?,
            patch: next().unwrap_or(0),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Asks a program which version it is; takes 3 s at most.
///
/// # Errors
/// A program that is not Firecracker, or one that is too old.
pub fn version_of(program: &Path) -> Result<Version, VersionError> {
    let silent = |how: String| VersionError::Silent(how);
    let mut child = Command::new(program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| silent(error.to_string()))?;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
            other => {
                // It is ours and nobody else waits for it; a failure to end it changes nothing here.
                let _ = child.kill();
                let _ = child.wait();
                let how = other.err().map_or_else(
                    || format!("no answer within {} s", LIMIT.as_secs()),
                    |error| error.to_string(),
                );
                return Err(silent(how));
            }
        }
    };
    let mut text = String::new();
    if let Some(output) = child.stdout.take() {
        // What is no text is no version either.
        let _ = output.take(MOST_BYTES).read_to_string(&mut text);
    }
    let version = Version::parse(&text).ok_or_else(|| {
        let first = text.lines().next().unwrap_or("nothing");
        silent(format!("{} says {first:?} ({status})", program.display()))
    })?;
    if version < OLDEST {
        return Err(VersionError::Old(version));
    }
    Ok(version)
}

/// Whether a program needs a loader and libraries, which a jail does not have (`elf(5)`, `PT_INTERP`). What cannot be
/// read as an ELF needs none that is known.
#[must_use]
pub fn needs_libraries(program: &Path) -> bool {
    const PT_INTERP: u32 = 3;
    let mut head = Vec::new();
    let read =
        fs_err::File::open(program).and_then(|file| file.take(64 << 10).read_to_end(&mut head));
    if read.is_err() || !head.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let number = |at: usize, bytes: usize| {
        let field = head.get(at..at + bytes)?;
        let number = field
            .iter()
            .rev()
            .fold(0, |all, byte| all << 8 | usize::from(*byte));
        Some(number)
    };
    // e_phoff, e_phentsize, e_phnum
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return false;
    };
    (0..count).any(|index| {
        let at = table.checked_add(index * size);
        at.filter(|at| *at < head.len())
            .and_then(|at| number(at, 4))
            .is_some_and(|kind| kind == PT_INTERP as usize)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{Version, VersionError, needs_libraries, version_of};

    fn program(script: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("firecracker");
        fs_err::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    #[test]
    fn versions_are_read_and_compared() {
        let read = |text| Version::parse(text);
        assert_eq!(
            read("Firecracker v1.17.0-dev\n\nother"),
            Some(Version::new(1, 17, 0))
        );
        assert_eq!(read("Firecracker v1.10.1"), Some(Version::new(1, 10, 1)));
        assert_eq!(read("QEMU emulator version 7.2"), None);
        assert!(Version::new(1, 9, 9) < Version::new(1, 10, 0));
        assert_eq!(Version::new(1, 10, 1).to_string(), "1.10.1");
    }

    #[test]
    fn programs_that_need_libraries_are_known() {
        // The shell of this system does, the probe's kernel does not, and a script is none.
        assert!(needs_libraries("/bin/sh".as_ref()));
        let kernel = concat!(env!("CARGO_MANIFEST_DIR"), "/src/accel/pvh.elf");
        assert!(!needs_libraries(kernel.as_ref()));
        let (_dir, path) = program("exit 0");
        assert!(!needs_libraries(&path));
    }

    #[test]
    fn programs_are_asked() {
        let (_dir, path) = program("echo 'Firecracker v1.11.0'");
        assert_eq!(version_of(&path), Ok(Version::new(1, 11, 0)));
        let (_dir, path) = program("echo 'Firecracker v0.25.2'");
        let old = version_of(&path).unwrap_err();
        assert_eq!(
            old.to_string(),
            "it is version 0.25.2, and 1.10.0 is the oldest that can be used; get a newer one"
        );
        let (_dir, path) = program("echo hello; exit 3");
        assert!(matches!(
            version_of(&path),
            Err(VersionError::Silent(how)) if how.contains("hello")
        ));
        let missing = version_of("/no/such/program".as_ref());
        assert!(matches!(missing, Err(VersionError::Silent(_))));
    }
}
