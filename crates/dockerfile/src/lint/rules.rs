//! The checks that need the text alone.

use super::{CheckOptions, Rule, Warning};
use crate::expand::expand_word;
use crate::instruction::{Comment, Instruction, InstructionKind};
use crate::span::Span;
use crate::stage::{Dockerfile, Stage};
use crate::suggest::nearest_exact;

/// Names that are set in every build, above the first `FROM`.
const AUTOMATIC_ARGS: [&str; 11] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// Words that make a name look like a secret, and those that take it back.
const SECRET_WORDS: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
const PUBLIC_WORDS: [&str; 3] = ["public", "file", "version"];

/// Whether a name looks as if it stood for a secret: one of its words, split at `_`, says so, and none takes it back.
pub fn looks_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
    has(&SECRET_WORDS) && !has(&PUBLIC_WORDS)
}

/// Runs the checks that need the text alone, on all stages; the findings come in order of position.
pub fn lint(file: &Dockerfile, options: &CheckOptions) -> Vec<Warning> {
    let mut linter = Linter {
        options,
        warnings: Vec::new(),
    };
    for empty in &file.empty_continuations {
        linter.report(
            Rule::NoEmptyContinuation,
            empty.last,
            &[],
            "Empty continuation line",
        );
    }
    for arg in &file.global_args {
        linter.definitions(arg);
    }
    linter.keyword_casing(file);
    for (index, stage) in file.stages.iter().enumerate() {
        linter.stage(file, index);
        linter.syntax(stage);
    }
    linter.warnings.sort_by_key(|warning| warning.span.start);
    linter.warnings
}

struct Linter<'o> {
    options: &'o CheckOptions,
    warnings: Vec<Warning>,
}

impl Linter<'_> {
    fn report(&mut self, rule: Rule, span: Span, comments: &[Comment], message: impl Into<String>) {
        if self.options.wants(rule, comments) {
            self.warnings.push(Warning::new(rule, span, message));
        }
    }

    fn keyword_casing(&mut self, file: &Dockerfile) {
        let keywords = || {
            file.stages.iter().flat_map(|stage| {
                let own = std::iter::once((&stage.keyword, &stage.comments));
                own.chain(stage.instructions.iter().map(|i| (&i.keyword, &i.comments)))
            })
        };
        let (mut lower, mut upper) = (0, 0);
        for (word, _) in keywords() {
            lower += usize::from(is_lower(&word.text));
            upper += usize::from(is_upper(&word.text));
        }
        let want_lower = lower > upper;
        for (word, _) in keywords() {
            let (wrong, case) = if want_lower {
                (!is_lower(&word.text), "lowercase")
            } else {
                (!is_upper(&word.text), "uppercase")
            };
            if wrong {
                self.report(
                    Rule::ConsistentInstructionCasing,
                    word.span,
                    &[],
                    format!(
                        "Command '{}' should match the case of the command majority ({case})",
                        word.text
                    ),
                );
            }
        }
    }

    /// The `FROM` line.
    fn stage(&mut self, file: &Dockerfile, index: usize) {
        let stage = &file.stages[index];
        let comments = &stage.comments;
        if let Some(name) = &stage.name {
            // The span leads to the name as written; without the source its case is seen in the logical line.
            let written = stage
                .text
                .split_whitespace()
                .next_back()
                .unwrap_or_default();
            if written != name.text {
                self.report(
                    Rule::StageNameCasing,
                    name.span,
                    comments,
                    format!("Stage name '{written}' should be lowercase"),
                );
            }
            if matches!(name.text.as_str(), "scratch" | "context") {
                self.report(
                    Rule::ReservedStageName,
                    name.span,
                    &[],
                    format!(
                        "Stage name should not use the same name as reserved stage {:?}",
                        name.text
                    ),
                );
            }
            let duplicate = file.stages[..index]
                .iter()
                .any(|other| other.name.as_ref().is_some_and(|n| n.text == name.text));
            if duplicate {
                self.report(
                    Rule::DuplicateStageName,
                    name.span,
                    &[],
                    format!(
                        "Duplicate stage name {:?}, stage names should be unique",
                        name.text
                    ),
                );
            }
            self.description("FROM", &[&name.text], stage.from_span, comments);
        }
        if let Some(word) = &stage.as_keyword {
            let from = &stage.keyword.text;
            if (is_lower(from) && !is_lower(&word.text))
                || (is_upper(from) && !is_upper(&word.text))
            {
                self.report(
                    Rule::FromAsCasing,
                    word.span,
                    comments,
                    format!("'{}' and '{from}' keywords' casing do not match", word.text),
                );
            }
        }
        self.undefined_from_arguments(file, stage);
    }

    fn undefined_from_arguments(&mut self, file: &Dockerfile, stage: &Stage) {
        let declared: Vec<&str> = file
            .global_args
            .iter()
            .filter_map(|arg| match &arg.kind {
                InstructionKind::Arg(args) => Some(args),
                _ => None,
            })
            .flatten()
            .map(|arg| arg.name.text.as_str())
            .chain(AUTOMATIC_ARGS)
            .collect();
        for word in [Some(&stage.base), stage.platform.as_ref()]
            .into_iter()
            .flatten()
        {
            let expanded = expand_word(&word.text, file.escape(), |name| {
                declared.contains(&name).then_some("x")
            });
            for name in expanded.map(|e| e.unset).unwrap_or_default() {
                let hint = nearest_exact(&name, declared.iter().copied())
                    .map(|near| format!(" (did you mean {near}?)"))
                    .unwrap_or_default();
                self.report(
                    Rule::UndefinedArgInFrom,
                    word.span,
                    &stage.comments,
                    format!("FROM argument '{name}' is not declared{hint}"),
                );
            }
        }
    }

    /// Checks of the instructions of a stage.
    fn syntax(&mut self, stage: &Stage) {
        for instruction in &stage.instructions {
            if matches!(instruction.kind, InstructionKind::Maintainer(_)) {
                self.report(
                    Rule::MaintainerDeprecated,
                    instruction.keyword.span,
                    &instruction.comments,
                    "Maintainer instruction is deprecated in favor of using label",
                );
            }
            self.definitions(instruction);
        }
    }

    /// Names that an `ARG` defines.
    fn definitions(&mut self, instruction: &Instruction) {
        let InstructionKind::Arg(args) = &instruction.kind else {
            return;
        };
        let names: Vec<&str> = args.iter().map(|arg| arg.name.text.as_str()).collect();
        self.description("ARG", &names, instruction.span, &instruction.comments);
    }

    fn description(&mut self, what: &str, names: &[&str], span: Span, comments: &[Comment]) {
        let Some(last) = comments.last() else { return };
        let first_word = last.text.split(' ').next().unwrap_or_default();
        if names.contains(&first_word) {
            return;
        }
        let example = match names {
            [name] => name,
            _ => "<arg_key>",
        };
        self.report(
            Rule::InvalidDefinitionDescription,
            span,
            comments,
            format!("Comment for {what} should follow the format: `# {example} <description>`"),
        );
    }
}

fn is_lower(word: &str) -> bool {
    !word.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_upper(word: &str) -> bool {
    !word.bytes().any(|byte| byte.is_ascii_lowercase())
}
