//! The application as a unit of systemd: its file, its variables, and what it tells the agent.
//!
//! Everything lies under `/run`, in memory. The variables stand in a file that only root reads: units can be read by
//! everybody.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use firebuild_guest_proto::{ExitStatus, FailureReason, RunConfig};
use rustix::process::Pid;

use super::{directory, fifo, pipes, signal_of, write};
use crate::error::InitError;
use crate::launch::{self, Application, Surroundings};

/// Its name.
const NAME: &str = "firebuild-app.service";
/// Where transient units lie.
const UNITS: &str = "/run/systemd/system";

/// What the agent has of the unit.
pub(super) struct Installed {
    pub(super) application: Application,
    pub(super) events: OwnedFd,
    /// The application's end of its terminal, which is there before it comes and after it has gone.
    pub(super) terminal: Option<OwnedFd>,
}

/// Puts the unit in place; its streams, and what it tells.
pub(super) fn install(
    config: &RunConfig,
    surroundings: &Surroundings,
    place: &str,
) -> Result<Installed, InitError> {
    directory(place)?;
    directory(UNITS)?;
    let identity = surroundings.identity();
    let events = fifo(&Path::new(place).join("events"), None)?;
    let (application, terminal) = match config.terminal {
        Some(size) => {
            let (application, terminal) = launch::terminal_of(size, identity)?;
            (application, Some(terminal))
        }
        None => (pipes(config, place, (identity.uid, identity.gid))?, None),
    };
    let path = match &terminal {
        Some(terminal) => Some(
            rustix::termios::ttyname(terminal, Vec::new())
                .map_err(|error| InitError::setup("cannot name the terminal", error))?
                .to_string_lossy()
                .into_owned(),
        ),
        None => None,
    };
    write(
        &format!("{place}/environment"),
        &variables(&surroundings.variables()),
        0o600,
    )?;
    let program = surroundings.look_up(&config.argv)?;
    let text = text(config, surroundings, &program, place, path.as_deref());
    write(&format!("{UNITS}/{NAME}"), &text, 0o644)?;
    let wants = format!("{UNITS}/multi-user.target.wants");
    directory(&wants)?;
    rustix::fs::symlink(format!("../{NAME}"), format!("{wants}/{NAME}"))
        .map_err(|error| InitError::setup("cannot enable the application's unit", error))?;
    Ok(Installed {
        application,
        events,
        terminal,
    })
}

fn text(
    config: &RunConfig,
    surroundings: &Surroundings,
    program: &str,
    place: &str,
    terminal: Option<&str>,
) -> String {
    let identity = surroundings.identity();
    let words: Vec<String> = config.argv.iter().map(|word| quoted(word)).collect();
    let groups: Vec<String> = identity.groups.iter().map(ToString::to_string).collect();
    let mut unit = String::new();
    // Writing to a String does not fail.
    let _ = write!(
        unit,
        "[Unit]\nDescription=The application of this VM\n\n[Service]\nType=exec\n\
         ExecStart=@{} {}\n\
         ExecStartPost=-+/bin/sh -c 'echo started $MAINPID >{place}/events'\n\
         ExecStopPost=-+/bin/sh -c 'echo ended $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS >{place}/events'\n\
         EnvironmentFile={place}/environment\nWorkingDirectory={}\nUser={}\nGroup={}\nSupplementaryGroups={}\n\
         KillMode=mixed\nKillSignal={}\nUMask=0022\n",
        quoted(program),
        words.join(" "),
        specifiers(&surroundings.directory()),
        identity.uid,
        identity.gid,
        groups.join(" "),
        config.stop_signal.number(),
    );
    match terminal {
        Some(path) => {
            let _ = write!(
                unit,
                "TTYPath={path}\nStandardInput=tty\nStandardOutput=tty\nStandardError=tty\n"
            );
        }
        None => {
            let input = match config.stdin {
                true => format!("file:{place}/stdin"),
                false => "null".to_owned(),
            };
            let _ = write!(
                unit,
                "StandardInput={input}\nStandardOutput=file:{place}/stdout\nStandardError=file:{place}/stderr\n"
            );
        }
    }
    unit
}

/// A word of `ExecStart=`: nothing in it is expanded (`systemd.service(5)`, `systemd.syntax(7)`).
fn quoted(word: &str) -> String {
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => {
                text.push('\\');
                text.push(c);
            }
            '%' => text.push_str("%%"),
            '$' => text.push_str("$$"),
            '\n' => text.push_str("\\n"),
            c if c.is_control() => {
                for byte in c.to_string().bytes() {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// A value of a setting in which only `%` means something.
fn specifiers(value: &str) -> String {
    value.replace('%', "%%")
}

/// The file of variables (`EnvironmentFile=` of `systemd.exec(5)`): in double quotes four characters are escaped.
fn variables(all: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, value) in all {
        let _ = write!(text, "{name}=\"");
        for c in value.chars() {
            if matches!(c, '"' | '\\' | '`' | '$') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push_str("\"\n");
    }
    text
}

/// What the unit tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Its main process runs.
    Started(Pid),
    /// It has ended.
    Ended {
        status: ExitStatus,
        oom_killed: bool,
    },
}

/// Reads a line: `started PID`, or `ended RESULT CODE STATUS` as `systemd.exec(5)` describes `$SERVICE_RESULT` and the
/// others.
pub(super) fn event(line: &str) -> Option<Event> {
    let mut words = line.split_ascii_whitespace();
    match words.next()? {
        "started" => Some(Event::Started(Pid::from_raw(words.next()?.parse().ok()?)?)),
        "ended" => {
            let (result, code, status) = (words.next()?, words.next(), words.next());
            let oom_killed = result == "oom-kill";
            let status = match (code, status) {
                (Some("exited"), Some(status)) => {
                    let code: u8 = status.parse().ok()?;
                    exited(code, result)
                }
                (Some("killed" | "dumped"), Some(name)) => ExitStatus::Signaled {
                    signal: name
                        .parse()
                        .unwrap_or_else(|_| signal_of(name.parse().unwrap_or(9))),
                    core_dumped: code == Some("dumped"),
                },
                // It was never executed.
                _ => ExitStatus::Failed {
                    reason: FailureReason::Setup,
                    message: format!("the application's unit could not be started: {result}"),
                },
            };
            Some(Event::Ended { status, oom_killed })
        }
        _ => None,
    }
}

/// The codes from 200 on are systemd's when it could not execute the program (`systemd.exec(5)`); an application may give
/// them too, so only the one that says just that is read so.
fn exited(code: u8, result: &str) -> ExitStatus {
    if code == 203 && result != "success" {
        return ExitStatus::Failed {
            reason: FailureReason::CannotExecute,
            message: "systemd cannot execute the application (203/EXEC)".to_owned(),
        };
    }
    ExitStatus::Exited { code }
}

#[cfg(test)]
mod tests {
    use firebuild_guest_proto::{ExitStatus, Signal};

    use super::{Event, event, quoted, variables};

    #[test]
    fn nothing_in_a_word_is_expanded() {
        assert_eq!(quoted("plain"), "\"plain\"");
        assert_eq!(
            quoted("a \"b\" \\ %h $HOME ${X}\n\u{7}"),
            r#""a \"b\" \\ %%h $$HOME $${X}\n\x07""#
        );
        let all = [("A".to_owned(), "x \"y\" $z `q` \\ \n end".to_owned())];
        assert_eq!(
            variables(&all),
            "A=\"x \\\"y\\\" \\$z \\`q\\` \\\\ \n end\"\n"
        );
    }

    #[test]
    fn what_the_unit_tells() {
        let ended = |line: &str| match event(line) {
            Some(Event::Ended { status, oom_killed }) => (status, oom_killed),
            other => panic!("{line}: {other:?}"),
        };
        assert!(matches!(event("started 123\n"), Some(Event::Started(_))));
        assert_eq!(
            ended("ended success exited 0").0,
            ExitStatus::Exited { code: 0 }
        );
        assert_eq!(
            ended("ended exit-code exited 7").0,
            ExitStatus::Exited { code: 7 }
        );
        assert_eq!(
            ended("ended oom-kill killed KILL"),
            (
                ExitStatus::Signaled {
                    signal: Signal::KILL,
                    core_dumped: false
                },
                true
            )
        );
        assert!(matches!(
            ended("ended resources").0,
            ExitStatus::Failed { .. }
        ));
        assert!(matches!(
            ended("ended exit-code exited 203").0,
            ExitStatus::Failed { .. }
        ));
        for nonsense in [
            "",
            "started",
            "started x",
            "ended",
            "ended a exited 999",
            "x",
        ] {
            assert_eq!(event(nonsense), None, "{nonsense}");
        }
    }
}
