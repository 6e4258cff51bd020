//! The last steps on the way to the step's own program.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use firebuild_accounts::{Accounts, Identity, MAX_FILE};
use firebuild_sys::process;
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, accessat, statat};

use super::root::{self, Root};
use super::{Result, confine};
use crate::job::{Failure, FailureKind, Scope, StepJob};

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that is ready to be executed.
pub(super) struct Program {
    argv: Vec<CString>,
    env: Vec<CString>,
    path: OsString,
}

/// Enters the root and becomes the step's user; everything that can fail for a reason of ours is done when this returns.
pub(super) fn prepare(job: &StepJob, root: &Root, scope: Scope) -> Result<Program> {
    let identity = identity(job, root)?;
    let program = program(job, &identity)?;
    root::enter(root)?;
    if !job.hostname.is_empty() {
        rustix::system::sethostname(job.hostname.as_bytes()).map_err(Failure::because(
            FailureKind::Step,
            format!("cannot set the host name {:?}", job.hostname),
        ))?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let cwd = if job.cwd.is_empty() {
        "/"
    } else {
        job.cwd.as_str()
    };
    fs_err::create_dir_all(cwd)
        .and_then(|()| rustix::process::chdir(cwd).map_err(io::Error::from))
        .map_err(Failure::because(
            FailureKind::Step,
            format!("cannot go to the working directory {cwd}"),
        ))?;
    rustix::process::setsid().map_err(Failure::because(
        FailureKind::Host,
        "cannot make a session for the step",
    ))?;
    confine::become_user(&identity, job.insecure, scope)?;
    Ok(program)
}

/// Executes it. Returns the code to leave with when that is not possible, which has then been told on standard error.
pub(super) fn execute(program: &Program) -> i32 {
    let name = program.argv[0].to_string_lossy().into_owned();
    let (error, missing) = match find(&program.argv[0], &program.path) {
        Some(path) => {
            let error = process::exec(&path, &program.argv, &program.env);
            // Also for a script whose interpreter is not there.
            let missing = error.kind() == io::ErrorKind::NotFound;
            (describe(&error), missing)
        }
        None => ("executable file not found in $PATH".to_owned(), true),
    };
    let message = format!("exec: {name:?}: {error}\n");
    let _ = rustix::io::write(rustix::stdio::stderr(), message.as_bytes());
    if missing { 127 } else { 126 }
}

fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "no such file or directory".into(),
        Some(libc::EACCES) => "permission denied".into(),
        Some(libc::ENOEXEC) => "exec format error".into(),
        _ => error.to_string(),
    }
}

fn identity(job: &StepJob, root: &Root) -> Result<Identity> {
    let read = |path| root::read_file(root.fd.as_fd(), path, MAX_FILE + 1);
    let accounts = Accounts::parse(read("etc/passwd").as_deref(), read("etc/group").as_deref());
    accounts.resolve_user(&job.user).map_err(Failure::because(
        FailureKind::Step,
        format!("cannot run the step as {:?}", job.user),
    ))
}

fn program(job: &StepJob, identity: &Identity) -> Result<Program> {
    let string = |bytes: Vec<u8>| {
        CString::new(bytes).map_err(|error| {
            let text = String::from_utf8_lossy(&error.into_vec()).into_owned();
            Failure::new(
                FailureKind::Step,
                format!("a NUL byte cannot be in an argument or a variable: {text:?}"),
            )
        })
    };
    let mut variables: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (name, value) in &job.env {
        set(&mut variables, name.as_bytes(), value.as_bytes());
    }
    if !variables.iter().any(|(name, _)| name == b"HOME") {
        set(
            &mut variables,
            b"HOME",
            identity.home.as_os_str().as_bytes(),
        );
    }
    let path = variables
        .iter()
        .find(|(name, _)| name == b"PATH")
        .map(|(_, value)| value.clone());
    let env = variables
        .into_iter()
        .map(|(name, value)| string([name, value].join(&b'=')))
        .collect::<Result<_>>()?;
    let argv: Vec<CString> = job
        .argv
        .iter()
        .map(|word| string(word.clone().into_bytes()))
        .collect::<Result<_>>()?;
    if argv.is_empty() {
        return Err(Failure::new(FailureKind::Step, "the step has no command"));
    }
    let path = OsString::from_vec(path.unwrap_or_else(|| DEFAULT_PATH.into()));
    Ok(Program { argv, env, path })
}

fn set(variables: &mut Vec<(Vec<u8>, Vec<u8>)>, name: &[u8], value: &[u8]) {
    match variables.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value.to_vec(),
        None => variables.push((name.to_vec(), value.to_vec())),
    }
}

/// The file that a command's name means: a path as it is, else the first executable file of `PATH`.
fn find(name: &CString, path: &OsString) -> Option<CString> {
    if name.as_bytes().contains(&b'/') {
        return Some(name.clone());
    }
    if name.as_bytes().is_empty() {
        return None;
    }
    path.as_bytes()
        .split(|byte| *byte == b':')
        .find_map(|directory| {
            let directory = if directory.is_empty() {
                b"."
            } else {
                directory
            };
            let candidate = CString::new([directory, name.as_bytes()].join(&b'/')).ok()?;
            let stat = statat(CWD, &candidate, AtFlags::empty()).ok()?;
            let usable = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && accessat(CWD, &candidate, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
            usable.then_some(candidate)
        })
}
