//! `firebuild top`: the processes of a VM.

use std::process::ExitCode;

use firebuild_engine::paths::Paths;
use firebuild_engine::session::{self, ProcessInfo};

use super::Done;
use crate::args::{Format, TopArgs};
use crate::report::output;
use crate::report::table::{Table, size};

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &TopArgs) -> Done {
    let list = session::top(paths, &args.vm)?;
    if args.format.format == Format::Json {
        output::line(&serde_json::to_string_pretty(&list.processes)?);
    } else {
        let mut table = Table::new(&["USER", "PID", "PPID", "TTY", "TIME", "RSS", "CMD"]);
        for process in &list.processes {
            table.row(row(process));
        }
        output::raw(table.text().as_bytes());
    }
    if list.more > 0 {
        output::note(&format!("note: {} processes more", list.more));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(process: &ProcessInfo) -> Vec<String> {
    let seconds = process.cpu_ms / 1000;
    let terminal = if process.terminal.is_empty() {
        "?"
    } else {
        &process.terminal
    };
    vec![
        plain(&process.user),
        process.pid.to_string(),
        process.ppid.to_string(),
        plain(terminal),
        format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
        size(process.memory),
        plain(&process.command),
    ]
}

/// What a guest says is printed without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
