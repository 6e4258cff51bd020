//! `firebuild build --check` and `--call`: what can be said of a Dockerfile without building it.
//!
//! The answers have the fields of BuildKit's subrequests (`lint`, `outline`, `targets`). As there, a check ends with 1
//! when it has anything to say.

use std::process::ExitCode;

use firebuild_engine::build::{self, CheckReport, Outline, OutlineMount, Request, Target};
use firebuild_engine::cancel::Cancel;
use firebuild_engine::paths::Paths;
use serde_json::{Value, json};

use super::Done;
use super::rootfs::{failure, snippet};
use crate::args::{CallFormat, RootfsArgs};
use crate::failure::Failure;
use crate::report::diagnostic::render;
use crate::report::table::Table;
use crate::report::{finding, output};

/// What is asked of a Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Check,
    Outline,
    Targets,
}

/// The call that the flags ask for; nothing when they ask for a build.
pub(super) fn wanted(args: &RootfsArgs) -> Result<Option<(Call, CallFormat)>, Failure> {
    let mut format = args.format;
    let call = match args.call.as_deref() {
        None if args.check => Some(Call::Check),
        None => None,
        Some(text) => {
            let mut fields = text.split(',');
            let call = match fields.next().unwrap_or_default() {
                "build" => None,
                "check" | "lint" => Some(Call::Check),
                "outline" => Some(Call::Outline),
                "targets" => Some(Call::Targets),
                other => {
                    return Err(Failure::usage(format!("--call {other:?} is not known"))
                        .hint("it is one of build, check, outline, targets"));
                }
            };
            for field in fields {
                format = Some(match field {
                    "format=json" => CallFormat::Json,
                    "format=text" => CallFormat::Text,
                    _ => {
                        return Err(Failure::usage(format!(
                            "--call {text:?}: {field:?} is not understood"
                        ))
                        .hint("--call=check,format=json"));
                    }
                });
            }
            call
        }
    };
    if call.is_none() && format.is_some() {
        return Err(Failure::usage("--format is for --check and --call"));
    }
    Ok(call.map(|call| (call, format.unwrap_or(CallFormat::Text))))
}

/// Answers a call.
pub(super) fn run(
    paths: &Paths,
    request: &Request,
    call: Call,
    format: CallFormat,
    cancel: &Cancel,
) -> Done {
    let json = format == CallFormat::Json;
    match call {
        Call::Check => {
            let report = build::check(paths, request, cancel).map_err(failure)?;
            let clean = report.warnings.is_empty() && report.error.is_none();
            if json {
                pretty(&checked(&report));
            } else {
                tell(&report);
            }
            return Ok(ExitCode::from(u8::from(!clean)));
        }
        Call::Outline => {
            let (target, outline) = build::outline(paths, request, cancel).map_err(failure)?;
            if json {
                pretty(&outline_value(target.as_ref(), &outline));
            } else {
                outline_text(target.as_ref(), &outline);
            }
        }
        Call::Targets => {
            let targets = build::targets(paths, request, cancel).map_err(failure)?;
            if json {
                pretty(&json!({ "targets": targets.iter().map(target_value).collect::<Vec<_>>() }));
            } else {
                targets_text(&targets);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn pretty(value: &Value) {
    output::line(&format!("{value:#}"));
}

fn tell(report: &CheckReport) {
    match report.warnings.len() {
        0 if report.error.is_none() => output::line("Check complete, no warnings found."),
        0 => {}
        1 => output::line("Check complete, 1 warning has been found!"),
        count => output::line(&format!(
            "Check complete, {count} warnings have been found!"
        )),
    }
    for warned in &report.warnings {
        output::line(&format!("\n{}", finding::block(warned).trim_end()));
    }
    if let Some(error) = &report.error {
        let place = error.place().map(snippet);
        output::note(render(error, place.as_ref(), error.help()).trim_end());
    }
}

fn checked(report: &CheckReport) -> Value {
    let warnings: Vec<Value> = report.warnings.iter().map(finding::value).collect();
    let file = report.warnings.first().map(|warned| warned.file.as_str());
    let place = report.error.as_ref().and_then(build::BuildError::place);
    let file = file.or(place.map(|place| place.file.as_str()));
    let mut value = json!({
        "warnings": warnings,
        "sources": [{ "filename": file.unwrap_or("Dockerfile"), "language": "Dockerfile" }],
    });
    if let Some(error) = &report.error {
        let causes =
            std::iter::successors(std::error::Error::source(error), |cause| cause.source());
        let mut message = error.to_string();
        for cause in causes.map(ToString::to_string) {
            if !message.ends_with(&cause) {
                message = format!("{message}: {cause}");
            }
        }
        value["buildError"] = json!({ "message": message });
        if let Some(place) = place {
            value["buildError"]["location"] = finding::location(&place.text, &place.span);
        }
    }
    value
}

fn target_value(target: &Target) -> Value {
    let mut value = json!({
        "name": target.name, "default": target.default, "base": target.base, "line": target.line,
    });
    if let Some(text) = &target.description {
        value["description"] = json!(text);
    }
    if let Some(text) = &target.platform {
        value["platform"] = json!(text);
    }
    value
}

fn targets_text(targets: &[Target]) {
    let mut table = Table::new(&["TARGET", "DESCRIPTION"]);
    for target in targets {
        let name = match (target.name.as_str(), target.default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        table.row(vec![name, target.description.clone().unwrap_or_default()]);
    }
    output::raw(table.text().as_bytes());
}

fn outline_value(target: Option<&Target>, outline: &Outline) -> Value {
    let mounts = |mounts: &[OutlineMount]| -> Vec<Value> {
        let mounts = mounts.iter();
        mounts
            .map(|mount| json!({ "name": mount.id, "required": mount.required }))
            .collect()
    };
    let args = outline.args.iter().map(|arg| {
        let mut value = json!({ "name": arg.name });
        if let Some(text) = &arg.value {
            value["value"] = json!(text);
        }
        if let Some(text) = &arg.description {
            value["description"] = json!(text);
        }
        value
    });
    json!({
        "name": target.map_or("", |target| target.name.as_str()),
        "description": target.and_then(|target| target.description.as_deref()),
        "args": args.collect::<Vec<_>>(),
        "secrets": mounts(&outline.secrets),
        "ssh": mounts(&outline.ssh),
    })
}

fn outline_text(target: Option<&Target>, outline: &Outline) {
    if let Some(target) = target {
        let name = if target.name.is_empty() {
            "(default)"
        } else {
            &target.name
        };
        output::line(&format!("TARGET:      {name}"));
        if let Some(text) = &target.description {
            output::line(&format!("DESCRIPTION: {text}"));
        }
        output::line("");
    }
    if !outline.args.is_empty() {
        let mut table = Table::new(&["BUILD ARG", "VALUE", "DESCRIPTION"]);
        for arg in &outline.args {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            table.row(vec![
                arg.name.clone(),
                text(&arg.value),
                text(&arg.description),
            ]);
        }
        output::raw(format!("{}\n", table.text()).as_bytes());
    }
    for (head, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if mounts.is_empty() {
            continue;
        }
        let mut table = Table::new(&[head, "REQUIRED"]);
        for mount in mounts {
            let required = if mount.required { "true" } else { "" };
            table.row(vec![mount.id.clone(), required.to_owned()]);
        }
        output::raw(format!("{}\n", table.text()).as_bytes());
    }
}
