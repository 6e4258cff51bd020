//! `SOURCE_DATE_EPOCH`: a number, or the name of something that has a time.
//!
//! | value | its time |
//! |---|---|
//! | `context` | the main context's: of the commit, `Last-Modified`, the newest entry of the archive; a directory has none |
//! | a named context | the same of that |
//! | a stage of `FROM scratch`, ARGs and one remote ADD | that of what is added |
//!
//! Only the caller can look at these, so lowering first asks for the time, as it asks for images.

use std::collections::BTreeMap;

use firebuild_dockerfile::{Dockerfile, InstructionKind, Stage};

use super::env::Env;
use super::{LowerError, LowerErrorKind, NamedContext, Options, Outcome, lower};
use crate::graph::Op;
use crate::resolve::Resolved;

const NAME: &str = "SOURCE_DATE_EPOCH";

/// A time that lowering needs: [`Options::times`] gets it under `name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeRequest {
    /// The value of `SOURCE_DATE_EPOCH`.
    pub name: String,
    /// What has the time.
    pub of: TimeOf,
}

/// What has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeOf {
    /// A context; the main one has the empty name.
    Context(String),
    /// An [`Op::Http`] or [`Op::Git`].
    Source(Box<Op>),
}

/// The value, from a build argument or a global ARG.
fn text(build_args: &BTreeMap<String, String>, globals: &Env) -> String {
    let global = globals.get(NAME).filter(|value| !value.is_empty());
    let given = build_args.get(NAME).map(String::as_str);
    given.or(global).unwrap_or_default().to_owned()
}

/// What must be looked at before the time is known.
pub(super) fn request(
    file: &Dockerfile,
    options: &Options,
    globals: &Env,
) -> Result<Option<TimeRequest>, LowerError> {
    let name = text(&options.build_args, globals);
    if name.is_empty() || name.parse::<i64>().is_ok() || options.times.contains_key(&name) {
        return Ok(None);
    }
    let of = if name == "context" {
        TimeOf::Context(String::new())
    } else if options.contexts.get(&name) == Some(&NamedContext::Files) {
        TimeOf::Context(name.clone())
    } else {
        let stage = file
            .stages
            .iter()
            .find(|stage| stage.name.as_ref().is_some_and(|known| known.text == name));
        match stage {
            Some(stage) => TimeOf::Source(Box::new(source_of(file, stage, options, &name)?)),
            None => return Ok(None),
        }
    };
    Ok(Some(TimeRequest { name, of }))
}

/// What a stage adds, where it does nothing else.
fn source_of(
    file: &Dockerfile,
    stage: &Stage,
    options: &Options,
    name: &str,
) -> Result<Op, LowerError> {
    let wrong = || {
        LowerError::new(
            LowerErrorKind::Epoch,
            format!("invalid SOURCE_DATE_EPOCH: {name:?}"),
        )
        .at(stage.from_span)
        .with_hint(
            "a stage that stands for a time is FROM scratch, ARGs, and one ADD of a remote source",
        )
    };
    let mut adds = 0;
    for instruction in &stage.instructions {
        match &instruction.kind {
            InstructionKind::Arg(_) => {}
            InstructionKind::Add(_) => adds += 1,
            _ => return Err(wrong()),
        }
    }
    if stage.base.text != "scratch" || adds != 1 {
        return Err(wrong());
    }
    // The stage as a build of its own, so that its arguments count as they always do.
    let mut alone = options.clone();
    alone.target = Some(name.to_owned());
    alone.build_args.insert(NAME.to_owned(), String::new());
    let Outcome::Lowered(lowered) = lower(file, &Resolved::default(), &alone)? else {
        return Err(wrong());
    };
    let mut sources = lowered
        .graph
        .vertices
        .into_iter()
        .filter_map(|vertex| match vertex.op {
            op @ (Op::Http(_) | Op::Git(_) | Op::Context(_)) => Some(op),
            _ => None,
        });
    match (sources.next(), sources.next()) {
        (Some(op @ (Op::Http(_) | Op::Git(_))), None) => Ok(op),
        _ => Err(wrong()),
    }
}

/// The time; the value in both places becomes what it stands for.
pub(super) fn epoch(
    build_args: &mut BTreeMap<String, String>,
    globals: &mut Env,
    options: &Options,
) -> Result<Option<i64>, LowerError> {
    let text = text(build_args, globals);
    let known = options.times.get(&text);
    // What has no time is as good as no value.
    if text.is_empty() || known == Some(&None) {
        build_args.remove(NAME);
        globals.remove(NAME);
        return Ok(None);
    }
    let seconds = match known {
        Some(Some(seconds)) => *seconds,
        _ => text.parse().map_err(|error: std::num::ParseIntError| {
            LowerError::new(
                LowerErrorKind::Epoch,
                format!("invalid SOURCE_DATE_EPOCH: {text:?}"),
            )
            .with_hint("give whole seconds since 1970-01-01, context, the name of a context or of a stage, or nothing")
            .caused_by(error)
        })?,
    };
    if known.is_some() {
        if let Some(value) = build_args.get_mut(NAME) {
            *value = seconds.to_string();
        }
        if globals.get(NAME).is_some() {
            globals.set(NAME, &seconds.to_string())?;
        }
    }
    Ok(Some(seconds))
}
