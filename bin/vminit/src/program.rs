//! Finding and executing the application's program, by the rules of Docker (Go's `exec.LookPath` as runc uses it).
//!
//! This runs in the child, as the application's user: what that user may not see is not found.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use firebuild_guest_proto::FailureReason;
use firebuild_sys::process::exec;
use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

/// Where programs are looked up when the environment has no `PATH` (Docker's `system.DefaultPathEnv`).
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Replaces this process by the program; returns only to say why it could not.
pub(crate) fn run(argv: &[CString], env: &[CString], path: &OsStr) -> (FailureReason, String) {
    let Some(program) = argv.first() else {
        return (FailureReason::NotFound, "no program is named".to_owned());
    };
    let shown = String::from_utf8_lossy(program.to_bytes()).into_owned();
    let candidates = candidates(program.to_bytes(), path);
    let by_path = !program.to_bytes().contains(&b'/');
    let mut verdict = None;
    for candidate in candidates {
        let usable = check(&candidate);
        match usable {
            Ok(()) => {
                let error = exec(&candidate, argv, env);
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                return (
                    reason(errno),
                    format!("exec {}: {}", candidate.to_string_lossy(), words(errno)),
                );
            }
            // In a directory of PATH, a file that cannot be executed is passed over.
            Err(_) if by_path => {}
            Err(errno) => verdict = Some(errno),
        }
    }
    refusal(&shown, verdict)
}

/// Where the program is that [`run`] would execute, for somebody else to do it.
pub(crate) fn look_up(name: &str, path: &OsStr) -> Result<String, (FailureReason, String)> {
    let by_path = !name.contains('/');
    let mut verdict = None;
    for candidate in candidates(name.as_bytes(), path) {
        match check(&candidate) {
            Ok(()) => return Ok(candidate.to_string_lossy().into_owned()),
            Err(_) if by_path => {}
            Err(errno) => verdict = Some(errno),
        }
    }
    Err(refusal(name, verdict))
}

/// Why a program cannot be executed; without a verdict it was not found.
fn refusal(shown: &str, verdict: Option<Errno>) -> (FailureReason, String) {
    match verdict {
        Some(errno) => (reason(errno), format!("exec {shown}: {}", words(errno))),
        None => (
            FailureReason::NotFound,
            format!("exec {shown}: executable file not found in $PATH"),
        ),
    }
}

/// The paths at which the program may be, in order.
fn candidates(program: &[u8], path: &OsStr) -> Vec<CString> {
    if program.contains(&b'/') {
        return CString::new(program).into_iter().collect();
    }
    let join = |directory: &[u8]| {
        let directory: &[u8] = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        CString::new([directory, b"/", program].concat()).ok()
    };
    path.as_bytes()
        .split(|byte| *byte == b':')
        .filter_map(join)
        .collect()
}

/// Whether the caller may execute what lies there.
fn check(path: &CString) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path.as_c_str())?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::accessat(CWD, path.as_c_str(), Access::EXEC_OK, AtFlags::EACCESS)
        // Before Linux 5.8 there is no call that looks at the effective ids; both are the same here.
        .or_else(|errno| match errno {
            Errno::NOSYS | Errno::INVAL => rustix::fs::access(path.as_c_str(), Access::EXEC_OK),
            errno => Err(errno),
        })
}

fn reason(errno: Errno) -> FailureReason {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG => FailureReason::NotFound,
        _ => FailureReason::CannotExecute,
    }
}

fn words(errno: Errno) -> String {
    match errno {
        Errno::NOENT => {
            "no such file or directory (or the interpreter that it names is missing)".to_owned()
        }
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::ISDIR => "is a directory".to_owned(),
        Errno::NOEXEC => {
            "exec format error (not a program for this machine, or a script without #!)".to_owned()
        }
        errno => errno.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::{CString, OsStr};

    use firebuild_guest_proto::FailureReason;

    use super::{candidates, check, look_up, run};

    fn texts(program: &str, path: &str) -> Vec<String> {
        let found = candidates(program.as_bytes(), OsStr::new(path));
        found
            .into_iter()
            .map(|path| path.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_name_is_looked_up_in_path_and_a_path_is_not() {
        assert_eq!(texts("sh", "/a:/b"), ["/a/sh", "/b/sh"]);
        assert_eq!(texts("sh", "/a::"), ["/a/sh", "./sh", "./sh"]);
        assert_eq!(texts("./sh", "/a:/b"), ["./sh"]);
        assert_eq!(texts("/bin/sh", ""), ["/bin/sh"]);
    }

    #[test]
    fn what_cannot_be_executed_says_so() {
        let failure = |program: &str, path: &str| {
            run(&[CString::new(program).unwrap()], &[], OsStr::new(path))
        };
        let (reason, text) = failure("no-such-program", "/usr/bin:/bin");
        assert_eq!(reason, FailureReason::NotFound);
        assert_eq!(
            text,
            "exec no-such-program: executable file not found in $PATH"
        );
        assert_eq!(failure("/no/such/program", "").0, FailureReason::NotFound);
        assert_eq!(failure("/etc", "").0, FailureReason::CannotExecute);
        assert_eq!(failure("/etc/passwd", "").0, FailureReason::CannotExecute);
        // Docker passes over what is no program; there is none called like the directory.
        assert_eq!(failure("passwd", "/etc").0, FailureReason::NotFound);
        // Whoever only looks is told the same.
        for (program, path) in [
            ("no-such-program", "/usr/bin:/bin"),
            ("/no/such/program", ""),
            ("/etc/passwd", ""),
            ("passwd", "/etc"),
        ] {
            let told = look_up(program, OsStr::new(path)).unwrap_err();
            assert_eq!(told, failure(program, path));
        }
        assert_eq!(
            look_up("sh", OsStr::new("/nowhere:/bin")).unwrap(),
            "/bin/sh"
        );
        assert_eq!(check(&CString::new("/bin/sh").unwrap()), Ok(()));
    }
}
