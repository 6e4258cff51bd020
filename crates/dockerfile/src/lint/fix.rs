//! What to do about a finding: a sentence for people and, where the new text follows from the old, an edit for programs.

use super::{Rule, Warning};
use crate::instruction::{Command, Instruction, InstructionKind, Pair};
use crate::span::Span;
use crate::stage::{Dockerfile, Stage};

/// How to get rid of a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// One line for a person.
    pub advice: String,
    /// The change of the Dockerfile, where it is known.
    pub edit: Option<Edit>,
}

/// A change of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced.
    pub span: Span,
    /// What it is replaced with; empty to remove it.
    pub text: String,
}

/// Characters that mean something to a shell: a command with one of them needs a shell.
const SHELL_CHARACTERS: &[char] = &[
    '$', '`', '"', '\'', '\\', '|', '&', ';', '<', '>', '(', ')', '*', '?', '[', ']', '#', '~',
    '=', '%', '{', '}', '!', '\n',
];

impl Warning {
    /// What to do about it. `file` and `source` are what was checked.
    pub fn fix(&self, file: &Dockerfile, source: &str) -> Fix {
        let stage = file
            .stages
            .iter()
            .rfind(|stage| stage.from_span.start <= self.span.start);
        let instruction = stage.and_then(|stage| {
            let mut own = stage.instructions.iter();
            own.find(|i| i.span.start <= self.span.start && self.span.start < i.span.end.max(1))
        });
        let edit = self.edit(file, source, stage, instruction);
        Fix {
            advice: self.advice(source, edit.as_ref()),
            edit,
        }
    }

    fn advice(&self, source: &str, edit: Option<&Edit>) -> String {
        if let Some(edit) = edit {
            let old = source.get(edit.span.range()).unwrap_or_default().trim();
            return match (old.is_empty(), edit.text.trim()) {
                (true, _) => "remove the empty line".to_owned(),
                (false, "") => format!("remove {}", one_line(old)),
                (false, new) => format!("write {}", one_line(new)),
            };
        }
        match self.rule {
            Rule::DuplicateStageName => "give each stage a name of its own",
            Rule::ReservedStageName => "choose a name other than scratch and context",
            Rule::UndefinedArgInFrom => {
                "declare it with ARG above the first FROM, with a default"
            }
            Rule::UndefinedVar => "set it with ENV above, or declare it: ARG NAME, with a default or without",
            Rule::InvalidBaseImagePlatform => {
                "choose an image that exists for this platform, or set --platform"
            }
            Rule::SecretsUsedInArgOrEnv => {
                "pass it with RUN --mount=type=secret,id=NAME (--secret on the command line), which leaves nothing in the image"
            }
            Rule::InvalidDefaultArgInFrom => "give the ARG a default that makes a valid image name",
            Rule::CopyIgnoredFile => {
                "take the path off .dockerignore, or off this instruction"
            }
            Rule::InvalidDefinitionDescription => {
                "begin the comment with the name, or put an empty comment line below it"
            }
            Rule::FromPlatformFlagConstDisallowed => {
                "leave --platform out, or use $BUILDPLATFORM or an ARG"
            }
            _ => self.rule.description(),
        }
        .to_owned()
    }

    fn edit(
        &self,
        file: &Dockerfile,
        source: &str,
        stage: Option<&Stage>,
        instruction: Option<&Instruction>,
    ) -> Option<Edit> {
        let old = source.get(self.span.range())?;
        let replace = |text: String| {
            Some(Edit {
                span: self.span,
                text,
            })
        };
        match self.rule {
            Rule::StageNameCasing => replace(old.to_lowercase()),
            Rule::FromAsCasing => {
                let from = &stage?.keyword.text;
                let lower = *from == from.to_lowercase();
                replace(if lower { "as" } else { "AS" }.to_owned())
            }
            Rule::ConsistentInstructionCasing => {
                let lower = self.message.ends_with("(lowercase)");
                replace(if lower {
                    old.to_lowercase()
                } else {
                    old.to_uppercase()
                })
            }
            Rule::NoEmptyContinuation => {
                let empty = file
                    .empty_continuations
                    .iter()
                    .find(|empty| empty.last == self.span)?;
                let end = source[empty.line.end..]
                    .find('\n')
                    .map_or(source.len(), |at| empty.line.end + at + 1);
                Some(Edit {
                    span: Span::new(empty.line.start, end),
                    text: String::new(),
                })
            }
            Rule::MultipleInstructionsDisallowed | Rule::RedundantTargetPlatform => {
                // Of a trigger the span is that of FROM, which must stay.
                let whole = stage.is_some_and(|stage| stage.from_span == self.span);
                (!whole).then(|| Edit {
                    span: self.span,
                    text: String::new(),
                })
            }
            _ => {
                let instruction = instruction?;
                let text = rewritten(self.rule, instruction)?;
                Some(Edit {
                    span: instruction.span,
                    text,
                })
            }
        }
    }
}

/// The instruction as the rule wants it.
fn rewritten(rule: Rule, instruction: &Instruction) -> Option<String> {
    let keyword = &instruction.keyword.text;
    match (rule, &instruction.kind) {
        (
            Rule::LegacyKeyValueFormat,
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs),
        ) => {
            let pairs: Vec<String> = pairs.iter().map(pair).collect();
            Some(format!("{keyword} {}", pairs.join(" ")))
        }
        (
            Rule::JSONArgsRecommended,
            InstructionKind::Cmd(Command::Shell(text))
            | InstructionKind::Entrypoint(Command::Shell(text)),
        ) => {
            let words: Vec<String> = if text.text.contains(SHELL_CHARACTERS) {
                ["/bin/sh", "-c", text.text.as_str()]
                    .iter()
                    .map(|word| json_string(word))
                    .collect()
            } else {
                text.text.split_whitespace().map(json_string).collect()
            };
            Some(format!("{keyword} [{}]", words.join(", ")))
        }
        (Rule::MaintainerDeprecated, InstructionKind::Maintainer(name)) => {
            let label = if *keyword == keyword.to_lowercase() {
                "label"
            } else {
                "LABEL"
            };
            Some(format!(
                "{label} org.opencontainers.image.authors={}",
                quoted(&name.text)
            ))
        }
        (Rule::WorkdirRelativePath, InstructionKind::Workdir(path)) => {
            let path = path.text.trim_start_matches("./");
            (!path.starts_with('$') && !path.starts_with(['"', '\'']))
                .then(|| format!("{keyword} /{path}"))
        }
        (Rule::ExposeProtoCasing, InstructionKind::Expose(words)) => {
            let words: Vec<String> = words.iter().map(|word| word.text.to_lowercase()).collect();
            (!words.iter().any(|word| word.contains('$')))
                .then(|| format!("{keyword} {}", words.join(" ")))
        }
        (Rule::ExposeInvalidFormat, InstructionKind::Expose(words)) => {
            let words: Vec<&str> = words
                .iter()
                .map(|word| word.text.rsplit(':').next().unwrap_or_default())
                .collect();
            (!words.iter().any(|word| word.contains('$')))
                .then(|| format!("{keyword} {}", words.join(" ")))
        }
        _ => None,
    }
}

/// `name=value`, with quotes where the value needs them.
fn pair(pair: &Pair) -> String {
    let value = &pair.value.text;
    let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace());
    // Quotes that stand there already keep their meaning.
    let has_quotes = value.contains(['"', '\'']);
    if plain || has_quotes {
        format!("{}={value}", pair.name.text)
    } else {
        format!("{}=\"{value}\"", pair.name.text)
    }
}

/// A value in double quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Rule, Warning};
    use crate::span::Span;
    use crate::stage::Dockerfile;

    /// The advice, and the file after the edit.
    fn fixed(source: &str, rule: Rule, part: &str, message: &str) -> (String, Option<String>) {
        let file = Dockerfile::parse(source).unwrap();
        let start = source.rfind(part).unwrap();
        let warning = Warning::new(rule, Span::new(start, start + part.len()), message);
        let fix = warning.fix(&file, source);
        let after = fix.edit.map(|edit| {
            let mut text = source.to_owned();
            text.replace_range(edit.span.range(), &edit.text);
            text
        });
        (fix.advice, after)
    }

    #[test]
    fn edits() {
        for (source, rule, part, message, advice, after) in [
            (
                "FROM a AS Bc",
                Rule::StageNameCasing,
                "Bc",
                "",
                "write bc",
                "FROM a AS bc",
            ),
            (
                "FROM a as b",
                Rule::FromAsCasing,
                "as",
                "",
                "write AS",
                "FROM a AS b",
            ),
            (
                "FROM a\nrun x",
                Rule::ConsistentInstructionCasing,
                "run",
                "(uppercase)",
                "write RUN",
                "FROM a\nRUN x",
            ),
            (
                "FROM a\nRUN x \\\n\n y\n",
                Rule::NoEmptyContinuation,
                " y",
                "",
                "remove the empty line",
                "FROM a\nRUN x \\\n y\n",
            ),
            (
                "FROM a\nENV k v w",
                Rule::LegacyKeyValueFormat,
                "ENV k v w",
                "",
                "write ENV k=\"v w\"",
                "FROM a\nENV k=\"v w\"",
            ),
            (
                "FROM a\nCMD run it",
                Rule::JSONArgsRecommended,
                "CMD run it",
                "",
                "write CMD [\"run\", \"it\"]",
                "FROM a\nCMD [\"run\", \"it\"]",
            ),
            (
                "FROM a\nCMD a | b",
                Rule::JSONArgsRecommended,
                "CMD a | b",
                "",
                "write CMD [\"/bin/sh\", \"-c\", \"a | b\"]",
                "FROM a\nCMD [\"/bin/sh\", \"-c\", \"a | b\"]",
            ),
            (
                "FROM a\nMAINTAINER me \"x\"",
                Rule::MaintainerDeprecated,
                "MAINTAINER",
                "",
                "write LABEL org.opencontainers.image.authors=\"me \\\"x\\\"\"",
                "FROM a\nLABEL org.opencontainers.image.authors=\"me \\\"x\\\"\"",
            ),
            (
                "FROM a\nWORKDIR app",
                Rule::WorkdirRelativePath,
                "WORKDIR app",
                "",
                "write WORKDIR /app",
                "FROM a\nWORKDIR /app",
            ),
            (
                "FROM a\nEXPOSE 1:80/TCP",
                Rule::ExposeInvalidFormat,
                "EXPOSE 1:80/TCP",
                "",
                "write EXPOSE 80/TCP",
                "FROM a\nEXPOSE 80/TCP",
            ),
            (
                "FROM --platform=$TARGETPLATFORM a",
                Rule::RedundantTargetPlatform,
                "--platform=$TARGETPLATFORM",
                "",
                "remove --platform=$TARGETPLATFORM",
                "FROM  a",
            ),
            (
                "FROM a\nCMD [\"x\"]\nCMD [\"y\"]",
                Rule::MultipleInstructionsDisallowed,
                "CMD [\"x\"]",
                "",
                "remove CMD [\"x\"]",
                "FROM a\n\nCMD [\"y\"]",
            ),
        ] {
            let (found, text) = fixed(source, rule, part, message);
            assert_eq!(found, advice, "{source}");
            assert_eq!(text.as_deref(), Some(after), "{source}");
        }
    }

    #[test]
    fn advice_without_an_edit() {
        for rule in Rule::ALL {
            let (advice, _) = fixed("FROM a\nENV TOKEN=x\n", *rule, "ENV TOKEN=x", "");
            assert!(!advice.is_empty() && !advice.contains('\n'), "{rule}");
        }
    }
}
