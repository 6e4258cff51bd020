//! What a caller may give to a build: arguments, secrets and SSH agents of the stages that the target needs.

use firebuild_dockerfile::{InstructionKind, ResolvedMount, Span, expand_word};

use super::plan::Plan;

/// The parameters of a target, in order of their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Build arguments that the build would use.
    pub args: Vec<OutlineArg>,
    /// Secrets of RUN.
    pub secrets: Vec<OutlineMount>,
    /// SSH agents of RUN.
    pub ssh: Vec<OutlineMount>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// The value it has in this build; nothing when it has none.
    pub value: Option<String>,
    /// What the comment above it says.
    pub description: Option<String>,
    /// The ARG instruction.
    pub span: Span,
}

/// A secret or an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its id.
    pub id: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// The RUN instruction.
    pub span: Span,
}

impl Outline {
    /// Notes an argument; of several declarations the first counts.
    pub(super) fn arg(&mut self, arg: OutlineArg) {
        if !self.args.iter().any(|known| known.name == arg.name) {
            self.args.push(arg);
        }
    }

    /// Notes a secret.
    pub(super) fn secret(&mut self, id: &str, mount: &ResolvedMount, span: Span) {
        note(&mut self.secrets, id, mount, span);
    }

    /// Notes an agent.
    pub(super) fn agent(&mut self, id: &str, mount: &ResolvedMount, span: Span) {
        note(&mut self.ssh, id, mount, span);
    }
}

fn note(list: &mut Vec<OutlineMount>, id: &str, mount: &ResolvedMount, span: Span) {
    if !list.iter().any(|known| known.id == id) {
        list.push(OutlineMount {
            id: id.to_owned(),
            required: mount.required,
            span,
        });
    }
}

impl Plan<'_> {
    /// The declaration of a global argument.
    pub(super) fn global_arg(&self, name: &str) -> Option<OutlineArg> {
        self.file.global_args.iter().rev().find_map(|instruction| {
            let InstructionKind::Arg(args) = &instruction.kind else {
                return None;
            };
            let arg = args.iter().rfind(|arg| arg.name.text == name)?;
            Some(OutlineArg {
                name: name.to_owned(),
                value: self.globals.get(name).map(str::to_owned),
                description: arg.doc.clone(),
                span: instruction.span,
            })
        })
    }

    /// Notes the global arguments of a FROM line, and those that their defaults are made of.
    pub(super) fn outline_from(&self, index: usize, outline: &mut Outline) {
        let stage = self.stages[index].stage;
        let mut todo: Vec<&str> = vec![&stage.base.text];
        todo.extend(stage.platform.as_ref().map(|word| word.text.as_str()));
        while let Some(text) = todo.pop() {
            // Nothing is set, so that all names are reported.
            let names = expand_word(text, self.file.escape(), |_| None);
            for name in names.map(|expanded| expanded.unset).unwrap_or_default() {
                let Some(arg) = self.global_arg(&name) else {
                    continue;
                };
                if !outline.args.iter().any(|known| known.name == name) {
                    todo.extend(self.global_default(&name));
                    outline.arg(arg);
                }
            }
        }
    }

    /// The default of a global argument as written.
    fn global_default(&self, name: &str) -> Option<&str> {
        self.file.global_args.iter().rev().find_map(|instruction| {
            let InstructionKind::Arg(args) = &instruction.kind else {
                return None;
            };
            let arg = args.iter().rfind(|arg| arg.name.text == name)?;
            arg.default.as_ref().map(|word| word.text.as_str())
        })
    }
}
