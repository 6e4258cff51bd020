//! What the target needs: stages, triggers of their bases, and images.

use std::collections::BTreeSet;

use firebuild_dockerfile::{
    Instruction, InstructionKind, Span, Word, expand_word, parse_instruction,
};
use firebuild_oci::Platform;

use super::env::expansion_error;
use super::plan::{Base, Origin, Plan};
use super::{LowerError, LowerErrorKind};
use crate::resolve::{ImageRequest, Resolved};

/// Triggers that one base may have.
const MAX_TRIGGERS: usize = 10_000;

/// The result.
pub(super) struct Reach {
    needed: Vec<bool>,
    /// The last stage that uses a stage.
    last_user: Vec<usize>,
    /// The instructions that bases fire, by stage.
    triggers: Vec<Vec<Instruction>>,
    /// Images that are not resolved yet, and who wants them.
    pub(super) missing: Vec<(ImageRequest, Span)>,
}

/// What `--from` or `from=` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stage(usize),
    Other(Origin),
}

impl Reach {
    pub(super) fn new(plan: &Plan<'_>, resolved: &Resolved) -> Result<Self, LowerError> {
        check_cycles(plan)?;
        let count = plan.stages.len();
        let mut reach = Self {
            needed: vec![false; count],
            last_user: vec![0; count],
            triggers: (0..count).map(|_| Vec::new()).collect(),
            missing: Vec::new(),
        };
        let mut todo = vec![plan.target];
        if plan.options.all_stages {
            todo.splice(0..0, 0..count);
        }
        while let Some(index) = todo.pop() {
            if std::mem::replace(&mut reach.needed[index], true) {
                continue;
            }
            let found = reach.visit(plan, resolved, index).map_err(|error| {
                error
                    .in_stage(&plan.label(index))
                    .at(plan.stages[index].stage.from_span)
            })?;
            for used in &found {
                reach.last_user[*used] = reach.last_user[*used].max(index);
            }
            todo.extend(found);
        }
        reach.last_user[plan.target] = usize::MAX;
        reach.missing.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        // Each once, at its first place.
        let mut seen = BTreeSet::new();
        reach
            .missing
            .retain(|(request, _)| seen.insert(request.clone()));
        Ok(reach)
    }

    pub(super) fn is_needed(&self, index: usize) -> bool {
        self.needed[index]
    }

    /// The last stage that uses a stage; of the target, none comes close.
    pub(super) fn last_user(&self, index: usize) -> usize {
        self.last_user[index]
    }

    pub(super) fn triggers(&self, index: usize) -> &[Instruction] {
        &self.triggers[index]
    }

    /// Looks at one stage; gives the stages that it uses.
    fn visit(
        &mut self,
        plan: &Plan<'_>,
        resolved: &Resolved,
        index: usize,
    ) -> Result<Vec<usize>, LowerError> {
        let planned = &plan.stages[index];
        let stage = planned.stage;
        let mut stages = Vec::new();
        let texts: Vec<&str> = match (&planned.base, plan.base_origin(index)?) {
            (Base::Stage(base), _) => {
                stages.push(*base);
                own_triggers(plan, *base)
            }
            (_, Some(Origin::Image(request))) => match resolved.images.get(&request) {
                Some(image) => image
                    .config
                    .config
                    .on_build
                    .iter()
                    .map(String::as_str)
                    .collect(),
                None => {
                    self.missing.push((request, stage.base.span));
                    Vec::new()
                }
            },
            _ => Vec::new(),
        };
        if matches!(planned.base, Base::Replaced(_)) {
            return Ok(stages);
        }
        self.triggers[index] = parse_triggers(&texts).map_err(|error| error.at(stage.from_span))?;
        let own = stage
            .instructions
            .iter()
            .map(|instruction| (instruction, None));
        let fired = self.triggers[index]
            .iter()
            .map(|instruction| (instruction, Some(stage.from_span)));
        for (instruction, place) in fired.chain(own) {
            for (word, is_copy) in sources(instruction) {
                let span = place.unwrap_or(word.span);
                let source =
                    find_source(plan, word, is_copy, &plan.platform).map_err(
                        |error| match place {
                            Some(place) => error.moved_to(place),
                            None => error,
                        },
                    )?;
                match source {
                    Source::Stage(other) => {
                        check_order(plan, index, other, word, is_copy, instruction)
                            .map_err(|error| error.at(span))?;
                        stages.push(other);
                    }
                    Source::Other(Origin::Image(request))
                        if !resolved.images.contains_key(&request) =>
                    {
                        self.missing.push((request, span));
                    }
                    Source::Other(_) => {}
                }
            }
        }
        Ok(stages)
    }
}

/// The triggers that a stage of this file sets for those built from it.
fn own_triggers<'a>(plan: &Plan<'a>, base: usize) -> Vec<&'a str> {
    let planned = &plan.stages[base];
    if matches!(planned.base, Base::Replaced(_)) {
        return Vec::new();
    }
    let instructions = planned.stage.instructions.iter();
    instructions
        .filter_map(|instruction| match &instruction.kind {
            InstructionKind::OnBuild(onbuild) => Some(onbuild.trigger.as_str()),
            _ => None,
        })
        .collect()
}

fn parse_triggers(texts: &[&str]) -> Result<Vec<Instruction>, LowerError> {
    if texts.len() > MAX_TRIGGERS {
        let message = format!(
            "the base has {} ONBUILD triggers, more than {MAX_TRIGGERS}",
            texts.len()
        );
        return Err(LowerError::new(LowerErrorKind::TooLarge, message));
    }
    let parse = |text: &&str| {
        parse_instruction(text).map_err(|error| {
            let message = format!("cannot use the ONBUILD trigger {text:?} of the base");
            LowerError::new(LowerErrorKind::Trigger, message).caused_by(error)
        })
    };
    texts.iter().map(parse).collect()
}

/// The names that an instruction takes files from, and whether it is a COPY.
pub(super) fn sources(instruction: &Instruction) -> Vec<(&Word, bool)> {
    match &instruction.kind {
        InstructionKind::Copy(copy) => copy.from.iter().map(|word| (word, true)).collect(),
        InstructionKind::Run(run) => {
            let mounts = run.mounts.iter();
            mounts
                .filter_map(|mount| mount.from.as_ref())
                .map(|word| (word, false))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// What a name stands for. Numbers of stages count for COPY only.
pub(super) fn find_source(
    plan: &Plan<'_>,
    word: &Word,
    is_copy: bool,
    platform: &Platform,
) -> Result<Source, LowerError> {
    let name = word.text.as_str();
    if is_copy && let Some(index) = stage_number(plan, word)? {
        return Ok(Source::Stage(index));
    }
    if let Some(index) = plan.stage_named(name) {
        return Ok(Source::Stage(index));
    }
    let origin = plan
        .origin(name, platform)
        .map_err(|error| error.at(word.span))?;
    Ok(Source::Other(origin))
}

/// The stage that `COPY --from` names by its number, if it is a number.
fn stage_number(plan: &Plan<'_>, word: &Word) -> Result<Option<usize>, LowerError> {
    let name = word.text.as_str();
    let expanded = expand_word(name, plan.file.escape(), |_| None)
        .map_err(|error| expansion_error(word, error))?;
    if expanded.text != name {
        let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
        return Err(LowerError::new(LowerErrorKind::Stage, message).at(word.span));
    }
    let Ok(number) = name.parse::<i64>() else {
        return Ok(None);
    };
    let index = usize::try_from(number)
        .ok()
        .filter(|index| *index < plan.stages.len());
    index.map(Some).ok_or_else(|| {
        let message = format!("invalid stage index {number}");
        LowerError::new(LowerErrorKind::Stage, message).at(word.span)
    })
}

/// Stages are lowered in their order, so a source must stand above its user.
fn check_order(
    plan: &Plan<'_>,
    user: usize,
    source: usize,
    word: &Word,
    is_copy: bool,
    instruction: &Instruction,
) -> Result<(), LowerError> {
    if source < user {
        return Ok(());
    }
    if source == user {
        return Err(circular(plan, user));
    }
    let message = if is_copy {
        format!(
            "cannot copy from stage {:?}, it needs to be defined before current stage {:?}",
            word.text,
            plan.label(user)
        )
    } else {
        format!(
            "cannot mount from stage {:?} to {:?}, stage needs to be defined before current command",
            word.text,
            mount_target(instruction, word)
        )
    };
    Err(LowerError::new(LowerErrorKind::Stage, message))
}

/// The target of the mount that has this `from`, as written.
fn mount_target<'i>(instruction: &'i Instruction, from: &Word) -> &'i str {
    let InstructionKind::Run(run) = &instruction.kind else {
        return "";
    };
    let mut mounts = run.mounts.iter();
    mounts
        .find(|mount| mount.from.as_ref() == Some(from))
        .map_or("", |mount| mount.written_target())
}

fn circular(plan: &Plan<'_>, index: usize) -> LowerError {
    let message = format!(
        "circular dependency detected on stage: {}",
        plan.label(index)
    );
    LowerError::new(LowerErrorKind::Stage, message)
}

/// Refuses circles of `--from` and `from=`, and `--from` that can be nothing, also among stages that are not needed.
fn check_cycles(plan: &Plan<'_>) -> Result<(), LowerError> {
    let count = plan.stages.len();
    let mut uses: Vec<Vec<(usize, Span)>> = Vec::with_capacity(count);
    for planned in &plan.stages {
        let mut edges = Vec::new();
        for instruction in &planned.stage.instructions {
            for (word, is_copy) in sources(instruction) {
                let number = if is_copy {
                    let label = plan.label(uses.len());
                    stage_number(plan, word).map_err(|error| error.in_stage(&label))?
                } else {
                    None
                };
                let index = number.or_else(|| plan.stage_named(&word.text));
                edges.extend(index.map(|index| (index, word.span)));
            }
        }
        uses.push(edges);
    }
    // 0: not seen, 1: on the path, 2: done.
    let mut state = vec![0_u8; count];
    for start in 0..count {
        if state[start] != 0 {
            continue;
        }
        let mut path = vec![(start, 0)];
        state[start] = 1;
        while let Some((index, edge)) = path.pop() {
            let Some(&(next, span)) = uses[index].get(edge) else {
                state[index] = 2;
                continue;
            };
            path.push((index, edge + 1));
            match state[next] {
                0 => {
                    state[next] = 1;
                    path.push((next, 0));
                }
                1 => return Err(circular(plan, next).at(span).in_stage(&plan.label(index))),
                _ => {}
            }
        }
    }
    Ok(())
}
