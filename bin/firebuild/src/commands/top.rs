//! `firebuild top`: the processes of a VM.

use std::process::ExitCode;

use firebuild_engine::paths::Paths;
use firebuild_engine::session::{self, ProcessInfo};

use super::Done;
use crate::args::{Format, TopArgs};
use crate::failure::Failure;
use crate::report::output;
use crate::report::table::{Table, size};

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &TopArgs) -> Done {
    let columns = columns(&args.options)?;
    let list = session::top(paths, &args.vm)?;
    if args.format.format == Format::Json {
        output::line(&serde_json::to_string_pretty(&list.processes)?);
    } else {
        let heads: Vec<&str> = columns.iter().map(|column| column.head()).collect();
        let mut table = Table::new(&heads);
        for process in &list.processes {
            table.row(columns.iter().map(|column| column.of(process)).collect());
        }
        output::raw(table.text().as_bytes());
    }
    if list.more > 0 {
        output::note(&format!("note: {} processes more", list.more));
    }
    Ok(ExitCode::SUCCESS)
}

/// What can be shown of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    User,
    Pid,
    Ppid,
    Tty,
    Time,
    /// For people.
    Memory,
    /// In KiB, as ps has it.
    Rss,
    Cmd,
    Comm,
}

/// What is shown without `-o`.
const USUAL: [Column; 7] = [
    Column::User,
    Column::Pid,
    Column::Ppid,
    Column::Tty,
    Column::Time,
    Column::Memory,
    Column::Cmd,
];
const KNOWN: &str = "user, pid, ppid, tty, time, rss, cmd, comm";

impl Column {
    /// The column that ps has under this name.
    fn named(name: &str) -> Option<Column> {
        Some(match name {
            "user" | "euser" | "uname" => Column::User,
            "pid" | "tgid" => Column::Pid,
            "ppid" => Column::Ppid,
            "tty" | "tt" | "tname" => Column::Tty,
            "time" | "cputime" => Column::Time,
            "rss" | "rssize" | "rsz" => Column::Rss,
            "cmd" | "args" | "command" => Column::Cmd,
            "comm" | "ucmd" | "ucomm" => Column::Comm,
            _ => return None,
        })
    }

    fn head(self) -> &'static str {
        match self {
            Column::User => "USER",
            Column::Pid => "PID",
            Column::Ppid => "PPID",
            Column::Tty => "TTY",
            Column::Time => "TIME",
            Column::Memory | Column::Rss => "RSS",
            Column::Cmd => "CMD",
            Column::Comm => "COMMAND",
        }
    }

    fn of(self, process: &ProcessInfo) -> String {
        match self {
            Column::User => plain(&process.user),
            Column::Pid => process.pid.to_string(),
            Column::Ppid => process.ppid.to_string(),
            Column::Tty if process.terminal.is_empty() => "?".to_owned(),
            Column::Tty => plain(&process.terminal),
            Column::Time => {
                let seconds = process.cpu_ms / 1000;
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                format!("{hours:02}:{minutes:02}:{:02}", seconds % 60)
            }
            Column::Memory => size(process.memory),
            Column::Rss => (process.memory / 1024).to_string(),
            Column::Cmd => plain(&process.command),
            Column::Comm => {
                let program = process.command.split(' ').next().unwrap_or_default();
                plain(program.rsplit('/').next().unwrap_or_default())
            }
        }
    }
}

/// The columns that options of ps ask for. Those that choose processes choose all, which is what there is.
fn columns(options: &[String]) -> Result<Vec<Column>, Failure> {
    let mut columns = Vec::new();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let letters = option.strip_prefix('-').unwrap_or(option);
        let (chosen, list) = match letters.split_once('o') {
            Some((chosen, "")) => (chosen, Some(options.next().map_or("", String::as_str))),
            Some((chosen, list)) => (chosen, Some(list)),
            None => (letters, None),
        };
        let all_known = chosen.chars().all(|letter| "eAfauxwl".contains(letter));
        if !all_known || letters.is_empty() {
            return Err(unknown(&format!(
                "{option:?} is no option of ps that is known here"
            )));
        }
        let Some(list) = list else { continue };
        for name in list.split(',') {
            let column = Column::named(name)
                .ok_or_else(|| unknown(&format!("{name:?} is no column that is known here")))?;
            columns.push(column);
        }
    }
    if columns.is_empty() {
        columns = USUAL.to_vec();
    }
    Ok(columns)
}

fn unknown(problem: &str) -> Failure {
    Failure::usage(problem.to_owned()).hint(format!(
        "-o takes {KNOWN}; for more, firebuild exec VM ps …"
    ))
}

/// What a guest says is printed without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Column, USUAL, columns};

    #[test]
    fn options_of_ps_are_read() {
        let of = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            columns(&words).map_err(|_| ())
        };
        for usual in ["", "-ef", "aux", "-e", "ax", "-A -f"] {
            assert_eq!(of(usual), Ok(USUAL.to_vec()), "{usual}");
        }
        let pid_and_command = Ok(vec![Column::Pid, Column::Cmd]);
        for line in [
            "-o pid,args",
            "-eo pid,cmd",
            "-opid,command",
            "o pid,cmd",
            "-o pid -o cmd",
        ] {
            assert_eq!(of(line), pid_and_command, "{line}");
        }
        for wrong in ["-o", "-o nonsense", "-p 1", "--forest", "-"] {
            assert_eq!(of(wrong), Err(()), "{wrong}");
        }
    }
}
