//! `firebuild ls`, alias `ps`: VMs as a table, as JSON, or as the original's log records.

use std::process::ExitCode;

use firebuild_engine::instance::State;
use firebuild_engine::ls::{self, Listed};
use firebuild_engine::paths::Paths;
use serde_json::{Value, json};

use super::Done;
use crate::args::{Format, LsArgs};
use crate::flags::Log;
use crate::report::output;
use crate::report::table::Table;

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &LsArgs, log: &Log) -> Done {
    let listing = ls::ls(paths, args.all)?;
    for broken in &listing.broken {
        log.note("warning", &broken.to_string());
    }
    if log.as_json() {
        for listed in &listing.instances {
            output::note(&original(paths, listed).to_string());
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.quiet {
        for listed in &listing.instances {
            output::line(listed.record.id.short());
        }
    } else if args.format.format == Format::Json {
        let all: Vec<Value> = listing
            .instances
            .iter()
            .map(|listed| json(paths, listed))
            .collect();
        output::line(&serde_json::to_string_pretty(&all)?);
    } else {
        let mut table = Table::new(&[
            "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME",
        ]);
        for listed in &listing.instances {
            let record = &listed.record;
            table.row(vec![
                record.id.short().to_owned(),
                record.image.clone(),
                clip(&record.argv.join(" "), 24),
                ago(record.created_at.as_second()),
                status(listed),
                ports(listed),
                record.name.clone(),
            ]);
        }
        output::raw(table.text().as_bytes());
    }
    Ok(ExitCode::SUCCESS)
}

fn status(listed: &Listed) -> String {
    match &listed.state {
        State::Created => "Created".to_owned(),
        State::Running {
            started,
            paused: true,
            ..
        } => format!("Up {} (Paused)", since(started.started_at.as_second())),
        State::Running { started, .. } => {
            let health = match listed.health.as_ref().map(|health| health.status.as_str()) {
                None => String::new(),
                Some("starting") => " (health: starting)".to_owned(),
                Some(word) => format!(" ({word})"),
            };
            format!("Up {}{health}", since(started.started_at.as_second()))
        }
        State::Restarting(ended) => format!(
            "Restarting ({}) {}",
            ended.exit_code,
            ago(ended.finished_at.as_second())
        ),
        State::Exited(ended) => format!(
            "Exited ({}) {}",
            ended.exit_code,
            ago(ended.finished_at.as_second())
        ),
        State::Dead => "Dead".to_owned(),
    }
}

fn ports(listed: &Listed) -> String {
    let publish = &listed.record.network.publish;
    publish
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What `inspect` knows, in short.
fn json(paths: &Paths, listed: &Listed) -> Value {
    let record = &listed.record;
    json!({
        "Id": record.id.as_str(), "Name": record.name, "Image": record.image, "Command": record.argv,
        "Created": record.created_at.to_string(), "State": listed.state.word(), "Status": status(listed),
        "Health": listed.health.as_ref().map(|health| &health.status),
        "Ports": record.network.publish, "Pid": pid(&listed.state), "IPAddress": address(paths, listed),
    })
}

/// A line as the original logged it, so that `jq -r .id` of its texts works.
fn original(paths: &Paths, listed: &Listed) -> Value {
    let record = &listed.record;
    json!({
        "@level": "info", "@message": "vmm", "@module": "ls", "@timestamp": now(),
        "id": record.id.as_str(), "running": listed.state.is_alive(), "pid": pid(&listed.state), "image": record.image,
        "started": listed.started.as_ref().map(|started| started.started_at.to_string()),
        "ip-address": address(paths, listed),
    })
}

/// The original's record of `run --daemonize`.
pub(crate) fn original_daemon_record(paths: &Paths, id: &str) {
    let Ok(listing) = ls::ls(paths, true) else {
        return;
    };
    if let Some(listed) = listing
        .instances
        .iter()
        .find(|listed| listed.record.id.as_str() == id)
    {
        let address = address(paths, listed);
        let net = listed
            .record
            .network
            .addresses
            .first()
            .cloned()
            .unwrap_or_default();
        let record = json!({
            "@level": "info", "@message": "VMM running as a daemon", "@module": "run", "@timestamp": now(),
            "cache-dir": paths.instances().join(id), "ip-address": address, "ip-net": net, "jailer-dir": "",
            "pid": pid(&listed.state), "veth-name": "", "vmm-id": id,
        });
        output::note(&record.to_string());
    }
}

fn pid(state: &State) -> i32 {
    match state {
        State::Running {
            machine: Some(machine),
            ..
        } => machine.vmm.as_ref().map_or(0, |vmm| vmm.pid),
        _ => 0,
    }
}

fn address(_: &Paths, listed: &Listed) -> String {
    let first = listed
        .record
        .network
        .addresses
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    first.split('/').next().unwrap_or_default().to_owned()
}

pub(super) fn clip(text: &str, columns: usize) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().count() <= columns {
        return text;
    }
    let mut short: String = text.chars().take(columns - 1).collect();
    short.push('…');
    short
}

pub(super) fn ago(second: i64) -> String {
    format!("{} ago", since(second))
}

fn since(second: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let seconds = now.saturating_sub(u64::try_from(second).unwrap_or(0));
    let plural = |count: u64, unit: &str| {
        if count == 1 {
            format!("1 {unit}")
        } else {
            format!("{count} {unit}s")
        }
    };
    match seconds {
        0..60 => plural(seconds, "second"),
        60..3600 => plural(seconds / 60, "minute"),
        3600..86400 => plural(seconds / 3600, "hour"),
        _ => plural(seconds / 86400, "day"),
    }
}

/// The time as RFC 3339.
fn now() -> String {
    firebuild_engine::ls::now().to_string()
}
