//! The typed instructions.
//!
//! Words are kept **raw**: quotes, escapes and `$variables` are still in them, because what they expand to depends on
//! the environment at that point of the build. Only the quotes of flag words are gone, as the flag reader removes
//! them. Use [`expand_word`](crate::expand_word) where the language expands, and take `text` as it is where it does not.

use std::borrow::Cow;
use std::time::Duration;

use crate::heredoc::Heredoc;
use crate::mount::{Device, Mount};
use crate::span::Span;

/// A piece of text and where it stood.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Word {
    /// The text, with line continuations already joined.
    pub text: String,
    /// Where it stood; covers the continuation characters when it went over several lines.
    pub span: Span,
}

impl Word {
    /// A word from its parts.
    pub fn new(text: impl Into<String>, span: Span) -> Self {
        Self {
            text: text.into(),
            span,
        }
    }
}

/// One comment line above an instruction, without `#` and outer blanks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// The text of the comment.
    pub text: String,
    /// The whole line, from `#` on.
    pub span: Span,
}

/// One instruction of a stage (or a global `ARG`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it says.
    pub kind: InstructionKind,
    /// From the keyword to the end of the last line, heredoc bodies and terminators included.
    pub span: Span,
    /// The keyword as written.
    pub keyword: Word,
    /// The logical line: continuations joined, comments inside removed, no heredoc bodies.
    pub text: String,
    /// The comment lines directly above.
    pub comments: Vec<Comment>,
}

/// The instructions that may stand in a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstructionKind {
    /// `RUN`
    Run(Run),
    /// `CMD`
    Cmd(Command),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `COPY`
    Copy(CopyFiles),
    /// `ADD`
    Add(AddFiles),
    /// `ENV`; never empty.
    Env(Vec<Pair>),
    /// `ARG`; never empty.
    Arg(Vec<ArgDefinition>),
    /// `LABEL`; never empty.
    Label(Vec<Pair>),
    /// `EXPOSE`: unexpanded words; each may become several after expansion.
    Expose(Vec<Word>),
    /// `VOLUME`: paths, unexpanded.
    Volume(Vec<Word>),
    /// `USER`
    User(Word),
    /// `WORKDIR`
    Workdir(Word),
    /// `SHELL`: argv; never empty.
    Shell(Vec<Word>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `STOPSIGNAL`
    StopSignal(Word),
    /// `ONBUILD`
    OnBuild(OnBuild),
    /// `MAINTAINER`
    Maintainer(Word),
}

impl InstructionKind {
    /// The keyword in capitals.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run(_) => "RUN",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Env(_) => "ENV",
            Self::Arg(_) => "ARG",
            Self::Label(_) => "LABEL",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::User(_) => "USER",
            Self::Workdir(_) => "WORKDIR",
            Self::Shell(_) => "SHELL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::OnBuild(_) => "ONBUILD",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }
}

/// A command in one of its two forms. Nothing in it is expanded by the builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The JSON form: argv, used as it is. May be empty.
    Exec(Vec<Word>),
    /// The shell form: one text for the current shell. May be empty.
    Shell(Word),
}

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command. [`Run::script`] says what it means together with the heredocs.
    pub command: Command,
    /// The heredocs of a shell form, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order; unexpanded.
    pub mounts: Vec<Mount>,
    /// `--network`
    pub network: NetworkMode,
    /// `--security`
    pub security: SecurityMode,
    /// `--device`, in order.
    pub devices: Vec<Device>,
}

impl Run {
    /// What is to be executed, with the heredocs in place.
    ///
    /// A line that is nothing but one heredoc is the script itself, or a file to run when it starts with `#!`. In any
    /// other line the bodies and their ends are put back behind it, for the shell's own heredoc rules.
    pub fn script(&self) -> Script<'_> {
        let text = match &self.command {
            Command::Exec(words) => return Script::Exec(words),
            Command::Shell(word) => &word.text,
        };
        let Some(first) = self.heredocs.first() else {
            return Script::Shell(Cow::Borrowed(text));
        };
        if crate::heredoc::parse_head(text).is_some() {
            let body = first.text();
            return if body.starts_with("#!") {
                Script::File {
                    name: &first.name,
                    content: body,
                }
            } else {
                Script::Shell(body)
            };
        }
        let mut whole = text.clone();
        for heredoc in &self.heredocs {
            whole.push('\n');
            whole.push_str(&heredoc.body);
            whole.push_str(&heredoc.name);
        }
        Script::Shell(Cow::Owned(whole))
    }
}

/// What a `RUN` executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script<'a> {
    /// argv as it is.
    Exec(&'a [Word]),
    /// Text to append to the current shell's argv.
    Shell(Cow<'a, str>),
    /// The only argument was one heredoc that starts with `#!`: a file of this name and content, run directly.
    File {
        /// Name of the file.
        name: &'a str,
        /// Its content.
        content: Cow<'a, str>,
    },
}

/// `RUN --network`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// The builder's network.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's network; needs an entitlement.
    Host,
}

/// `RUN --security`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SecurityMode {
    /// The usual restrictions.
    #[default]
    Sandbox,
    /// No restrictions; needs an entitlement.
    Insecure,
}

/// What `COPY` and `ADD` have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Ordinary sources, unexpanded, in order. They are processed before `files`.
    pub sources: Vec<Word>,
    /// Heredoc sources, in order.
    pub files: Vec<Heredoc>,
    /// The destination, unexpanded.
    pub destination: Word,
    /// `--chown`, unexpanded.
    pub chown: Option<Word>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--exclude`, in order; never expanded.
    pub exclude: Vec<Word>,
}

/// `COPY`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFiles {
    /// Sources, destination and common flags.
    pub transfer: Transfer,
    /// `--from`; never expanded.
    pub from: Option<Word>,
    /// `--parents`
    pub parents: bool,
}

/// `ADD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddFiles {
    /// Sources, destination and common flags.
    pub transfer: Transfer,
    /// `--checksum`, unexpanded.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`; `None` when not given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`; `None` when not given.
    pub unpack: Option<bool>,
}

/// `name=value` of `ENV` and `LABEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The name, unexpanded; never empty as written.
    pub name: Word,
    /// The value, unexpanded.
    pub value: Word,
    /// Whether it was the form `NAME rest of line`.
    pub legacy: bool,
}

/// `name` or `name=default` of `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDefinition {
    /// The name, unexpanded; never empty as written.
    pub name: Word,
    /// The default, unexpanded; `None` for a bare name.
    pub default: Option<Word>,
    /// The rest of a comment line above that starts with the name.
    pub doc: Option<String>,
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// What to do.
    pub test: HealthTest,
    /// `--interval`; `None` when absent or zero (the default of the runtime).
    pub interval: Option<Duration>,
    /// `--timeout`; likewise.
    pub timeout: Option<Duration>,
    /// `--start-period`; likewise.
    pub start_period: Option<Duration>,
    /// `--start-interval`; likewise.
    pub start_interval: Option<Duration>,
    /// `--retries`; `None` when absent or zero.
    pub retries: Option<u32>,
}

/// The test of a `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthTest {
    /// `NONE`: switch off what the base has.
    None,
    /// `CMD` and a command; never an empty one.
    Command(Command),
}

/// `ONBUILD`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnBuild {
    /// The trigger text as the image config stores it: spacing kept, heredoc bodies and terminators included.
    pub trigger: String,
    /// Where the trigger stood.
    pub span: Span,
}
