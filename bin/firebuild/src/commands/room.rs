//! `firebuild du` and `firebuild prune`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;

use firebuild_engine::cancel::Cancel;
use firebuild_engine::paths::Paths;
use firebuild_engine::room::{Freed, Room, Row, State, Wanted};
use serde_json::{Value, json};

use super::Done;
use crate::args::{DuArgs, Format, PruneArgs};
use crate::failure::Failure;
use crate::report::output;
use crate::report::table::{Table, size};
use crate::sizes;

/// Columns of a description in a table.
const DESCRIPTION: usize = 60;

/// Runs `du`.
pub(crate) fn du(paths: &Paths, args: &DuArgs, cancel: &Cancel) -> Done {
    let room = Room::look(paths)?;
    if args.verify {
        return verify(&room, cancel);
    }
    let rows = room.rows();
    if args.format.format == Format::Json {
        output::line(&serde_json::to_string_pretty(&json!({
            "items": rows, "totals": totals_json(&rows),
            "size": sum(&rows, |_| true), "reclaimable": sum(&rows, reclaimable),
        }))?);
        return Ok(ExitCode::SUCCESS);
    }
    output::raw(list(&rows, args.verbose).as_bytes());
    output::line("");
    output::raw(totals(&rows).as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn verify(room: &Room, cancel: &Cancel) -> Done {
    let found = room.check(cancel)?;
    for fault in &found.faults {
        output::line(&format!("{}: {}", fault.path.display(), fault.what));
    }
    output::note(&format!(
        "{} blobs, {} references and {} records were read, {} faults found",
        found.blobs,
        found.references,
        found.records,
        found.faults.len()
    ));
    Ok(if found.faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs `prune`.
pub(crate) fn prune(paths: &Paths, args: &PruneArgs, cancel: &Cancel) -> Done {
    let mut wanted = Wanted {
        all: args.all,
        dry_run: true,
        ..Wanted::default()
    };
    for filter in &args.filter {
        wanted
            .filter(filter)
            .map_err(|error| Failure::new(error).code(2))?;
    }
    if let Some(text) = &args.keep_storage {
        wanted.keep_bytes = Some(sizes::bytes(text, "--keep-storage")?);
    }
    let room = Room::look(paths)?;
    if args.dry_run || !args.force {
        let planned = room.prune(&wanted, cancel)?;
        if args.dry_run || planned.rows.is_empty() {
            report(&planned, args, "would be freed");
            return Ok(ExitCode::SUCCESS);
        }
        if !agreed(&planned, args.all)? {
            output::note("nothing was removed");
            return Ok(ExitCode::FAILURE);
        }
    }
    wanted.dry_run = false;
    let freed = room.prune(&wanted, cancel)?;
    report(&freed, args, "freed");
    for (path, error) in &freed.failed {
        output::note(&format!(
            "warning: cannot remove {}: {error}",
            path.display()
        ));
    }
    Ok(if freed.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Asks the person. Whoever cannot answer has not agreed.
fn agreed(planned: &Freed, all: bool) -> Result<bool, Failure> {
    let what = if all {
        "everything that neither a named image nor a running build or VM needs"
    } else {
        "what no named image needs"
    };
    let mut err = std::io::stderr().lock();
    write!(
        err,
        "This removes {what}: {} things, {}.\nGo on? [y/N] ",
        planned.rows.len(),
        size(planned.bytes)
    )?;
    err.flush()?;
    let mut answer = String::new();
    let count = std::io::stdin().lock().read_line(&mut answer)?;
    if count == 0 {
        writeln!(err)?;
        return Err(Failure::usage("nobody answered").hint("--force removes without a question"));
    }
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

fn report(freed: &Freed, args: &PruneArgs, verb: &str) {
    if args.format.format == Format::Json {
        let value = json!({
            "items": freed.rows, "totals": totals_json(&freed.rows), "size": freed.bytes, "dryRun": args.dry_run,
        });
        output::line(&value.to_string());
        return;
    }
    if args.verbose || args.dry_run {
        output::raw(list(&freed.rows, args.verbose).as_bytes());
    }
    output::line(&format!(
        "{} things, {} {verb}",
        freed.rows.len(),
        size(freed.bytes)
    ));
}

/// A table of things, the largest first. Small ones of one kind share a line unless `verbose`.
fn list(rows: &[Row], verbose: bool) -> String {
    let mut table = Table::new(&["TYPE", "NAME", "SIZE", "LAST USED", "STATE", "WHY"]);
    let shared = |row: &&Row| !verbose && matches!(row.kind, "record" | "image");
    let mut alone: Vec<&Row> = rows.iter().filter(|row| !shared(row)).collect();
    alone.sort_by(|one, other| other.size.cmp(&one.size).then(one.name.cmp(&other.name)));
    for row in alone {
        table.row(vec![
            row.kind.to_owned(),
            short(&row.name),
            size(row.size),
            ago(row),
            state(row.state).to_owned(),
            why(row),
        ]);
    }
    for (kind, what) in [("image", "manifests, configurations"), ("record", "steps")] {
        let group: Vec<Row> = rows
            .iter()
            .filter(|row| shared(row) && row.kind == kind)
            .cloned()
            .collect();
        let Some(last) = group.iter().max_by_key(|row| row.last_used) else {
            continue;
        };
        let free = group.iter().filter(|row| reclaimable(row)).count();
        table.row(vec![
            kind.to_owned(),
            format!("({} {what})", group.len()),
            size(sum(&group, |_| true)),
            ago(last),
            format!("{free} reclaimable"),
            String::new(),
        ]);
    }
    table.text()
}

/// Why it is there.
fn why(row: &Row) -> String {
    let mut reasons = row.used_by.clone();
    match row.images.as_slice() {
        [] => {}
        [one] => reasons.push(format!("image {one}")),
        [one, rest @ ..] => reasons.push(format!("image {one} and {} more", rest.len())),
    }
    if let Some(text) = &row.description {
        reasons.push(text.clone());
    } else if row.kind != "record" && !row.records.is_empty() {
        reasons.push(format!("{} step records", row.records.len()));
    }
    clip(&reasons.join("; "), DESCRIPTION)
}

fn totals(rows: &[Row]) -> String {
    let mut table = Table::new(&["TYPE", "COUNT", "SIZE", "RECLAIMABLE"]);
    for (kind, rows) in by_kind(rows) {
        table.row(vec![
            kind.to_owned(),
            rows.len().to_string(),
            size(sum(&rows, |_| true)),
            size(sum(&rows, reclaimable)),
        ]);
    }
    table.row(vec![
        "total".to_owned(),
        rows.len().to_string(),
        size(sum(rows, |_| true)),
        size(sum(rows, reclaimable)),
    ]);
    table.text()
}

fn totals_json(rows: &[Row]) -> BTreeMap<&'static str, Value> {
    let part = |(kind, rows): (&'static str, Vec<Row>)| {
        let value = json!({
            "count": rows.len(), "size": sum(&rows, |_| true), "reclaimable": sum(&rows, reclaimable),
        });
        (kind, value)
    };
    by_kind(rows).into_iter().map(part).collect()
}

fn by_kind(rows: &[Row]) -> BTreeMap<&'static str, Vec<Row>> {
    let mut kinds: BTreeMap<&'static str, Vec<Row>> = BTreeMap::new();
    for row in rows {
        kinds.entry(row.kind).or_default().push(row.clone());
    }
    kinds
}

fn sum(rows: &[Row], which: impl Fn(&Row) -> bool) -> u64 {
    rows.iter()
        .filter(|row| which(row))
        .map(|row| row.size)
        .sum()
}

fn reclaimable(row: &Row) -> bool {
    row.state == State::Reclaimable
}

fn state(state: State) -> &'static str {
    match state {
        State::InUse => "in use",
        State::Image => "image",
        State::Reclaimable => "reclaimable",
    }
}

/// A digest or a path with a digest, short enough for a table.
fn short(name: &str) -> String {
    match name.rsplit_once(['/', ':']) {
        Some((kind, hex)) if hex.len() >= 32 => {
            let kind = kind.strip_prefix("artifacts/").unwrap_or(kind);
            let mark = if kind == "sha256" { ":" } else { "/" };
            let hex: String = hex.chars().take(12).collect();
            format!("{kind}{mark}{hex}")
        }
        _ => clip(name, 40),
    }
}

fn ago(row: &Row) -> String {
    super::ls::ago(row.last_used.as_second())
}

fn clip(text: &str, columns: usize) -> String {
    super::ls::clip(text, columns)
}
