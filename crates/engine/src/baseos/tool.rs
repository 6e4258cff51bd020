//! The bootstrap tools of distributions, run as programs.
//!
//! | tool | who may | gives |
//! |---|---|---|
//! | mmdebstrap | everybody: root, or a user with sub-uids | a tar archive on its standard output |
//! | debootstrap | root | a directory |
//!
//! A tool runs in a process group of its own, so that stopping it stops all that it started; its
//! output becomes events, and the last lines of it the cause when it fails.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use firebuild_build::cancel::Cancel;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::error::{BaseOsError, BaseOsErrorKind};
use crate::error::Error;
use crate::event::{Event, Events};

/// How many of the last lines a failure shows.
const LAST_LINES: usize = 15;
/// How long a tool may clean up after it was told to stop.
const GRACE: Duration = Duration::from_secs(20);
/// Lines are cut here; a tool that writes no line ends must not fill memory.
const LONGEST_LINE: usize = 4096;
/// Where administrators' programs are; an ordinary user often has no `sbin` on the PATH.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to bootstrap, in the terms of the tools.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) suite: String,
    /// Lines of `sources.list(5)`, the suite itself first.
    pub(crate) lines: Vec<String>,
    pub(crate) include: Vec<String>,
    /// Options in apt's notation.
    pub(crate) apt_options: Vec<String>,
    /// Commands to run in the new system.
    pub(crate) commands: Vec<Vec<String>>,
    pub(crate) environment: BTreeMap<String, String>,
}

/// The tools, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Mmdebstrap,
    Debootstrap,
}

impl Tool {
    /// The best tool that this user can run.
    pub(crate) fn find(path: Option<&OsStr>, uid: u32) -> Result<Self, BaseOsError> {
        if in_path(path, "mmdebstrap") {
            return Ok(Tool::Mmdebstrap);
        }
        let debootstrap = in_path(path, "debootstrap");
        if debootstrap && uid == 0 {
            return Ok(Tool::Debootstrap);
        }
        let only = if debootstrap {
            " (debootstrap is there, but works as root only)"
        } else {
            ""
        };
        Err(Error::new(
            BaseOsErrorKind::NoTool,
            format!(
                "mmdebstrap is needed to make a base image and is not installed{only}: \
                 install it with 'apt-get install mmdebstrap'"
            ),
        ))
    }
}

/// Runs mmdebstrap; the archive goes into `archive`.
pub(crate) fn mmdebstrap(
    plan: &Plan,
    archive: &File,
    cancel: &Cancel,
    events: Events<'_>,
) -> Result<(), BaseOsError> {
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--mode=auto", "--variant=minbase", "--architectures=amd64"])
        .args(["--format=tar"]);
    if !plan.include.is_empty() {
        command.arg(format!("--include={}", plan.include.join(",")));
    }
    for option in &plan.apt_options {
        command.arg(format!("--aptopt={option}"));
    }
    for inside in &plan.commands {
        // Hooks are shell text; each word is quoted, "$1" is the new root.
        let words: Vec<String> = inside.iter().map(|word| quote(word)).collect();
        command.arg(format!(
            "--customize-hook=chroot \"$1\" {}",
            words.join(" ")
        ));
    }
    command
        .arg("--")
        .arg(&plan.suite)
        .arg("-")
        .args(&plan.lines);
    let stdout = archive
        .try_clone()
        .map_err(|error| Error::caused(BaseOsErrorKind::Io, "cannot hand on the archive", error))?;
    command.stdout(stdout);
    run(command, plan, Words::OnStderr, cancel, events)
}

/// Runs debootstrap into `root`, then brings the system up to date from all sources and installs what
/// was asked for.
pub(crate) fn debootstrap(
    plan: &Plan,
    root: &Path,
    cancel: &Cancel,
    events: Events<'_>,
) -> Result<(), BaseOsError> {
    let main = plan.lines.first().map(String::as_str).unwrap_or_default();
    let mut words = main
        .split_ascii_whitespace()
        .filter(|word| *word != "deb" && !word.starts_with('['));
    let uri = words.next().unwrap_or_default();
    let components = words.skip(1).collect::<Vec<_>>().join(",");
    let keyring = main
        .split(['[', ']', ' '])
        .find_map(|word| word.strip_prefix("signed-by="));
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", "--arch=amd64"]);
    command.arg(format!("--components={components}"));
    if let Some(keyring) = keyring {
        command.arg(format!("--keyring={keyring}"));
    }
    // It knows no `--`; neither a suite nor an address of a mirror begins with a hyphen.
    command.arg(&plan.suite).arg(root).arg(uri);
    run(command, plan, Words::OnBoth, cancel, events)?;

    let apt = root.join("etc/apt");
    let write = |path: PathBuf, text: String| {
        fs_err::write(&path, text).map_err(|error| super::error::io("write", &path, error))
    };
    write(apt.join("sources.list"), plan.lines.join("\n") + "\n")?;
    write(
        apt.join("apt.conf.d/99mmdebstrap"),
        plan.apt_options.join("\n") + "\n",
    )?;
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let mut commands = vec![
        words("apt-get -q update"),
        words("apt-get -q -y dist-upgrade"),
    ];
    if !plan.include.is_empty() {
        let mut install = words("apt-get -q -y --no-install-recommends install");
        install.extend(plan.include.iter().cloned());
        commands.push(install);
    }
    commands.extend(plan.commands.iter().cloned());
    for inside in commands {
        let mut command = Command::new("chroot");
        command.arg(root).args(&inside);
        run(command, plan, Words::OnBoth, cancel, events)?;
    }
    Ok(())
}

/// Where a program says what it does and why it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// On standard error; its output is a result.
    OnStderr,
    /// On both: debootstrap tells even its errors on standard output.
    OnBoth,
}

/// Runs a program to its end, with its words as events.
fn run(
    mut command: Command,
    plan: &Plan,
    words: Words,
    cancel: &Cancel,
    events: Events<'_>,
) -> Result<(), BaseOsError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let cannot_start = |error: std::io::Error| {
        Error::caused(BaseOsErrorKind::Io, format!("cannot start {name}"), error)
    };
    let (mut said, theirs) = std::io::pipe().map_err(cannot_start)?;
    if words == Words::OnBoth {
        command.stdout(theirs.try_clone().map_err(cannot_start)?);
    }
    command
        .stdin(Stdio::null())
        .stderr(theirs)
        .process_group(0)
        .env_clear()
        .envs(&plan.environment);
    let mut child = command.spawn().map_err(cannot_start)?;
    // It holds the other end of the pipe.
    drop(command);
    let mut last = VecDeque::new();
    let outcome = follow(&mut child, &mut said, cancel, &mut |line| {
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line.clone());
        events(match line.strip_prefix("I: ") {
            Some(stage) => Event::Stage(stage.to_owned()),
            None => Event::Output(line),
        });
    });
    let failed = |error: std::io::Error| {
        Error::caused(BaseOsErrorKind::Io, format!("cannot follow {name}"), error)
    };
    match outcome.map_err(failed)? {
        None => Err(Error::new(
            BaseOsErrorKind::Cancelled,
            format!("{name} was stopped"),
        )),
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(Error::caused(
            BaseOsErrorKind::Failed,
            format!("{name} could not make {} ({status})", plan.suite),
            last.into_iter().collect::<Vec<_>>().join("\n"),
        )),
    }
}

/// Reads lines until the program ends. `None` when it was stopped.
fn follow(
    child: &mut Child,
    said: &mut PipeReader,
    cancel: &Cancel,
    line: &mut dyn FnMut(String),
) -> std::io::Result<Option<ExitStatus>> {
    let mut pending = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let readable = {
            let mut fds = [
                PollFd::new(&*said, PollFlags::IN),
                PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            !fds[0].revents().is_empty()
        };
        if cancel.is_raised() {
            stop(child)?;
            return Ok(None);
        }
        if !readable {
            continue;
        }
        let count = said.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        // Progress bars end their lines with a carriage return.
        for &byte in &buffer[..count] {
            match byte {
                b'\n' | b'\r' if pending.is_empty() => {}
                b'\n' | b'\r' => {
                    line(String::from_utf8_lossy(&pending).into_owned());
                    pending.clear();
                }
                _ if pending.len() < LONGEST_LINE => pending.push(byte),
                _ => {}
            }
        }
    }
    if !pending.is_empty() {
        line(String::from_utf8_lossy(&pending).into_owned());
    }
    child.wait().map(Some)
}

/// Ends the group of a program, waits while it cleans up, and kills it when it does not end. The
/// terminal's own SIGINT does not reach the group, and a caller that ignores it would pass that on.
fn stop(child: &mut Child) -> std::io::Result<()> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let signal = |signal| {
        if let Some(group) = group {
            // The group may be gone already.
            let _ = kill_process_group(group, signal);
        }
    };
    signal(Signal::TERM);
    let deadline = Instant::now() + GRACE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            signal(Signal::KILL);
            child.wait()?;
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The environment of a tool: nothing of the caller but what reaches mirrors and temporary files.
pub(crate) fn environment(
    get: impl Fn(&str) -> Option<String>,
    more: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    const PASSED: [&str; 12] = [
        "HOME",
        "LOGNAME",
        "USER",
        "TMPDIR",
        "SOURCE_DATE_EPOCH",
        "http_proxy",
        "https_proxy",
        "ftp_proxy",
        "no_proxy",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
    ];
    let mut environment: BTreeMap<String, String> = PASSED
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), get(name)?)))
        .collect();
    let path = match get("PATH") {
        Some(path) => format!("{path}:{SYSTEM_PATH}"),
        None => SYSTEM_PATH.to_owned(),
    };
    environment.insert("PATH".to_owned(), path);
    environment.insert("LC_ALL".to_owned(), "C.UTF-8".to_owned());
    environment.insert("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned());
    environment.extend(more);
    environment
}

fn in_path(path: Option<&OsStr>, program: &str) -> bool {
    let system = OsStr::new(SYSTEM_PATH);
    [path.unwrap_or_default(), system]
        .into_iter()
        .flat_map(std::env::split_paths)
        .any(|dir| dir.is_absolute() && dir.join(program).is_file())
}

/// A word of a shell command.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsStr;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use firebuild_build::cancel::Cancel;

    use super::{Plan, Tool, Words, debootstrap, environment, quote, run};
    use crate::baseos::BaseOsErrorKind;
    use crate::event::Event;
    use crate::testing::have_tool;

    fn plan() -> Plan {
        Plan {
            suite: "x".to_owned(),
            lines: Vec::new(),
            include: Vec::new(),
            apt_options: Vec::new(),
            commands: Vec::new(),
            environment: environment(|_| None, BTreeMap::new()),
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_becomes_events_and_the_last_lines_the_cause() {
        let mut events = Vec::new();
        let script = "echo 'I: begin' >&2; printf 'a\\rb\\n' >&2; echo \"[$SECRET]\" >&2; \
                      printf 'the end' >&2; exit 3";
        let error = run(
            shell(script),
            &plan(),
            Words::OnStderr,
            &Cancel::new().unwrap(),
            &mut |event| events.push(event),
        )
        .unwrap_err();
        assert_eq!(
            events,
            [
                Event::Stage("begin".to_owned()),
                Event::Output("a".to_owned()),
                Event::Output("b".to_owned()),
                Event::Output("[]".to_owned()),
                Event::Output("the end".to_owned()),
            ]
        );
        assert_eq!(error.kind(), BaseOsErrorKind::Failed);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.ends_with("the end"), "{cause}");
    }

    #[test]
    fn debootstrap_takes_what_it_is_given_and_its_reasons_are_told() {
        let test = "debootstrap_takes_what_it_is_given_and_its_reasons_are_told";
        if !have_tool(test, "debootstrap") || !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mirror = dir.path().join("no-mirror");
        let plan = Plan {
            suite: "bookworm".to_owned(),
            lines: vec![format!("deb file://{} bookworm main", mirror.display())],
            ..plan()
        };
        let root = dir.path().join("root");
        fs_err::create_dir(&root).unwrap();
        let error = debootstrap(&plan, &root, &Cancel::new().unwrap(), &mut |_| {}).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        // It got as far as the mirror, and says so on its standard output.
        assert!(
            cause.contains("Release") && !cause.contains("option"),
            "{cause}"
        );
    }

    #[test]
    fn a_stop_reaches_the_whole_group() {
        let cancel = Cancel::new().unwrap();
        let raiser = cancel.clone();
        let start = Instant::now();
        // The background sleep keeps the pipe open: only a signal to the group ends it.
        let error = run(
            shell("sleep 600 & echo up >&2; sleep 600"),
            &plan(),
            Words::OnStderr,
            &cancel,
            &mut |_| raiser.raise(),
        )
        .unwrap_err();
        assert_eq!(error.kind(), BaseOsErrorKind::Cancelled);
        assert!(start.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn the_tool_is_told_by_who_asks_and_what_is_there() {
        let empty = tempfile::tempdir().unwrap();
        fs_err::write(empty.path().join("mmdebstrap"), "").unwrap();
        let path = Some(empty.path().as_os_str());
        assert_eq!(Tool::find(path, 1000).unwrap(), Tool::Mmdebstrap);
        let _ = Tool::find(Some(OsStr::new("relative")), 1000); // never looked up below the cwd
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quote("it's $HOME"), "'it'\\''s $HOME'");
    }

    #[test]
    fn the_environment_is_a_short_list() {
        let environment = environment(
            |name| match name {
                "PATH" => Some("/x".to_owned()),
                "AWS_SECRET" | "no_proxy" => Some("v".to_owned()),
                _ => None,
            },
            BTreeMap::from([("http_proxy".to_owned(), "p".to_owned())]),
        );
        assert!(environment["PATH"].starts_with("/x:"));
        assert!(!environment.contains_key("AWS_SECRET"));
        assert_eq!(environment["http_proxy"], "p");
        assert_eq!(environment["no_proxy"], "v");
    }
}
