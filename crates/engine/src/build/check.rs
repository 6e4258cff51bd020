//! What can be said of a Dockerfile without building it: findings of the checks, targets, parameters.
//!
//! ```text
//!  check    parse ▸ look configurations up ▸ lower all stages (or the target)  ▸ warnings, error
//!  outline  the same for the target                                            ▸ arguments, secrets, agents
//!  targets  parse                                                              ▸ stages
//! ```
//!
//! No layer is fetched and nothing is written: of an image only its configuration is needed.

use std::sync::Arc;

use firebuild_build::cancel::Cancel;
use firebuild_build::event::{Event, Sink, Warned};
use firebuild_build::lower::{LowerError, Outline};
use firebuild_build::remote::Remote;
use firebuild_dockerfile::{
    CheckOptions, Dockerfile, LineIndex, Span, Warning, lint, nearest_exact,
};

use super::{
    BuildError, BuildErrorKind, Request, Source, agents, find, open, parse, prepare, secrets,
};
use firebuild_store::Store;

use crate::paths::Paths;

/// Findings that are told; each costs a look through the file.
const MAX_FINDINGS: usize = 500;

/// Names that people mean by a misspelt image, as BuildKit's.
const COMMON_IMAGES: [&str; 7] = [
    "alpine", "busybox", "centos", "debian", "fedora", "golang", "ubuntu",
];

/// What the checks found.
#[derive(Debug)]
pub struct CheckReport {
    /// Findings, in order of their places.
    pub warnings: Vec<Warned>,
    /// Why the Dockerfile cannot be built, if it cannot.
    pub error: Option<BuildError>,
}

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name; empty when it has none.
    pub name: String,
    /// Whether it is built when no target is named.
    pub default: bool,
    /// What the comment above it says.
    pub description: Option<String>,
    /// What it starts from, as written.
    pub base: String,
    /// Its `--platform`, as written.
    pub platform: Option<String>,
    /// Line of its FROM, counted from 1.
    pub line: usize,
}

/// Checks a Dockerfile: all of its stages, or those that the target needs.
///
/// # Errors
/// When there is nothing to check. What is wrong with the Dockerfile is in the report.
pub fn check(paths: &Paths, request: &Request, cancel: &Cancel) -> Result<CheckReport, BuildError> {
    let store = open(paths)?;
    let mut request = request.clone();
    request.only_check = true;
    let found = std::sync::Mutex::new(Vec::new());
    let sink = |event| {
        if let Event::Warning(warned) = event
            && let Ok(mut found) = found.lock()
        {
            found.push(*warned);
        }
    };
    let (secrets, agents) = (secrets(&request), agents(&request));
    let remote = Remote::new(&store, &secrets, &agents, &|_| {}, cancel);
    let error = prepare(&store, &remote, &request, &sink, cancel).err();
    let mut warnings = found.into_inner().unwrap_or_default();
    if let Some(error) = &error {
        match error.kind() {
            BuildErrorKind::Source | BuildErrorKind::Usage | BuildErrorKind::Cancelled => {
                return Err(error_of(error));
            }
            // What the text alone tells is worth knowing where an image cannot be had.
            _ if warnings.is_empty() => warnings = text_only(&store, &request, cancel)?,
            _ => {}
        }
    }
    Ok(CheckReport { warnings, error })
}

fn error_of(error: &BuildError) -> BuildError {
    let text = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let causes: Vec<String> = text.map(ToString::to_string).collect();
    let message = std::iter::once(error.to_string()).chain(causes);
    BuildError::new(error.kind(), message.collect::<Vec<_>>().join(": "))
        .hints(error.help().to_vec())
}

/// The findings that need no image.
fn text_only(store: &Store, request: &Request, cancel: &Cancel) -> Result<Vec<Warned>, BuildError> {
    let sources = find(store, request, cancel)?;
    let (source, parsed) = parse(sources.name, &sources.dockerfile);
    let Ok(file) = parsed else {
        return Ok(Vec::new());
    };
    let options = file.directives.check.as_ref().map(|word| &word.text);
    let given = request.build_args.get("BUILDKIT_DOCKERFILE_CHECK");
    let options = given.or(options).map(|text| CheckOptions::parse(text));
    let Ok(options) = options.transpose().map(Option::unwrap_or_default) else {
        return Ok(Vec::new());
    };
    Ok(warned(&source, &file, &lint(&file, &options)))
}

/// The stages of a Dockerfile.
///
/// # Errors
/// When it cannot be read or is wrong.
pub fn targets(
    paths: &Paths,
    request: &Request,
    cancel: &Cancel,
) -> Result<Vec<Target>, BuildError> {
    let sources = find(&open(paths)?, request, cancel)?;
    let (source, parsed) = parse(sources.name, &sources.dockerfile);
    let file = parsed?;
    let lines = LineIndex::new(&source.text);
    let last = file.stages.len() - 1;
    let stages = file.stages.iter().enumerate();
    Ok(stages
        .map(|(index, stage)| Target {
            name: stage
                .name
                .as_ref()
                .map_or_else(String::new, |name| name.text.clone()),
            default: index == last,
            description: stage.doc.clone(),
            base: stage.base.text.clone(),
            platform: stage.platform.as_ref().map(|word| word.text.clone()),
            line: lines.position(stage.from_span.start).line,
        })
        .collect())
}

/// The parameters of a target, and its name and description.
///
/// # Errors
/// As of a build, up to the graph.
pub fn outline(
    paths: &Paths,
    request: &Request,
    cancel: &Cancel,
) -> Result<(Option<Target>, Outline), BuildError> {
    let store = open(paths)?;
    let mut request = request.clone();
    request.only_check = true;
    // Only the target counts here, also where it is the last stage.
    let stages = targets(paths, &request, cancel)?;
    let target = match request.target.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => {
            let name = name.to_lowercase();
            stages.into_iter().rfind(|stage| stage.name == name)
        }
        None => stages.into_iter().next_back(),
    };
    request.all_stages = false;
    let (secrets, agents) = (secrets(&request), agents(&request));
    let remote = Remote::new(&store, &secrets, &agents, &|_| {}, cancel);
    let prepared = prepare(&store, &remote, &request, &|_| {}, cancel)?;
    Ok((target, prepared.lowered.outline))
}

/// A hint where an image that cannot be had is a misspelt stage, or a misspelt common image.
pub(super) fn near_stage(file: &Dockerfile, source: &Source, span: Span) -> Option<String> {
    let written = source.text.get(span.range())?;
    let name = written.rsplit('=').next().unwrap_or(written);
    let stages = file.stages.iter().filter_map(|stage| stage.name.as_ref());
    if let Some(near) = nearest_exact(name, stages.map(|name| name.text.as_str())) {
        return Some(format!("did you mean the stage {near}?"));
    }
    let bare = name.split([':', '@']).next().unwrap_or(name);
    let near = nearest_exact(bare, COMMON_IMAGES)?;
    Some(format!("did you mean {near}{}?", &name[bare.len()..]))
}

/// Tells what the checks found.
pub(super) fn report(sink: Sink<'_>, source: &Source, file: &Dockerfile, warnings: &[Warning]) {
    for warned in warned(source, file, warnings) {
        sink(Event::Warning(Box::new(warned)));
    }
    if let Some(more) = warnings.len().checked_sub(MAX_FINDINGS + 1) {
        let message = format!("{} more findings of the checks are not shown", more + 1);
        sink(Event::Notice { message });
    }
}

/// What the checks had found when lowering failed.
pub(super) fn report_before(
    sink: Sink<'_>,
    source: &Source,
    file: &Dockerfile,
    error: &LowerError,
) {
    report(sink, source, file, error.warnings());
}

fn warned(source: &Source, file: &Dockerfile, warnings: &[Warning]) -> Vec<Warned> {
    let lines = LineIndex::new(&source.text);
    let text: Arc<str> = Arc::from(source.text.as_str());
    let tell = |warning: &Warning| {
        let fix = warning.fix(file, &source.text);
        Warned {
            rule: warning.rule.name(),
            description: warning.rule.description(),
            url: warning.rule.url(),
            message: warning.message.clone(),
            file: source.name.clone(),
            text: text.clone(),
            span: warning.span.range(),
            line: lines.position(warning.span.start).line,
            advice: fix.advice,
            edit: fix.edit.map(|edit| (edit.span.range(), edit.text)),
        }
    };
    warnings.iter().take(MAX_FINDINGS).map(tell).collect()
}
