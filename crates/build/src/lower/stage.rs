//! One stage, instruction by instruction.

use firebuild_dockerfile::{
    CheckOptions, Comment, Instruction, InstructionKind, Rule, Span, Warning, Word, expand_word,
    nearest_exact,
};
use firebuild_oci::{History, ImageConfig, Platform};

use super::env::{Env, expansion_error};
use super::plan::{Base, Origin, Plan};
use super::reach::Reach;
use super::{DEFAULT_PATH, LowerError, LowerErrorKind, Output};
use crate::graph::{ContextOp, CopyOp, CopySource, ImageOp, Op, Vertex, VertexId};
use crate::history::rfc3339;
use crate::resolve::{ImageRequest, Resolved};

/// The remark of every history entry, as BuildKit writes it.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// Bytes that lowering may make of a small text.
const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// A lowered stage.
#[derive(Clone)]
pub(super) struct Done {
    pub(super) vertex: VertexId,
    pub(super) config: ImageConfig,
    env: Env,
    args: Vec<(String, Option<String>)>,
    platform: Platform,
    workdir_set: bool,
}

/// A stage that is being lowered.
pub(super) struct Stepper<'a, 'p> {
    pub(super) plan: &'a Plan<'p>,
    pub(super) resolved: &'a Resolved,
    pub(super) checks: &'a CheckOptions,
    pub(super) output: &'a mut Output,
    pub(super) index: usize,
    /// The file system so far.
    pub(super) vertex: VertexId,
    pub(super) config: ImageConfig,
    /// What steps and expansion see: ENV and ARG, in the order of the instructions.
    pub(super) env: Env,
    /// ARG of the stage and of those below it.
    pub(super) args: Vec<(String, Option<String>)>,
    pub(super) platform: Platform,
    pub(super) workdir_set: bool,
    /// Whether CMD stood in this very stage.
    pub(super) cmd_set: bool,
    /// The last CMD, ENTRYPOINT and HEALTHCHECK of this very stage.
    used: [Option<Now<'a>>; 3],
    progress: Progress,
    /// The instruction at work.
    pub(super) now: Now<'a>,
}

/// Where the current instruction stands.
#[derive(Clone, Copy)]
pub(super) struct Now<'a> {
    /// Its place; of a trigger, the FROM line.
    pub(super) span: Span,
    comments: &'a [Comment],
    is_trigger: bool,
    text: &'a str,
    /// The keyword as written.
    pub(super) keyword: &'a str,
}

/// Numbers the steps of a stage for people.
struct Progress {
    label: String,
    total: usize,
    done: usize,
}

/// Lowers a stage whose sources are lowered.
pub(super) fn lower_stage(
    plan: &Plan<'_>,
    reach: &Reach,
    resolved: &Resolved,
    checks: &CheckOptions,
    index: usize,
    output: &mut Output,
) -> Result<Done, LowerError> {
    let stage = plan.stages[index].stage;
    let is_target = index == plan.target;
    let triggers = reach.triggers(index);
    let label = if plan.stages.len() == 1 {
        String::new()
    } else {
        plan.label(index)
    };
    let place = |error: LowerError| error.at(stage.from_span).in_stage(&plan.label(index));
    let mut stepper = Stepper {
        plan,
        resolved,
        checks,
        output,
        index,
        vertex: VertexId(0),
        config: ImageConfig::default(),
        env: Env::default(),
        args: Vec::new(),
        platform: plan.platform.clone(),
        workdir_set: false,
        cmd_set: false,
        used: [None; 3],
        progress: Progress {
            label,
            total: 0,
            done: 0,
        },
        now: Now {
            span: stage.from_span,
            comments: &stage.comments,
            is_trigger: false,
            text: &stage.text,
            keyword: &stage.keyword.text,
        },
    };
    stepper.progress.total = stepper.count_steps(triggers);
    stepper.start().map_err(place)?;
    if !matches!(plan.stages[index].base, Base::Replaced(_)) {
        stepper.prepare().map_err(place)?;
        stepper.extra_commands(is_target, &plan.options.before);
        for instruction in triggers {
            let now = Now {
                span: stage.from_span,
                comments: &instruction.comments,
                is_trigger: true,
                text: &instruction.text,
                keyword: &instruction.keyword.text,
            };
            // What a trigger says stands in no line of this file.
            stepper
                .step(instruction, now)
                .map_err(|error| place(error.moved_to(stage.from_span)))?;
        }
        for instruction in &stage.instructions {
            let now = Now {
                span: instruction.span,
                comments: &instruction.comments,
                is_trigger: false,
                text: &instruction.text,
                keyword: &instruction.keyword.text,
            };
            stepper
                .step(instruction, now)
                .map_err(|error| place(error.at(instruction.span)))?;
        }
        stepper.extra_commands(is_target, &plan.options.after);
    }
    Ok(Done {
        vertex: stepper.vertex,
        config: stepper.config,
        env: stepper.env,
        args: stepper.args,
        platform: stepper.platform,
        workdir_set: stepper.workdir_set,
    })
}

impl<'a> Stepper<'a, '_> {
    fn count_steps(&self, triggers: &[Instruction]) -> usize {
        let planned = &self.plan.stages[self.index];
        let base = match &planned.base {
            Base::Stage(_) => 0,
            Base::Named(name) => usize::from(name != "scratch"),
            Base::Replaced(_) => return 0,
        };
        let own = planned.stage.instructions.iter().filter(|instruction| {
            matches!(
                instruction.kind,
                InstructionKind::Run(_)
                    | InstructionKind::Copy(_)
                    | InstructionKind::Add(_)
                    | InstructionKind::Workdir(_)
            )
        });
        let extra = if self.index == self.plan.target {
            self.plan.options.before.len() + self.plan.options.after.len()
        } else {
            0
        };
        base + own.count() + triggers.len() + extra
    }

    /// Takes over what the stage starts from.
    fn start(&mut self) -> Result<(), LowerError> {
        let planned = &self.plan.stages[self.index];
        if let Base::Stage(base) = planned.base {
            let base = self.output.stages[base].clone();
            let base =
                base.expect("a base stands above its user and is needed whenever the user is");
            self.vertex = base.vertex;
            self.config = base.config;
            self.config.config.on_build.clear();
            self.env = base.env;
            self.args = base.args;
            self.platform = base.platform;
            self.workdir_set = base.workdir_set;
            return Ok(());
        }
        if let Some(platform) = &planned.platform {
            self.platform = platform.clone();
        }
        match self.plan.base_origin(self.index)? {
            None | Some(Origin::Scratch) => {
                self.platform = self.plan.platform.clone();
                self.vertex = self.scratch();
                self.config = empty_config(&self.platform);
            }
            Some(Origin::Files(name)) => {
                self.vertex = self.files_as_root(&name);
                self.config = empty_config(&self.platform);
            }
            Some(Origin::Image(request)) => self.start_from_image(&request),
        }
        Ok(())
    }

    fn start_from_image(&mut self, request: &ImageRequest) {
        let Some(image) = self.resolved.images.get(request) else {
            unreachable!("lowering begins only when every image that is needed is there")
        };
        self.config = image.config.clone();
        self.config.created = None;
        // Fields that no tool would expect in the new image: what is not known does not pass on.
        self.config.extra.clear();
        self.config.config.extra.clear();
        self.config.config.on_build.clear();
        let (wanted, offered) = (
            self.platform.clone().normalised(),
            image.config.platform.normalised(),
        );
        if (&wanted.os, &wanted.architecture) != (&offered.os, &offered.architecture) {
            let base = &self.plan.stages[self.index].stage.base;
            self.warn(
                Rule::InvalidBaseImagePlatform,
                format!("Base image {} was pulled with platform \"{offered}\", expected \"{wanted}\" for current build", base.text),
            );
        }
        self.vertex = self.image(request, true);
    }

    /// The vertex of an image.
    pub(super) fn image(&mut self, request: &ImageRequest, is_base: bool) -> VertexId {
        let Some(image) = self.resolved.images.get(request) else {
            unreachable!("lowering begins only when every image that is needed is there")
        };
        if image.layers.is_empty() {
            return self.scratch();
        }
        let text = format!("FROM {}", image.reference.canonical());
        let name = if is_base { self.named(&text) } else { text };
        let op = ImageOp {
            reference: image.reference.canonical(),
            layers: image.layers.clone(),
        };
        self.output
            .vertices
            .source(Op::Image(op), || name, Some(self.now.span))
    }

    pub(super) fn scratch(&mut self) -> VertexId {
        self.output
            .vertices
            .source(Op::Scratch, || "scratch".to_owned(), None)
    }

    /// The vertex of a context; the empty name is the main one.
    pub(super) fn context(&mut self, name: &str) -> VertexId {
        let op = Op::Context(ContextOp {
            name: name.to_owned(),
        });
        let shown = || match name {
            "" => "[internal] load build context".to_owned(),
            _ => format!("[internal] load build context {name}"),
        };
        self.output.vertices.source(op, shown, None)
    }

    /// A context as a file system of its own.
    fn files_as_root(&mut self, name: &str) -> VertexId {
        let context = self.context(name);
        let scratch = self.scratch();
        let op = CopyOp {
            sources: vec![CopySource::Paths {
                input: 1,
                pattern: "/".to_owned(),
                remote: false,
            }],
            dest: "/".to_owned(),
            ..CopyOp::default()
        };
        let shown = self.named(&format!("FROM {name}"));
        self.push(Op::Copy(op), vec![scratch, context], shown)
    }

    /// What the base image does not settle.
    fn prepare(&mut self) -> Result<(), LowerError> {
        if self.config.config.env_value("PATH").is_none() {
            self.config.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for entry in self.config.config.env.clone() {
            let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
            self.env.set(name, value)?;
        }
        if !self.config.config.working_dir.is_empty() {
            self.config.config.working_dir = join_dir("/", &self.config.config.working_dir);
        }
        Ok(())
    }

    fn step(&mut self, instruction: &'a Instruction, now: Now<'a>) -> Result<(), LowerError> {
        self.now = now;
        self.dispatch(instruction)?;
        if self.output.bytes > MAX_OUTPUT_BYTES {
            let message = format!(
                "environments, history and inline files are larger than {MAX_OUTPUT_BYTES} bytes together"
            );
            return Err(self.wrong(LowerErrorKind::TooLarge, message));
        }
        Ok(())
    }

    fn dispatch(&mut self, instruction: &'a Instruction) -> Result<(), LowerError> {
        match &instruction.kind {
            InstructionKind::Run(run) => self.run(run),
            InstructionKind::Copy(copy) => self.copy(copy),
            InstructionKind::Add(add) => self.add(add),
            InstructionKind::Workdir(word) => self.workdir(word),
            InstructionKind::Env(pairs) => self.env(pairs),
            InstructionKind::Arg(args) => self.arg(args),
            InstructionKind::Label(pairs) => self.label(pairs),
            InstructionKind::Cmd(command) => self.cmd(command),
            InstructionKind::Entrypoint(command) => self.entrypoint(command),
            InstructionKind::Expose(words) => self.expose(words),
            InstructionKind::Volume(words) => self.volume(words),
            InstructionKind::User(word) => self.user(word),
            InstructionKind::Shell(words) => self.shell_instruction(words),
            InstructionKind::Healthcheck(check) => self.healthcheck(check),
            InstructionKind::StopSignal(word) => self.stop_signal(word),
            InstructionKind::OnBuild(onbuild) => {
                self.config.config.on_build.push(onbuild.trigger.clone());
                Ok(())
            }
            InstructionKind::Maintainer(word) => {
                self.config.author = Some(word.text.clone());
                self.commit(format!("MAINTAINER {}", word.text), false);
                Ok(())
            }
        }
    }

    /// Expands a word with what the stage has set so far.
    pub(super) fn expand(&mut self, word: &Word) -> Result<String, LowerError> {
        let expanded = expand_word(&word.text, self.plan.file.escape(), |name| {
            self.env.get(name)
        })
        .map_err(|error| expansion_error(word, error))?;
        self.report_unset(&expanded.unset);
        Ok(expanded.text)
    }

    pub(super) fn expand_maybe(
        &mut self,
        word: Option<&Word>,
    ) -> Result<Option<String>, LowerError> {
        word.map(|word| self.expand(word)).transpose()
    }

    /// Warns of names that nothing sets. An ARG without a value counts as set.
    pub(super) fn report_unset(&mut self, unset: &[String]) {
        for name in unset {
            let declared = self.args.iter().any(|(known, _)| known == name);
            if declared || name.starts_with("BUILDKIT_SBOM_SCAN_") {
                continue;
            }
            let hint = nearest_exact(name, self.env.names())
                .map(|near| format!(" (did you mean ${near}?)"))
                .unwrap_or_default();
            self.warn(
                Rule::UndefinedVar,
                format!("Usage of undefined variable '${name}'{hint}"),
            );
        }
    }

    /// Warns at the one before when an instruction of which only the last counts stands in a stage again.
    pub(super) fn used_once(&mut self, slot: usize) {
        let now = self.now;
        let Some(earlier) = self.used[slot].replace(now) else {
            return;
        };
        let message = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            now.keyword
        );
        if self
            .checks
            .wants(Rule::MultipleInstructionsDisallowed, now.comments)
        {
            let rule = Rule::MultipleInstructionsDisallowed;
            let warning = Warning::new(rule, earlier.span, message);
            self.output.warnings.push(warning);
        }
    }

    pub(super) fn warn(&mut self, rule: Rule, message: String) {
        if self.checks.wants(rule, self.now.comments) {
            self.output
                .warnings
                .push(Warning::new(rule, self.now.span, message));
        }
    }

    pub(super) fn wrong(&self, kind: LowerErrorKind, message: impl Into<String>) -> LowerError {
        LowerError::new(kind, message).at(self.now.span)
    }

    /// Adds a vertex of this stage.
    pub(super) fn push(&mut self, op: Op, inputs: Vec<VertexId>, name: String) -> VertexId {
        let stage = self.plan.name(self.index).to_owned();
        self.output.vertices.push(Vertex {
            op,
            inputs,
            name,
            stage,
            span: Some(self.now.span),
        })
    }

    /// Adds a history entry.
    pub(super) fn commit(&mut self, created_by: String, has_layer: bool) {
        self.output.bytes += created_by.len();
        self.config.history.push(History {
            created: self.plan.epoch.map(rfc3339),
            created_by: Some(created_by),
            comment: Some(HISTORY_COMMENT.to_owned()),
            empty_layer: !has_layer,
            ..History::default()
        });
    }

    /// The text of the instruction as people read it, with the keyword in capitals.
    pub(super) fn shown(&self) -> String {
        let text = self.now.text.trim();
        let (keyword, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
        keyword.to_uppercase() + rest
    }

    /// Like [`Stepper::shown`], with variables expanded where that is possible.
    pub(super) fn shown_expanded(&self) -> String {
        let shown = self.shown();
        expand_word(&shown, self.plan.file.escape(), |name| self.env.get(name))
            .map_or(shown, |expanded| expanded.text)
    }

    /// The next step's name: `[build 2/5] RUN make`.
    pub(super) fn named(&mut self, text: &str) -> String {
        let progress = &mut self.progress;
        if progress.total == 0 {
            return text.to_owned();
        }
        progress.done += 1;
        let width = progress.total.to_string().len();
        let label = if progress.label.is_empty() {
            String::new()
        } else {
            format!("{} ", progress.label)
        };
        let trigger = if self.now.is_trigger { "ONBUILD " } else { "" };
        format!(
            "[{label}{:width$}/{}] {trigger}{text}",
            progress.done, progress.total
        )
    }

    /// Another name with the number of the step before.
    pub(super) fn renamed(&mut self, text: &str) -> String {
        self.progress.done = self.progress.done.saturating_sub(1);
        self.named(text)
    }

    /// The directory of steps and of relative paths.
    pub(super) fn directory(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            directory => directory,
        }
    }
}

/// The configuration of `scratch`.
fn empty_config(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::new(platform.clone());
    "/".clone_into(&mut config.config.working_dir);
    config.config.env.push(format!("PATH={DEFAULT_PATH}"));
    config
}

/// A path, joined to a directory if it is relative, clean and never above `/`.
pub(crate) fn join_dir(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { directory };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::join_dir;

    #[test]
    fn joining() {
        for (directory, path, joined) in [
            ("/", "a", "/a"),
            ("/a", "b/", "/a/b"),
            ("/a", "/b//c/.", "/b/c"),
            ("/a", "../../../x", "/x"),
            ("/a", "", "/a"),
            ("", "", "/"),
            ("/a", "b c", "/a/b c"),
        ] {
            assert_eq!(join_dir(directory, path), joined, "{directory} {path}");
        }
    }
}
