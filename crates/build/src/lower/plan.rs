//! The FROM lines: what each stage starts from, before anything is lowered.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use firebuild_dockerfile::{
    ArgDefinition, CheckOptions, Dockerfile, InstructionKind, Rule, Span, Stage, Warning, Word,
    expand_word, nearest, nearest_exact,
};
use firebuild_oci::{Platform, Reference};

use super::env::{Env, expansion_error};
use super::{LowerError, LowerErrorKind, NamedContext, Options, time};
use crate::resolve::ImageRequest;

/// All stages, with names settled.
pub(super) struct Plan<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) options: &'a Options,
    /// `--build-arg`, with the epoch in its final form.
    pub(super) build_args: BTreeMap<String, String>,
    /// Automatic and global arguments.
    pub(super) globals: Env,
    /// The platform that is built for.
    pub(super) platform: Platform,
    pub(super) epoch: Option<i64>,
    pub(super) stages: Vec<StagePlan<'a>>,
    pub(super) target: usize,
    /// Stages by name in lower case; of duplicates the last.
    names: HashMap<&'a str, usize>,
    /// `--build-context` by normalised name.
    contexts: HashMap<String, &'a str>,
    /// The last declaration of each global argument.
    pub(super) declared_globals: HashMap<&'a str, (&'a ArgDefinition, Span)>,
}

/// One stage.
pub(super) struct StagePlan<'a> {
    pub(super) stage: &'a Stage,
    pub(super) base: Base,
    /// `--platform`.
    pub(super) platform: Option<Platform>,
}

/// What a stage starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// An earlier stage.
    Stage(usize),
    /// Anything else, by name; looked at only when the stage is needed.
    Named(String),
    /// A `--build-context` stands for the whole stage, instructions included.
    Replaced(String),
}

/// Something that is no stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nothing.
    Scratch,
    /// The files of a `--build-context`.
    Files(String),
    /// An image.
    Image(ImageRequest),
}

/// The time that must be looked up before a plan can be made.
pub(super) fn time_request(
    file: &Dockerfile,
    options: &Options,
) -> Result<Option<time::TimeRequest>, LowerError> {
    let platform = options.platform.as_ref().unwrap_or(&options.build_platform);
    let automatic = automatic_args(file, options, platform)?;
    let globals = global_args(file, automatic, Some(&options.build_args))?;
    time::request(file, options, &globals)
}

impl<'a> Plan<'a> {
    pub(super) fn new(file: &'a Dockerfile, options: &'a Options) -> Result<Self, LowerError> {
        let platform = options
            .platform
            .clone()
            .unwrap_or_else(|| options.build_platform.clone());
        let mut build_args = options.build_args.clone();
        let automatic = automatic_args(file, options, &platform)?;
        let mut globals = global_args(file, automatic, Some(&build_args))?;
        let epoch = time::epoch(&mut build_args, &mut globals, options)?;
        let mut plan = Self {
            file,
            options,
            build_args,
            globals,
            platform,
            epoch,
            stages: Vec::with_capacity(file.stages.len()),
            target: 0,
            names: HashMap::new(),
            declared_globals: declared_globals(file),
            contexts: options
                .contexts
                .keys()
                .map(|name| (normalised_name(name), name.as_str()))
                .collect(),
        };
        for (index, stage) in file.stages.iter().enumerate() {
            let planned = plan
                .stage(stage)
                .map_err(|error| error.in_stage(&stage_label(index, stage)))?;
            plan.stages.push(planned);
            if let Some(name) = &stage.name {
                plan.names.insert(name.text.as_str(), index);
            }
        }
        plan.target = plan.find_target()?;
        let extra = !options.before.is_empty() || !options.after.is_empty();
        if extra && matches!(plan.stages[plan.target].base, Base::Replaced(_)) {
            let message = "a --build-context stands for the target stage, which leaves no place for commands before and after its instructions";
            return Err(LowerError::new(LowerErrorKind::Target, message));
        }
        Ok(plan)
    }

    fn stage(&self, stage: &'a Stage) -> Result<StagePlan<'a>, LowerError> {
        let base = self.global_word(&stage.base)?;
        if base.is_empty() {
            let message = format!("base name ({}) should not be blank", stage.base.text);
            return Err(LowerError::new(LowerErrorKind::Reference, message).at(stage.base.span));
        }
        let platform = match &stage.platform {
            // A flag without a value says nothing; one whose variable is empty says something wrong.
            Some(word) if !word.text.is_empty() => Some(self.stage_platform(word)?),
            _ => None,
        };
        let wanted = platform.as_ref().unwrap_or(&self.platform);
        let replaced = stage
            .name
            .as_ref()
            .and_then(|name| self.context(&name.text, wanted));
        let base = match (replaced, self.names.get(base.as_str())) {
            (Some(context), _) => Base::Replaced(context.to_owned()),
            (None, Some(&index)) => Base::Stage(index),
            (None, None) => Base::Named(base),
        };
        Ok(StagePlan {
            stage,
            base,
            platform,
        })
    }

    fn stage_platform(&self, word: &Word) -> Result<Platform, LowerError> {
        let text = self.global_word(word)?;
        if text.is_empty() {
            let message = format!("empty platform value from expression {}", word.text);
            return Err(LowerError::new(LowerErrorKind::Platform, message).at(word.span));
        }
        text.parse().map_err(|error| {
            let message = format!("failed to parse platform {}", word.text);
            LowerError::new(LowerErrorKind::Platform, message)
                .at(word.span)
                .caused_by(error)
        })
    }

    /// Expands a word of a FROM line.
    fn global_word(&self, word: &Word) -> Result<String, LowerError> {
        expand_word(&word.text, self.file.escape(), |name| {
            self.globals.get(name)
        })
        .map(|expanded| expanded.text)
        .map_err(|error| expansion_error(word, error))
    }

    fn find_target(&self) -> Result<usize, LowerError> {
        let Some(name) = self
            .options
            .target
            .as_deref()
            .filter(|name| !name.is_empty())
        else {
            return Ok(self.stages.len().saturating_sub(1));
        };
        self.stage_named(name).ok_or_else(|| {
            let mut message = format!("target stage {name:?} could not be found");
            let names = self.names.keys().copied();
            if let Some(near) = nearest(name, names) {
                message += &format!(" (did you mean {near}?)");
            }
            LowerError::new(LowerErrorKind::Target, message)
        })
    }

    /// The last stage of a name, in any case.
    pub(super) fn stage_named(&self, name: &str) -> Option<usize> {
        self.names.get(name.to_lowercase().as_str()).copied()
    }

    /// The name of a stage; empty when it has none.
    pub(super) fn name(&self, index: usize) -> &'a str {
        let stage = self.stages[index].stage;
        stage.name.as_ref().map_or("", |name| name.text.as_str())
    }

    /// What people call a stage.
    pub(super) fn label(&self, index: usize) -> String {
        stage_label(index, self.stages[index].stage)
    }

    /// The context that stands for a name, by the name that the user gave it.
    fn context(&self, name: &str, platform: &Platform) -> Option<&'a str> {
        if matches!(name, "scratch" | "context") {
            return None;
        }
        let name = normalised_name(name);
        let qualified = format!("{name}::{}", platform.clone().normalised());
        self.contexts
            .get(&qualified)
            .or_else(|| self.contexts.get(&name))
            .copied()
    }

    /// What a name that is no stage stands for.
    pub(super) fn origin(&self, name: &str, platform: &Platform) -> Result<Origin, LowerError> {
        if name == "scratch" {
            return Ok(Origin::Scratch);
        }
        if let Some(context) = self.context(name, platform) {
            return Ok(self.context_origin(context, platform));
        }
        let reference: Reference = name.parse().map_err(|error| {
            let message = format!("cannot use {name:?} as an image");
            let mut wrong = LowerError::new(LowerErrorKind::Reference, message).caused_by(error);
            if let Some(near) = nearest_exact(name, self.names.keys().copied()) {
                wrong = wrong.with_hint(format!("did you mean the stage {near}?"));
            }
            wrong
        })?;
        Ok(Origin::Image(ImageRequest {
            reference: reference.canonical(),
            platform: platform.to_string(),
        }))
    }

    /// What a `--build-context` stands for.
    pub(super) fn context_origin(&self, name: &str, platform: &Platform) -> Origin {
        match self.options.contexts.get(name) {
            Some(NamedContext::Image(reference)) => Origin::Image(ImageRequest {
                reference: reference.clone(),
                platform: platform.to_string(),
            }),
            Some(NamedContext::Files) | None => Origin::Files(name.to_owned()),
        }
    }

    /// What a stage starts from, unless that is a stage.
    pub(super) fn base_origin(&self, index: usize) -> Result<Option<Origin>, LowerError> {
        let planned = &self.stages[index];
        let platform = planned.platform.as_ref().unwrap_or(&self.platform);
        match &planned.base {
            Base::Stage(_) => Ok(None),
            Base::Replaced(context) => Ok(Some(self.context_origin(context, platform))),
            Base::Named(name) => {
                let origin = self
                    .origin(name, platform)
                    .map_err(|error| error.at(planned.stage.base.span))?;
                Ok(Some(origin))
            }
        }
    }

    /// Checks of the FROM lines that need values.
    pub(super) fn warn(&self, checks: &CheckOptions, warnings: &mut Vec<Warning>) {
        let defaults = automatic_args(self.file, self.options, &self.platform)
            .and_then(|automatic| global_args(self.file, automatic, None));
        let Ok(defaults) = defaults else { return };
        for planned in &self.stages {
            let stage = planned.stage;
            self.warn_of_platform(planned, checks, warnings);
            let expanded = expand_word(&stage.base.text, self.file.escape(), |name| {
                defaults.get(name)
            });
            let Ok(expanded) = expanded else { continue };
            if expanded.text.parse::<Reference>().is_err()
                && checks.wants(Rule::InvalidDefaultArgInFrom, &[])
            {
                let message = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    stage.base.text
                );
                warnings.push(Warning::new(
                    Rule::InvalidDefaultArgInFrom,
                    stage.base.span,
                    message,
                ));
            }
        }
    }
}

impl Plan<'_> {
    /// Checks of `FROM --platform`.
    fn warn_of_platform(
        &self,
        planned: &StagePlan<'_>,
        checks: &CheckOptions,
        warnings: &mut Vec<Warning>,
    ) {
        let stage = planned.stage;
        let (Some(word), Some(platform)) = (&stage.platform, &planned.platform) else {
            return;
        };
        let names = RefCell::new(BTreeSet::new());
        let expanded = expand_word(&word.text, self.file.escape(), |name| {
            names.borrow_mut().insert(name.to_owned());
            self.globals.get(name)
        });
        let names = names.into_inner();
        let text = expanded.map(|expanded| expanded.text).unwrap_or_default();
        let mut report = |rule, message| {
            if checks.wants(rule, &stage.comments) {
                warnings.push(Warning::new(rule, word.span, message));
            }
        };
        if names.iter().eq(["TARGETPLATFORM"]) && self.globals.get("TARGETPLATFORM") == Some(&text)
        {
            let message = format!(
                "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
                word.text
            );
            report(Rule::RedundantTargetPlatform, message);
        }
        // Stages made for one platform say so in their name.
        let is_named = stage.name.as_ref().is_some_and(|name| {
            name.text.contains(&platform.os) || name.text.contains(&platform.architecture)
        });
        if names.is_empty() && !is_named {
            let message = format!("FROM --platform flag should not use constant value {text:?}");
            report(Rule::FromPlatformFlagConstDisallowed, message);
        }
    }
}

fn stage_label(index: usize, stage: &Stage) -> String {
    stage
        .name
        .as_ref()
        .map_or_else(|| format!("stage-{index}"), |name| name.text.clone())
}

/// The short form of an image name, without `:latest`: how contexts are looked up.
fn normalised_name(name: &str) -> String {
    let (name, platform) = match name.split_once("::") {
        Some((name, platform)) => (name, Some(platform)),
        None => (name, None),
    };
    let short = match name.parse::<Reference>() {
        Ok(reference) => reference.familiar(),
        Err(_) => name.to_owned(),
    };
    let short = short.strip_suffix(":latest").unwrap_or(&short);
    match platform {
        Some(platform) => format!("{short}::{platform}"),
        None => short.to_owned(),
    }
}

/// The arguments that every build has.
fn automatic_args(
    file: &Dockerfile,
    options: &Options,
    target: &Platform,
) -> Result<Env, LowerError> {
    let last = file.stages.last().and_then(|stage| stage.name.as_ref());
    let stage = options
        .target
        .as_deref()
        .or(last.map(|name| name.text.as_str()))
        .filter(|name| !name.is_empty())
        .unwrap_or("default");
    let build = &options.build_platform;
    let mut env = Env::default();
    for (name, value) in [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        (
            "BUILDOSVERSION",
            build.os_version.clone().unwrap_or_default(),
        ),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone().unwrap_or_default()),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        (
            "TARGETOSVERSION",
            target.os_version.clone().unwrap_or_default(),
        ),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", target.variant.clone().unwrap_or_default()),
        ("TARGETSTAGE", stage.to_owned()),
    ] {
        env.set(name, options.build_args.get(name).unwrap_or(&value))?;
    }
    Ok(env)
}

fn declared_globals(file: &Dockerfile) -> HashMap<&str, (&ArgDefinition, Span)> {
    let mut declared = HashMap::new();
    for instruction in &file.global_args {
        if let InstructionKind::Arg(args) = &instruction.kind {
            let args = args.iter();
            declared.extend(args.map(|arg| (arg.name.text.as_str(), (arg, instruction.span))));
        }
    }
    declared
}

/// Adds the ARG instructions above the first FROM.
fn global_args(
    file: &Dockerfile,
    mut env: Env,
    build_args: Option<&BTreeMap<String, String>>,
) -> Result<Env, LowerError> {
    for instruction in &file.global_args {
        let InstructionKind::Arg(args) = &instruction.kind else {
            continue;
        };
        for arg in args {
            let given = build_args.and_then(|args| args.get(&arg.name.text));
            let value = match (given, &arg.default) {
                (Some(value), _) => value.clone(),
                (None, Some(default)) => {
                    expand_word(&default.text, file.escape(), |name| env.get(name))
                        .map_err(|error| expansion_error(default, error))?
                        .text
                }
                (None, None) => continue,
            };
            env.set(&arg.name.text, &value)
                .map_err(|error| error.at(instruction.span))?;
        }
    }
    Ok(env)
}
