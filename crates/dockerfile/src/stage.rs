//! A whole Dockerfile: directives, global arguments, stages.

use crate::directive::Directives;
use crate::instruction::{Comment, Instruction, Word};
use crate::span::Span;

/// A parsed Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The parser directives at the top.
    pub directives: Directives,
    /// The `ARG` instructions above the first `FROM`, in order.
    pub global_args: Vec<Instruction>,
    /// The stages, in order; never empty.
    pub stages: Vec<Stage>,
    /// Empty lines inside continued instructions, for [`lint`](crate::lint).
    pub empty_continuations: Vec<EmptyContinuation>,
}

/// An empty line inside a continued instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmptyContinuation {
    /// The empty line: the first one of its instruction.
    pub line: Span,
    /// The last line of the instruction, which is where BuildKit reports it.
    pub last: Span,
}

/// `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The image or stage, unexpanded.
    pub base: Word,
    /// `--platform`, unexpanded.
    pub platform: Option<Word>,
    /// The name after `AS`, in lower case (names are compared so); the span leads to the name as written.
    pub name: Option<Word>,
    /// The instructions, in order.
    pub instructions: Vec<Instruction>,
    /// The `FROM` line.
    pub from_span: Span,
    /// From `FROM` to the end of the last instruction.
    pub span: Span,
    /// The word `FROM` as written.
    pub keyword: Word,
    /// The word `AS` as written.
    pub as_keyword: Option<Word>,
    /// The logical `FROM` line.
    pub text: String,
    /// The comment lines directly above.
    pub comments: Vec<Comment>,
    /// The rest of a comment line above that starts with the stage's name.
    pub doc: Option<String>,
}

impl Dockerfile {
    /// The character that escapes and continues lines: backslash unless a directive says otherwise.
    pub fn escape(&self) -> char {
        self.directives.escape
    }

    /// The last stage of that name (in any case).
    pub fn stage_named(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.stages
            .iter()
            .rposition(|stage| stage.name.as_ref().is_some_and(|own| own.text == name))
    }
}
