//! What a caller may give to a build: arguments, secrets and SSH agents of the stages that the target needs.

use std::collections::HashSet;

use firebuild_dockerfile::{ResolvedMount, Span, expand_word};

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
    /// Names of `args`.
    names: HashSet<String>,
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
        if self.names.insert(arg.name.clone()) {
            self.args.push(arg);
        }
    }

    /// Whether an argument is noted already.
    pub(super) fn has_arg(&self, name: &str) -> bool {
        self.names.contains(name)
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
        let (arg, span) = self.declared_globals.get(name)?;
        Some(OutlineArg {
            name: name.to_owned(),
            value: self.globals.get(name).map(str::to_owned),
            description: arg.doc.clone(),
            span: *span,
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
                let Some((arg, _)) = self.declared_globals.get(name.as_str()) else {
                    continue;
                };
                if !outline.has_arg(&name) {
                    todo.extend(arg.default.as_ref().map(|word| word.text.as_str()));
                    self.global_arg(&name)
                        .into_iter()
                        .for_each(|arg| outline.arg(arg));
                }
            }
        }
    }
}
