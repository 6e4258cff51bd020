//! The arguments of each instruction (moby/buildkit, parser/line_parsers.go and instructions/parse.go).

use std::time::Duration;

use super::duration::{Parsed, parse_duration};
use super::{Request, forbidden_trigger};
use crate::error::{ParseError, ParseErrorKind};
use crate::flag::{FlagKind, FlagTable, Flags};
use crate::instruction::{
    ArgDefinition, Command, Comment, HealthTest, Healthcheck, InstructionKind, NetworkMode,
    OnBuild, Pair, Run, SecurityMode, Word,
};
use crate::json::{JsonArgument, parse_argument};
use crate::line::Fragment;
use crate::mount::{Device, Mount};
use crate::span::Span;
use crate::stage::Stage;
use crate::suggest::nearest;
use crate::word::{split_blanks, split_first, split_quoted};

const NO_FLAGS: FlagTable = &[];

const FROM_FLAGS: FlagTable = &[("platform", FlagKind::Single)];

const RUN_FLAGS: FlagTable = &[
    ("mount", FlagKind::Repeated),
    ("network", FlagKind::Single),
    ("security", FlagKind::Single),
    ("device", FlagKind::Repeated),
];

const HEALTHCHECK_FLAGS: FlagTable = &[
    ("interval", FlagKind::Single),
    ("timeout", FlagKind::Single),
    ("start-period", FlagKind::Single),
    ("start-interval", FlagKind::Single),
    ("retries", FlagKind::Single),
];

impl Request<'_> {
    /// The instruction of that name (in capitals); `None` when there is none.
    pub(super) fn kind(&self, name: &str) -> Result<Option<InstructionKind>, ParseError> {
        Ok(Some(match name {
            "RUN" => InstructionKind::Run(self.run()?),
            "COPY" => InstructionKind::Copy(self.copy()?),
            "ADD" => InstructionKind::Add(self.add()?),
            "HEALTHCHECK" => InstructionKind::Healthcheck(self.healthcheck()?),
            "CMD" => InstructionKind::Cmd(self.plain_command()?),
            "ENTRYPOINT" => InstructionKind::Entrypoint(self.plain_command()?),
            "ENV" => InstructionKind::Env(self.pairs("ENV")?),
            "LABEL" => InstructionKind::Label(self.pairs("LABEL")?),
            "ARG" => InstructionKind::Arg(self.arg()?),
            "EXPOSE" => InstructionKind::Expose(self.words("EXPOSE")?),
            "VOLUME" => InstructionKind::Volume(self.volume()?),
            "USER" => InstructionKind::User(self.single("USER")?),
            "WORKDIR" => InstructionKind::Workdir(self.single("WORKDIR")?),
            "STOPSIGNAL" => InstructionKind::StopSignal(self.single("STOPSIGNAL")?),
            "MAINTAINER" => InstructionKind::Maintainer(self.single("MAINTAINER")?),
            "SHELL" => InstructionKind::Shell(self.shell()?),
            "ONBUILD" => InstructionKind::OnBuild(self.onbuild()?),
            _ => return Ok(None),
        }))
    }

    pub(super) fn flags(&self, table: FlagTable) -> Result<Flags, ParseError> {
        Flags::check(&self.flags, table)
    }

    fn wrong_arguments(&self, message: impl Into<String>) -> ParseError {
        self.error(ParseErrorKind::WrongArguments, message)
    }

    fn at_least_one(&self, name: &str) -> ParseError {
        self.wrong_arguments(format!("{name} requires at least one argument"))
    }

    /// One raw string.
    fn single(&self, name: &str) -> Result<Word, ParseError> {
        self.flags(NO_FLAGS)?;
        if self.argument.is_empty() {
            return Err(self.wrong_arguments(format!("{name} requires exactly one argument")));
        }
        Ok(self.argument.word())
    }

    /// Words split at blanks.
    fn words(&self, name: &str) -> Result<Vec<Word>, ParseError> {
        self.flags(NO_FLAGS)?;
        if self.argument.is_empty() {
            return Err(self.at_least_one(name));
        }
        Ok(split_blanks(self.argument)
            .into_iter()
            .map(Fragment::word)
            .collect())
    }

    fn plain_command(&self) -> Result<Command, ParseError> {
        self.flags(NO_FLAGS)?;
        command(self.argument)
    }

    fn run(&self) -> Result<Run, ParseError> {
        let flags = self.flags(RUN_FLAGS)?;
        let command = command(self.argument)?;
        if matches!(&command, Command::Exec(argv) if argv.is_empty()) {
            return Err(self.at_least_one("RUN"));
        }
        let network = match flags.single("network") {
            None => NetworkMode::Default,
            Some(word) => match word.text.as_str() {
                "default" => NetworkMode::Default,
                "none" => NetworkMode::None,
                "host" => NetworkMode::Host,
                other => {
                    return Err(bad_flag(word, format!("invalid network mode {other:?}"))
                        .with_suggestion(nearest(other, ["default", "none", "host"])));
                }
            },
        };
        let security = match flags.single("security") {
            None => SecurityMode::Sandbox,
            Some(word) => match word.text.as_str() {
                "sandbox" => SecurityMode::Sandbox,
                "insecure" => SecurityMode::Insecure,
                other => {
                    return Err(bad_flag(word, format!("security {other:?} is not valid"))
                        .with_suggestion(nearest(other, ["sandbox", "insecure"])));
                }
            },
        };
        Ok(Run {
            command,
            heredocs: self.heredocs.clone(),
            mounts: flags
                .repeated("mount")
                .iter()
                .map(Mount::parse)
                .collect::<Result<_, _>>()?,
            network,
            security,
            devices: flags
                .repeated("device")
                .iter()
                .map(Device::parse)
                .collect::<Result<_, _>>()?,
        })
    }

    /// `name=value …`, or the legacy `NAME rest of line`.
    fn pairs(&self, name: &str) -> Result<Vec<Pair>, ParseError> {
        self.flags(NO_FLAGS)?;
        let words = split_quoted(self.argument, self.escape);
        let Some(first) = words.first() else {
            return Err(self.at_least_one(name));
        };
        if !first.text.contains('=') {
            let (key, Some(value)) = split_first(self.argument) else {
                return Err(self.wrong_arguments(format!("{name} must have two arguments")));
            };
            return Ok(vec![Pair {
                name: key.word(),
                value: value.word(),
                legacy: true,
            }]);
        }
        let mut pairs = Vec::with_capacity(words.len());
        for word in words {
            let Some(at) = word.text.find('=') else {
                return Err(ParseError::new(
                    ParseErrorKind::BadArguments,
                    word.span(),
                    format!(
                        "Syntax error - can't find = in {:?}. Must be of the form: name=value",
                        word.text
                    ),
                ));
            };
            if at == 0 {
                return Err(blank_name(name, word.span()));
            }
            pairs.push(Pair {
                name: word.slice(0, at).word(),
                value: word.slice(at + 1, word.text.len()).word(),
                legacy: false,
            });
        }
        Ok(pairs)
    }

    fn arg(&self) -> Result<Vec<ArgDefinition>, ParseError> {
        self.flags(NO_FLAGS)?;
        let words = split_quoted(self.argument, self.escape);
        if words.is_empty() {
            return Err(self.at_least_one("ARG"));
        }
        words
            .into_iter()
            .map(|word| {
                let (name, default) = match word.text.find('=') {
                    Some(0) => return Err(blank_name("ARG", word.span())),
                    Some(at) => (
                        word.slice(0, at).word(),
                        Some(word.slice(at + 1, word.text.len()).word()),
                    ),
                    None => (word.word(), None),
                };
                Ok(ArgDefinition {
                    doc: doc_comment(&self.line.comments, &name.text),
                    name,
                    default,
                })
            })
            .collect()
    }

    fn volume(&self) -> Result<Vec<Word>, ParseError> {
        self.flags(NO_FLAGS)?;
        let (mut words, _) = self.list()?;
        if words.is_empty() {
            return Err(self.at_least_one("VOLUME"));
        }
        for word in &mut words {
            word.text = word.text.trim().to_owned();
            if word.text.is_empty() {
                return Err(ParseError::new(
                    ParseErrorKind::BadArguments,
                    word.span,
                    "VOLUME specified can not be an empty string",
                ));
            }
        }
        Ok(words)
    }

    fn shell(&self) -> Result<Vec<Word>, ParseError> {
        self.flags(NO_FLAGS)?;
        if self.argument.is_empty() {
            return Err(self.at_least_one("SHELL"));
        }
        match command(self.argument)? {
            Command::Exec(argv) if argv.is_empty() => Err(self.at_least_one("SHELL")),
            Command::Exec(argv) => Ok(argv),
            Command::Shell(word) => Err(ParseError::new(
                ParseErrorKind::BadJson,
                word.span,
                "SHELL requires the arguments to be in JSON form",
            )),
        }
    }

    fn healthcheck(&self) -> Result<Healthcheck, ParseError> {
        if self.argument.is_empty() {
            return Err(self.at_least_one("HEALTHCHECK"));
        }
        let end = self
            .argument
            .text
            .find(char::is_whitespace)
            .unwrap_or(self.argument.text.len());
        let kind = self.argument.slice(0, end);
        let rest = self.argument.slice(end, self.argument.text.len()).trim();
        if kind.text.eq_ignore_ascii_case("NONE") {
            let empty_list =
                matches!(parse_argument(rest.text), JsonArgument::Strings(s) if s.is_empty());
            if !rest.is_empty() && !empty_list {
                return Err(ParseError::new(
                    ParseErrorKind::WrongArguments,
                    rest.span(),
                    "HEALTHCHECK NONE takes no arguments",
                ));
            }
            return Ok(Healthcheck {
                test: HealthTest::None,
                interval: None,
                timeout: None,
                start_period: None,
                start_interval: None,
                retries: None,
            });
        }
        let flags = self.flags(HEALTHCHECK_FLAGS)?;
        if !kind.text.eq_ignore_ascii_case("CMD") {
            return Err(ParseError::new(
                ParseErrorKind::BadArguments,
                kind.span(),
                format!(
                    "Unknown type {:?} in HEALTHCHECK (try CMD)",
                    kind.text.to_uppercase()
                ),
            ));
        }
        let command = command(rest)?;
        let empty = match &command {
            Command::Exec(argv) => argv.is_empty(),
            Command::Shell(word) => word.text.is_empty(),
        };
        if empty {
            return Err(self.wrong_arguments("Missing command after HEALTHCHECK CMD"));
        }
        Ok(Healthcheck {
            test: HealthTest::Command(command),
            interval: interval(&flags, "interval")?,
            timeout: interval(&flags, "timeout")?,
            start_period: interval(&flags, "start-period")?,
            start_interval: interval(&flags, "start-interval")?,
            retries: retries(&flags)?,
        })
    }

    fn onbuild(&self) -> Result<OnBuild, ParseError> {
        if self.argument.is_empty() {
            return Err(self.at_least_one("ONBUILD"));
        }
        self.flags(NO_FLAGS)?;
        let (inner, _) = split_first(self.argument);
        let name = inner.text.to_ascii_uppercase();
        if matches!(name.as_str(), "ONBUILD" | "MAINTAINER" | "FROM") {
            return Err(forbidden_trigger(&name, inner.span()));
        }
        // Kept as written: the logical line behind the keyword and its blanks.
        let line = self.line.text.trim_start();
        let mut trigger = line[self.keyword.text.len()..].trim_start().to_owned();
        for heredoc in &self.heredocs {
            trigger.push('\n');
            trigger.push_str(&heredoc.body);
            trigger.push_str(&heredoc.name);
        }
        Ok(OnBuild {
            trigger,
            span: Span::new(inner.span().start, self.span.end),
        })
    }

    pub(super) fn stage(&self) -> Result<Stage, ParseError> {
        let words = split_blanks(self.argument);
        let (base, name) = match words.as_slice() {
            [base] => (base, None),
            [base, as_word, name] if as_word.text.eq_ignore_ascii_case("AS") => {
                (base, Some((as_word, name)))
            }
            _ => {
                return Err(self.wrong_arguments("FROM requires either one or three arguments"));
            }
        };
        let name = match name {
            None => None,
            Some((as_word, name)) => {
                let lower = name.text.to_lowercase();
                if !is_stage_name(&lower) {
                    return Err(ParseError::new(
                        ParseErrorKind::BadStageName,
                        name.span(),
                        format!(
                            "invalid name for build stage: {:?}, name can't start with a number or contain symbols",
                            name.text
                        ),
                    ));
                }
                Some((as_word.word(), Word::new(lower, name.span())))
            }
        };
        let flags = self.flags(FROM_FLAGS)?;
        let (as_keyword, name) = name.unzip();
        Ok(Stage {
            base: base.word(),
            platform: flags.single("platform").cloned(),
            doc: name
                .as_ref()
                .and_then(|name| doc_comment(&self.line.comments, &name.text)),
            name,
            instructions: Vec::new(),
            from_span: self.span,
            span: self.span,
            keyword: self.keyword.word(),
            as_keyword,
            text: self.line.text.clone(),
            comments: self.line.comments.clone(),
        })
    }

    /// A JSON array or words split at blanks; says whether it was JSON.
    pub(super) fn list(&self) -> Result<(Vec<Word>, bool), ParseError> {
        match json_words(self.argument)? {
            Some(words) => Ok((words, true)),
            None => Ok((
                split_blanks(self.argument)
                    .into_iter()
                    .map(Fragment::word)
                    .collect(),
                false,
            )),
        }
    }
}

/// The elements of a JSON array; `None` when the text is none.
fn json_words(text: Fragment<'_>) -> Result<Option<Vec<Word>>, ParseError> {
    match parse_argument(text.text) {
        JsonArgument::NotJson => Ok(None),
        JsonArgument::NotStrings(place) => Err(ParseError::new(
            ParseErrorKind::BadJson,
            text.slice(place.start, place.end).span(),
            "when using JSON array syntax, arrays must be comprised of strings only",
        )),
        JsonArgument::Strings(strings) => Ok(Some(
            strings
                .into_iter()
                .map(|(string, place)| Word::new(string, text.slice(place.start, place.end).span()))
                .collect(),
        )),
    }
}

/// JSON form or shell form.
fn command(text: Fragment<'_>) -> Result<Command, ParseError> {
    Ok(match json_words(text)? {
        Some(argv) => Command::Exec(argv),
        None => Command::Shell(text.word()),
    })
}

fn bad_flag(word: &Word, message: String) -> ParseError {
    ParseError::new(ParseErrorKind::BadFlag, word.span, message)
}

fn blank_name(instruction: &str, span: Span) -> ParseError {
    ParseError::new(
        ParseErrorKind::BadArguments,
        span,
        format!("{instruction} names can not be blank"),
    )
}

/// `[a-z][a-z0-9-_.]*`
fn is_stage_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
        })
}

/// The rest of the first comment line that starts with the name and a blank.
fn doc_comment(comments: &[Comment], name: &str) -> Option<String> {
    comments.iter().find_map(|comment| {
        let rest = comment.text.strip_prefix(name)?.strip_prefix(' ')?;
        Some(rest.to_owned())
    })
}

fn interval(flags: &Flags, name: &str) -> Result<Option<Duration>, ParseError> {
    let Some(word) = flags.single(name).filter(|word| !word.text.is_empty()) else {
        return Ok(None);
    };
    let too_short = || bad_flag(word, format!("Interval {name:?} cannot be less than 1ms"));
    match parse_duration(&word.text) {
        None => Err(bad_flag(
            word,
            format!(
                "{} duration {:?} for --{name}: a number with a unit is needed, such as 30s or 1m30s",
                // The two words of Go's time.ParseDuration.
                if word.text.parse::<f64>().is_ok() {
                    "missing unit in"
                } else {
                    "invalid"
                },
                word.text
            ),
        )),
        Some(Parsed::Negative) => Err(too_short()),
        Some(Parsed::Value(Duration::ZERO)) => Ok(None),
        Some(Parsed::Value(value)) if value < Duration::from_millis(1) => Err(too_short()),
        Some(Parsed::Value(value)) => Ok(Some(value)),
    }
}

fn retries(flags: &Flags) -> Result<Option<u32>, ParseError> {
    let Some(word) = flags.single("retries").filter(|word| !word.text.is_empty()) else {
        return Ok(None);
    };
    match word.text.parse::<i32>() {
        Ok(number) if number < 0 => Err(bad_flag(
            word,
            format!("--retries cannot be negative ({number})"),
        )),
        Ok(number) => Ok(u32::try_from(number).ok().filter(|&number| number > 0)),
        Err(_) => Err(bad_flag(
            word,
            format!("invalid number {:?} for --retries", word.text),
        )),
    }
}
