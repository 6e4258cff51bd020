//! From text to a [`Dockerfile`].
//!
//! ```text
//!   bytes ─ decode ─▶ text ─ LineReader ─▶ logical lines ─ split ─▶ keyword, flags, argument ─ arguments ─▶ instruction
//!                                              └─ heredoc bodies follow a line ─┘
//! ```
//!
//! The first error of an instruction ends that instruction only, so one run shows several of them.

mod arguments;
mod duration;
mod transfer;

pub use duration::go_duration;

use crate::directive::Directives;
use crate::error::{ParseError, ParseErrorKind, ParseErrors};
use crate::flag::take_flags;
use crate::heredoc::{Heredoc, find_heads, read_bodies};
use crate::instruction::{Instruction, InstructionKind, Word};
use crate::json::{JsonArgument, parse_argument};
use crate::limits::{MAX_FILE_BYTES, MAX_INSTRUCTIONS, MAX_STAGES};
use crate::line::{Fragment, LineReader, LogicalLine};
use crate::span::Span;
use crate::stage::{Dockerfile, EmptyContinuation, Stage};
use crate::suggest::nearest;
use crate::word::split_first;

/// All keywords.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A logical line, taken apart.
struct Request<'a> {
    line: &'a LogicalLine,
    keyword: Fragment<'a>,
    flags: Vec<Word>,
    argument: Fragment<'a>,
    heredocs: Vec<Heredoc>,
    escape: char,
    /// The whole instruction, heredocs included.
    span: Span,
}

impl Request<'_> {
    fn error(&self, kind: ParseErrorKind, message: impl Into<String>) -> ParseError {
        ParseError::new(kind, self.line.span, message)
    }
}

impl Dockerfile {
    /// Parses a whole file.
    ///
    /// # Errors
    ///
    /// All errors found, up to [`ParseErrors::LIMIT`].
    pub fn parse(source: &str) -> Result<Self, ParseErrors> {
        if source.len() > MAX_FILE_BYTES {
            return Err(ParseError::new(
                ParseErrorKind::TooLarge,
                Span::at(0),
                format!("the Dockerfile is larger than {MAX_FILE_BYTES} bytes"),
            )
            .into());
        }
        let mut reader = LineReader::new(source, '\\');
        let directives = Directives::read(&mut reader)?;
        let mut file = Builder::default();
        let mut errors = Vec::new();
        loop {
            let line = match reader.logical() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    errors.push(error);
                    break;
                }
            };
            if file.count >= MAX_INSTRUCTIONS || file.stages.len() > MAX_STAGES {
                errors.push(ParseError::new(
                    ParseErrorKind::TooLarge,
                    line.span,
                    format!(
                        "the Dockerfile has more than {MAX_INSTRUCTIONS} instructions or {MAX_STAGES} stages"
                    ),
                ));
                break;
            }
            match file.add(&line, &mut reader) {
                Ok(()) => {}
                Err(error) => {
                    let fatal = matches!(
                        error.kind(),
                        ParseErrorKind::UnterminatedHeredoc | ParseErrorKind::TooLarge
                    );
                    errors.push(error);
                    if fatal || errors.len() >= ParseErrors::LIMIT {
                        break;
                    }
                }
            }
        }
        if errors.is_empty() {
            errors.extend(file.missing(source));
        }
        ParseErrors::check(errors)?;
        Ok(file.finish(directives))
    }

    /// Parses a file as it lies on the disk; also gives the text that the spans refer to.
    ///
    /// Bytes that are no UTF-8 are tolerated in comments only (they are `?` in the text).
    pub fn parse_bytes(bytes: &[u8]) -> (String, Result<Self, ParseErrors>) {
        // A huge file is refused before it is copied around.
        if bytes.len() > MAX_FILE_BYTES {
            let error = ParseError::new(
                ParseErrorKind::TooLarge,
                Span::at(0),
                format!("the Dockerfile is larger than {MAX_FILE_BYTES} bytes"),
            );
            return (String::new(), Err(error.into()));
        }
        let (text, invalid) = decode(bytes);
        let parsed = Self::parse(&text).and_then(|file| {
            let wrong = file
                .spans()
                .filter_map(|span| {
                    // `invalid` is sorted: the first one at or behind the start decides.
                    let at = *invalid.get(invalid.partition_point(|&at| at < span.start))?;
                    (at < span.end).then(|| {
                        ParseError::new(
                            ParseErrorKind::NotUtf8,
                            Span::new(at, at + 1),
                            "the Dockerfile is not valid UTF-8 here",
                        )
                    })
                })
                .collect();
            ParseErrors::check(wrong)?;
            Ok(file)
        });
        (text, parsed)
    }

    fn spans(&self) -> impl Iterator<Item = Span> {
        let stages = self.stages.iter().flat_map(|stage| {
            std::iter::once(stage.from_span).chain(stage.instructions.iter().map(|i| i.span))
        });
        self.global_args.iter().map(|arg| arg.span).chain(stages)
    }
}

/// Parses one instruction, the way triggers of `ONBUILD` are: no directives, backslash as escape, exactly one
/// instruction, neither `FROM` nor `ONBUILD` nor `MAINTAINER`. Spans refer to `text`.
///
/// # Errors
///
/// The first error of the text.
pub fn parse_instruction(text: &str) -> Result<Instruction, ParseError> {
    let mut reader = LineReader::new(text, '\\');
    let whole = Span::new(0, text.len());
    let single = || {
        ParseError::new(
            ParseErrorKind::BadTrigger,
            whole,
            "onbuild trigger should be a single expression",
        )
    };
    if text.len() > MAX_FILE_BYTES {
        return Err(ParseError::new(
            ParseErrorKind::TooLarge,
            Span::at(0),
            "the trigger is too large",
        ));
    }
    let line = reader.logical()?.ok_or_else(single)?;
    let parsed = parse_line(&line, &mut reader)?;
    if reader.logical()?.is_some() {
        return Err(single());
    }
    match parsed {
        Parsed::Instruction(instruction) => {
            let name = instruction.kind.name();
            if matches!(name, "ONBUILD" | "MAINTAINER") {
                return Err(forbidden_trigger(name, instruction.keyword.span));
            }
            Ok(instruction)
        }
        Parsed::Stage(stage) => Err(forbidden_trigger("FROM", stage.keyword.span)),
    }
}

fn forbidden_trigger(name: &str, span: Span) -> ParseError {
    let message = if name == "ONBUILD" {
        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()
    } else {
        format!("{name} isn't allowed as an ONBUILD trigger")
    };
    ParseError::new(ParseErrorKind::BadTrigger, span, message)
}

/// Replaces each byte that is no UTF-8 by `?`, so that offsets stay; gives their offsets.
fn decode(bytes: &[u8]) -> (String, Vec<usize>) {
    let mut text = String::with_capacity(bytes.len());
    let mut invalid = Vec::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for _ in chunk.invalid() {
            invalid.push(text.len());
            text.push('?');
        }
    }
    (text, invalid)
}

enum Parsed {
    Instruction(Instruction),
    Stage(Stage),
}

/// The file so far.
#[derive(Default)]
struct Builder {
    global_args: Vec<Instruction>,
    stages: Vec<Stage>,
    empty_continuations: Vec<EmptyContinuation>,
    /// Instructions seen.
    count: usize,
    /// Whether a `FROM` was seen, good or bad.
    in_stage: bool,
}

impl Builder {
    fn add(&mut self, line: &LogicalLine, reader: &mut LineReader<'_>) -> Result<(), ParseError> {
        self.count += 1;
        if let Some(empty) = line.empty_continuation {
            self.empty_continuations.push(EmptyContinuation {
                line: empty,
                last: line.last_line,
            });
        }
        let (keyword, _) = split_first(line.fragment().trim());
        let is_from = keyword.text.eq_ignore_ascii_case("FROM");
        let parsed = parse_line(line, reader);
        // A bad FROM opens a stage all the same: what follows is not outside of one.
        let outside = !self.in_stage && !is_from;
        self.in_stage |= is_from;
        match parsed? {
            Parsed::Stage(stage) => self.stages.push(stage),
            Parsed::Instruction(instruction) => match self.stages.last_mut() {
                Some(stage) => {
                    stage.span = stage.span.join(instruction.span);
                    stage.instructions.push(instruction);
                }
                None if matches!(instruction.kind, InstructionKind::Arg(_)) => {
                    self.global_args.push(instruction);
                }
                None if outside => {
                    return Err(ParseError::new(
                        ParseErrorKind::OutsideStage,
                        instruction.keyword.span,
                        format!(
                            "no build stage in current context: {} stands above the first FROM",
                            instruction.kind.name()
                        ),
                    ));
                }
                None => {}
            },
        }
        Ok(())
    }

    /// What a file without a stage lacks.
    fn missing(&self, source: &str) -> Option<ParseError> {
        if !self.stages.is_empty() {
            return None;
        }
        let end = Span::at(source.len());
        Some(if source.is_empty() {
            ParseError::new(ParseErrorKind::Empty, end, "the Dockerfile cannot be empty")
        } else if self.count == 0 {
            ParseError::new(ParseErrorKind::Empty, end, "file with no instructions")
        } else {
            ParseError::new(
                ParseErrorKind::NoStages,
                end,
                "dockerfile contains no stages to build: there is no FROM",
            )
        })
    }

    fn finish(self, directives: Directives) -> Dockerfile {
        Dockerfile {
            directives,
            global_args: self.global_args,
            stages: self.stages,
            empty_continuations: self.empty_continuations,
        }
    }
}

/// Parses one logical line and takes its heredoc bodies from the reader.
fn parse_line(line: &LogicalLine, reader: &mut LineReader<'_>) -> Result<Parsed, ParseError> {
    let escape = reader.escape;
    let (keyword, rest) = split_first(line.fragment().trim());
    let (flags, argument) = match rest {
        Some(rest) => take_flags(rest, escape),
        None => (
            Vec::new(),
            keyword.slice(keyword.text.len(), keyword.text.len()),
        ),
    };
    // The bodies are taken before anything else is checked, so that an error does not turn them into instructions.
    let (heredocs, end) = if may_have_heredocs(keyword.text, argument, escape) {
        read_bodies(find_heads(line.fragment()), reader)?
    } else {
        (Vec::new(), None)
    };
    let span = Span::new(line.span.start, end.unwrap_or(line.span.end));
    let request = Request {
        line,
        keyword,
        flags,
        argument,
        heredocs,
        escape,
        span,
    };
    let name = keyword.text.to_ascii_uppercase();
    if name == "FROM" {
        return request.stage().map(Parsed::Stage);
    }
    let Some(kind) = request.kind(&name)? else {
        return Err(ParseError::new(
            ParseErrorKind::UnknownInstruction,
            keyword.span(),
            format!("unknown instruction: {}", keyword.text),
        )
        .with_suggestion(nearest(keyword.text, KEYWORDS)));
    };
    Ok(Parsed::Instruction(Instruction {
        kind,
        span,
        keyword: keyword.word(),
        text: line.text.clone(),
        comments: line.comments.clone(),
    }))
}

/// RUN, COPY, ADD and ONBUILD of these, unless in JSON form.
fn may_have_heredocs(keyword: &str, argument: Fragment<'_>, escape: char) -> bool {
    let (keyword, argument) = if keyword.eq_ignore_ascii_case("ONBUILD") {
        let (inner, rest) = split_first(argument);
        let Some(rest) = rest else { return false };
        (inner.text, take_flags(rest, escape).1)
    } else {
        (keyword, argument)
    };
    ["RUN", "COPY", "ADD"]
        .iter()
        .any(|name| keyword.eq_ignore_ascii_case(name))
        && !matches!(parse_argument(argument.text), JsonArgument::Strings(_))
}

#[cfg(test)]
mod tests;
