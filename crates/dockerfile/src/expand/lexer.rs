//! The lexer behind the expansion functions.

use super::{ExpandError, ExpandErrorKind};
use crate::limits::{MAX_EXPANSION_DEPTH, MAX_FILE_BYTES, MAX_PATTERN_STEPS, MAX_UNSET_NAMES};
use crate::pattern::{Extent, Pattern, PatternError};

/// Variations of the language.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) escape: char,
    /// Quote characters stay in the result.
    pub(super) keep_quotes: bool,
    /// Escape characters stay in the result.
    pub(super) keep_escapes: bool,
    /// Quote characters mean nothing.
    pub(super) quotes_are_text: bool,
    /// A variable that is not set stays as it is written.
    pub(super) keep_unset: bool,
    /// Bound on the result.
    pub(super) max_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            escape: '\\',
            keep_quotes: false,
            keep_escapes: false,
            quotes_are_text: false,
            keep_unset: false,
            max_bytes: MAX_FILE_BYTES,
        }
    }
}

type Lookup<'l, 'e> = &'l dyn Fn(&str) -> Option<&'e str>;

pub(super) struct Lexer<'t, 'l, 'e> {
    text: &'t str,
    at: usize,
    options: Options,
    /// Whether escapes stay right now: always, or while a pattern is read.
    raw: bool,
    lookup: Lookup<'l, 'e>,
    unset: Vec<String>,
    depth: usize,
    steps: u64,
}

/// Collects a result, and its words when they are wanted.
#[derive(Default)]
struct Sink {
    text: String,
    words: Option<Words>,
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Sink {
    /// Text that may split words.
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        if let Some(words) = &mut self.words {
            for c in text.chars() {
                if !c.is_whitespace() {
                    words.current.push(c);
                } else if !words.current.is_empty() {
                    words.done.push(std::mem::take(&mut words.current));
                }
            }
        }
    }

    /// Text that belongs to one word.
    fn push_whole(&mut self, text: &str) {
        self.text.push_str(text);
        if let Some(words) = &mut self.words {
            words.current.push_str(text);
        }
    }

    fn push_char(&mut self, c: char, whole: bool) {
        let mut buffer = [0; 4];
        let text = c.encode_utf8(&mut buffer);
        if whole {
            self.push_whole(text);
        } else {
            self.push(text);
        }
    }
}

impl<'t, 'l, 'e> Lexer<'t, 'l, 'e> {
    pub(super) fn new(text: &'t str, options: Options, lookup: Lookup<'l, 'e>) -> Self {
        Self {
            text,
            at: 0,
            options,
            raw: options.keep_escapes,
            lookup,
            unset: Vec::new(),
            depth: 0,
            steps: MAX_PATTERN_STEPS,
        }
    }

    /// The whole text as one word.
    pub(super) fn word(&mut self) -> Result<String, ExpandError> {
        let mut sink = Sink::default();
        self.run(None, &mut sink)?;
        Ok(sink.text)
    }

    /// The whole text, split into words.
    pub(super) fn words(&mut self) -> Result<Vec<String>, ExpandError> {
        let mut sink = Sink {
            words: Some(Words::default()),
            ..Sink::default()
        };
        self.run(None, &mut sink)?;
        let mut words = sink.words.unwrap_or_default();
        if !words.current.is_empty() {
            words.done.push(words.current);
        }
        Ok(words.done)
    }

    pub(super) fn into_unset(self) -> Vec<String> {
        self.unset
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn error(&self, kind: ExpandErrorKind, message: impl Into<String>) -> ExpandError {
        ExpandError::new(kind, self.at, message)
    }

    /// Reads up to the stop character (which is taken) or the end.
    fn run(&mut self, stop: Option<char>, sink: &mut Sink) -> Result<(), ExpandError> {
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok(());
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    sink.push(&value);
                }
                '<' => self.less_than(sink),
                '\'' if !self.options.quotes_are_text => self.single_quoted(sink)?,
                '"' if !self.options.quotes_are_text => self.double_quoted(sink)?,
                _ => {
                    self.next();
                    if c != self.options.escape {
                        sink.push_char(c, false);
                    } else {
                        if self.raw {
                            sink.push_char(c, true);
                        }
                        let Some(escaped) = self.next() else { break };
                        sink.push_char(escaped, true);
                    }
                }
            }
            self.check_size(sink.text.len())?;
        }
        match stop {
            None => Ok(()),
            Some(stop) => Err(self.error(
                ExpandErrorKind::UnterminatedBrace,
                format!("unexpected end of statement while looking for matching {stop}"),
            )),
        }
    }

    fn check_size(&self, bytes: usize) -> Result<(), ExpandError> {
        if bytes > self.options.max_bytes {
            return Err(self.error(
                ExpandErrorKind::TooLarge,
                format!(
                    "the expansion is larger than {} bytes",
                    self.options.max_bytes
                ),
            ));
        }
        Ok(())
    }

    /// Blanks behind `<<` do not end a word, so that `<< EOF` is found.
    fn less_than(&mut self, sink: &mut Sink) {
        let start = self.at;
        self.at += 1;
        if self.peek() == Some('<') {
            self.at += 1;
            let blanks = self.text[self.at..].trim_start_matches(['\t', '\r', ' ']);
            self.at = self.text.len() - blanks.len();
        }
        sink.push_whole(&self.text[start..self.at]);
    }

    fn single_quoted(&mut self, sink: &mut Sink) -> Result<(), ExpandError> {
        let start = self.at;
        self.at += 1;
        let Some(length) = self.text[self.at..].find('\'') else {
            return Err(self.open_quote("single", start));
        };
        let inside = self.at..self.at + length;
        self.at = inside.end + 1;
        let kept = if self.options.keep_quotes {
            start..self.at
        } else {
            inside
        };
        sink.push_whole(&self.text[kept]);
        Ok(())
    }

    fn double_quoted(&mut self, sink: &mut Sink) -> Result<(), ExpandError> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        if self.options.keep_quotes {
            out.push('"');
        }
        loop {
            let Some(c) = self.peek() else {
                return Err(self.open_quote("double", start));
            };
            if c == '$' {
                out.push_str(&self.dollar()?);
                self.check_size(out.len())?;
                continue;
            }
            self.next();
            if c == '"' {
                if self.options.keep_quotes {
                    out.push('"');
                }
                sink.push_whole(&out);
                return Ok(());
            }
            if c != self.options.escape {
                out.push(c);
                continue;
            }
            if self.raw {
                out.push(c);
            }
            // Only these can be escaped here; in front of anything else the escape is text.
            match self.peek() {
                None => {}
                Some(next) if next == '"' || next == '$' || next == self.options.escape => {
                    self.next();
                    out.push(next);
                }
                Some(_) => out.push(c),
            }
        }
    }

    fn open_quote(&mut self, name: &str, start: usize) -> ExpandError {
        self.at = self.text.len();
        ExpandError::new(
            ExpandErrorKind::UnterminatedQuote,
            start,
            format!("unexpected end of statement while looking for matching {name}-quote"),
        )
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.get(name) {
                Some(value) => value.to_owned(),
                None if self.options.keep_unset => self.text[start..self.at].to_owned(),
                None => String::new(),
            });
        }
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_EXPANSION_DEPTH {
            return Err(ExpandError::new(
                ExpandErrorKind::TooLarge,
                start,
                format!("variables are nested more than {MAX_EXPANSION_DEPTH} levels deep"),
            ));
        }
        let value = self.braced(start)?;
        self.depth -= 1;
        Ok(value)
    }

    /// What follows `${`.
    fn braced(&mut self, start: usize) -> Result<String, ExpandError> {
        let missing = ExpandError::new(
            ExpandErrorKind::UnterminatedBrace,
            start,
            "syntax error: missing '}'",
        );
        match self.peek() {
            None => return Err(missing),
            Some('{' | '}' | ':') => {
                return Err(ExpandError::new(
                    ExpandErrorKind::BadSubstitution,
                    start,
                    "syntax error: bad substitution",
                ));
            }
            Some(_) => {}
        }
        let name = self.name();
        let modifier_at = self.at;
        let Some(first) = self.next() else {
            return Err(missing);
        };
        let (colon, modifier) = if first == ':' {
            match self.next() {
                Some(modifier) => (true, modifier),
                None => return Err(missing),
            }
        } else {
            (false, first)
        };
        match modifier {
            '}' if !colon => {
                return Ok(match self.get(name) {
                    Some(value) => value.to_owned(),
                    None if self.options.keep_unset => self.text[start..self.at].to_owned(),
                    None => String::new(),
                });
            }
            '+' | '-' | '?' => {}
            '#' | '%' | '/' if !colon => {}
            _ => {
                return Err(ExpandError::new(
                    ExpandErrorKind::UnsupportedModifier,
                    start,
                    format!(
                        "unsupported modifier ({}) in substitution",
                        &self.text[modifier_at..self.at]
                    ),
                ));
            }
        }
        if modifier == '/' {
            return self.replace(start, name);
        }
        let word = self.inner('}', matches!(modifier, '#' | '%'), &missing)?;
        let value = self.get(name);
        if value.is_none() && self.options.keep_unset {
            return Ok(self.text[start..self.at].to_owned());
        }
        let usable = value.filter(|value| !(colon && value.is_empty()));
        match modifier {
            '-' => Ok(usable.map_or(word, str::to_owned)),
            '+' => Ok(usable.map_or(String::new(), |_| word)),
            '?' => match usable {
                Some(value) => Ok(value.to_owned()),
                None => {
                    let default = if value.is_none() {
                        "is not allowed to be unset"
                    } else {
                        "is not allowed to be empty"
                    };
                    let reason = if word.is_empty() { default } else { &word };
                    Err(ExpandError::new(
                        ExpandErrorKind::Required,
                        start,
                        format!("{name}: {reason}"),
                    ))
                }
            },
            _ => self.trim(start, modifier, &word, value.unwrap_or_default()),
        }
    }

    /// A nested word up to the stop character.
    fn inner(
        &mut self,
        stop: char,
        raw: bool,
        missing: &ExpandError,
    ) -> Result<String, ExpandError> {
        let outer = std::mem::replace(&mut self.raw, raw);
        let mut sink = Sink::default();
        let result = self.run(Some(stop), &mut sink);
        self.raw = outer;
        match result {
            Ok(()) => Ok(sink.text),
            // Whatever the inner trouble was, the brace is what is missing.
            Err(error) if self.peek().is_none() && error.kind != ExpandErrorKind::TooLarge => {
                Err(missing.clone())
            }
            Err(error) => Err(error),
        }
    }

    fn trim(
        &mut self,
        start: usize,
        modifier: char,
        word: &str,
        value: &str,
    ) -> Result<String, ExpandError> {
        let (text, extent) = match word.strip_prefix(modifier) {
            Some(rest) => (rest, Extent::Longest),
            None => (word, Extent::Shortest),
        };
        let pattern = Pattern::parse(text).map_err(|e| bad_pattern(&e, text, start))?;
        let trimmed = if modifier == '#' {
            pattern.trim_prefix(value, extent, &mut self.steps)
        } else {
            pattern.trim_suffix(value, extent, &mut self.steps)
        };
        trimmed
            .map(str::to_owned)
            .map_err(|e| bad_pattern(&e, text, start))
    }

    /// What follows `${name/`.
    fn replace(&mut self, start: usize, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let missing =
            |message: &str| ExpandError::new(ExpandErrorKind::UnterminatedBrace, start, message);
        let text = self.inner('/', true, &missing("syntax error: missing '/' in ${}"))?;
        let replacement = self.inner('}', true, &missing("syntax error: missing '}'"))?;
        let value = self.get(name);
        if value.is_none() && self.options.keep_unset {
            return Ok(self.text[start..self.at].to_owned());
        }
        Pattern::parse(&text)
            .and_then(|pattern| {
                pattern.replace(
                    value.unwrap_or_default(),
                    &replacement,
                    all,
                    self.options.max_bytes,
                    &mut self.steps,
                )
            })
            .map_err(|e| bad_pattern(&e, &text, start))
    }

    /// A name at this place; empty if there is none.
    fn name(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let length = match rest.chars().next() {
            Some(c) if c.is_ascii_digit() => rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len()),
        };
        self.at += length;
        &rest[..length]
    }

    fn get(&mut self, name: &str) -> Option<&'e str> {
        let value = (self.lookup)(name);
        if value.is_none()
            && self.unset.len() < MAX_UNSET_NAMES
            && !self.unset.iter().any(|known| known == name)
        {
            self.unset.push(name.to_owned());
        }
        value
    }
}

fn bad_pattern(error: &PatternError, pattern: &str, start: usize) -> ExpandError {
    match error {
        PatternError::InvalidEscape(c) => ExpandError::new(
            ExpandErrorKind::BadPattern,
            start,
            format!(
                "invalid pattern ({pattern}) in substitution: invalid escape '\\{}'",
                c.map(String::from).unwrap_or_default()
            ),
        ),
        PatternError::TooLarge => ExpandError::new(
            ExpandErrorKind::TooLarge,
            start,
            "the pattern needs too many steps for this value",
        ),
    }
}
