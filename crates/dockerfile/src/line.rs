//! Logical lines.
//!
//! A physical line ends in LF. A logical line is what an instruction is read from: the physical lines that the escape
//! character joins, with comment lines and empty lines between them left out. [`SourceMap`] leads from the joined text
//! back to the file.
//!
//! ```text
//!   RUN a \        ┐
//!   # comment      │  "RUN a   b"
//!     b            ┘
//! ```
//!
//! Rules (moby/buildkit, frontend/dockerfile/parser/parser.go): comments go before continuation is looked at; only the
//! first line loses its leading blanks; the continuation is cut with what follows it and nothing is put in its place.

use crate::error::{ParseError, ParseErrorKind};
use crate::instruction::{Comment, Word};
use crate::limits::MAX_LINE_BYTES;
use crate::span::Span;

/// Where each part of a joined text stood.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceMap {
    /// (offset in the text, offset in the source), ascending in both.
    parts: Vec<(usize, usize)>,
}

impl SourceMap {
    fn push(&mut self, text: usize, source: usize) {
        self.parts.push((text, source));
    }

    /// The source span of a range of the text.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        let from = self.offset(start, |part, at| part <= at);
        if end <= start {
            return Span::at(from);
        }
        // The end belongs to the part that holds the last character.
        Span::new(from, self.offset(end, |part, at| part < at))
    }

    fn offset(&self, at: usize, holds: impl Fn(usize, usize) -> bool) -> usize {
        let index = self.parts.partition_point(|&(text, _)| holds(text, at));
        let (text, source) = self.parts[index.saturating_sub(1)];
        source + at.saturating_sub(text)
    }
}

/// A piece of a logical line that knows its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    pub(crate) text: &'a str,
    offset: usize,
    map: &'a SourceMap,
}

impl<'a> Fragment<'a> {
    /// The bytes `start..end` of this piece.
    pub(crate) fn slice(self, start: usize, end: usize) -> Self {
        Self {
            text: &self.text[start..end],
            offset: self.offset + start,
            map: self.map,
        }
    }

    /// Without outer white space.
    pub(crate) fn trim(self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        let end = start + self.text.trim().len();
        self.slice(start, end)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.text.is_empty()
    }

    pub(crate) fn span(self) -> Span {
        self.map.span(self.offset, self.offset + self.text.len())
    }

    pub(crate) fn word(self) -> Word {
        Word::new(self.text, self.span())
    }
}

/// A joined line.
#[derive(Clone, Debug)]
pub(crate) struct LogicalLine {
    pub(crate) text: String,
    map: SourceMap,
    /// From the first character to the end of the last physical line.
    pub(crate) span: Span,
    /// The comments above.
    pub(crate) comments: Vec<Comment>,
    /// The first empty line inside.
    pub(crate) empty_continuation: Option<Span>,
    /// The last physical line that belongs to it.
    pub(crate) last_line: Span,
}

impl LogicalLine {
    pub(crate) fn fragment(&self) -> Fragment<'_> {
        Fragment {
            text: &self.text,
            offset: 0,
            map: &self.map,
        }
    }
}

/// A line of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhysicalLine<'a> {
    /// Without CR and LF at the end.
    pub(crate) text: &'a str,
    /// Offset of the first byte.
    pub(crate) start: usize,
    /// Offset behind the line ending.
    pub(crate) next: usize,
}

impl PhysicalLine<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

/// Reads a file line by line.
#[derive(Clone, Debug)]
pub(crate) struct LineReader<'a> {
    source: &'a str,
    position: usize,
    pub(crate) escape: char,
    comments: Vec<Comment>,
}

impl<'a> LineReader<'a> {
    /// Starts behind a byte order mark, if there is one.
    pub(crate) fn new(source: &'a str, escape: char) -> Self {
        Self {
            source,
            position: if source.starts_with('\u{feff}') { 3 } else { 0 },
            escape,
            comments: Vec::new(),
        }
    }

    /// The next physical line, without taking it.
    pub(crate) fn peek_physical(&self) -> Result<Option<PhysicalLine<'a>>, ParseError> {
        let start = self.position;
        let rest = &self.source[start..];
        if rest.is_empty() {
            return Ok(None);
        }
        let (line, next) = match rest.find('\n') {
            Some(at) => (&rest[..at], start + at + 1),
            None => (rest, self.source.len()),
        };
        if line.len() > MAX_LINE_BYTES {
            return Err(ParseError::new(
                ParseErrorKind::TooLarge,
                Span::at(start),
                format!(
                    "dockerfile line greater than max allowed size of {MAX_LINE_BYTES} bytes: {}",
                    line.len()
                ),
            ));
        }
        Ok(Some(PhysicalLine {
            text: line.trim_end_matches(['\r', '\n']),
            start,
            next,
        }))
    }

    /// Takes the next physical line.
    pub(crate) fn physical(&mut self) -> Result<Option<PhysicalLine<'a>>, ParseError> {
        let line = self.peek_physical()?;
        if let Some(line) = line {
            self.position = line.next;
        }
        Ok(line)
    }

    /// The next logical line; comments in front are collected, empty lines skipped.
    pub(crate) fn logical(&mut self) -> Result<Option<LogicalLine>, ParseError> {
        while let Some(line) = self.physical()? {
            let text = line.text.trim_start();
            let start = line.end() - text.len();
            if let Some(comment) = text.strip_prefix('#') {
                self.comment(comment.trim(), Span::new(start, line.end()));
                continue;
            }
            let (text, goes_on) = cut_continuation(text, self.escape);
            if text.is_empty() && !goes_on {
                continue;
            }
            return self.join(text, start, line.end(), goes_on).map(Some);
        }
        Ok(None)
    }

    fn comment(&mut self, text: &str, span: Span) {
        // An empty comment separates a block above from the instruction below.
        if text.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(Comment {
                text: text.to_owned(),
                span,
            });
        }
    }

    fn join(
        &mut self,
        first: &str,
        start: usize,
        mut end: usize,
        mut goes_on: bool,
    ) -> Result<LogicalLine, ParseError> {
        let mut text = first.to_owned();
        let mut map = SourceMap::default();
        map.push(0, start);
        let mut empty_continuation = None;
        let mut last_line = Span::new(start, end);
        while goes_on {
            let Some(line) = self.physical()? else { break };
            let trimmed = line.text.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                empty_continuation.get_or_insert(Span::new(line.start, line.end()));
                continue;
            }
            end = line.end();
            last_line = Span::new(line.start, end);
            let (part, more) = cut_continuation(line.text, self.escape);
            map.push(text.len(), line.start);
            text.push_str(part);
            goes_on = more;
        }
        Ok(LogicalLine {
            text,
            map,
            span: Span::new(start, end),
            comments: std::mem::take(&mut self.comments),
            empty_continuation,
            last_line,
        })
    }

    /// Offset of the next line.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Goes on at another line.
    pub(crate) fn skip_to(&mut self, position: usize) {
        self.position = position;
    }

    /// A line with its ending.
    pub(crate) fn raw(&self, line: PhysicalLine<'_>) -> &'a str {
        &self.source[line.start..line.next]
    }
}

/// Cuts the continuation from the end of a line and says whether there was one.
///
/// It is one when the escape character is the last but for blanks and no escape character stands before it.
fn cut_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

#[cfg(test)]
mod tests {
    use super::{LineReader, cut_continuation};
    use crate::span::Span;

    fn lines(source: &str) -> Vec<String> {
        let mut reader = LineReader::new(source, '\\');
        let mut out = Vec::new();
        while let Some(line) = reader.logical().unwrap() {
            out.push(line.text);
        }
        out
    }

    #[test]
    fn continuation() {
        for (line, escape, expected) in [
            ("a\\", '\\', ("a", true)),
            ("a\\ \t", '\\', ("a", true)),
            ("\\", '\\', ("", true)),
            ("  \\", '\\', ("  ", true)),
            ("a\\\\", '\\', ("a\\\\", false)),
            ("a\\\\\\", '\\', ("a\\\\\\", false)),
            ("a\\ b", '\\', ("a\\ b", false)),
            ("a`", '`', ("a", true)),
            ("a\\", '`', ("a\\", false)),
            ("é\\", '\\', ("é", true)),
        ] {
            assert_eq!(cut_continuation(line, escape), expected, "{line:?}");
        }
    }

    #[test]
    fn joining() {
        for (source, expected) in [
            ("RUN ab\\\ncd", vec!["RUN abcd"]),
            ("RUN a \\\n  b\n", vec!["RUN a   b"]),
            ("  RUN a\r\nRUN b\r\n", vec!["RUN a", "RUN b"]),
            (
                "RUN a \\\n# note \\\n  # other\n b\nRUN c",
                vec!["RUN a  b", "RUN c"],
            ),
            ("RUN a \\\n\n\nb\nRUN c", vec!["RUN a b", "RUN c"]),
            ("# note \\\nRUN a", vec!["RUN a"]),
            ("RUN a \\", vec!["RUN a "]),
            ("RUN a \\\n", vec!["RUN a "]),
            ("RUN a\\\\\nRUN b", vec!["RUN a\\\\", "RUN b"]),
            ("RU\\\nN a", vec!["RUN a"]),
            ("\\\nRUN a", vec!["RUN a"]),
            ("\u{feff}RUN a", vec!["RUN a"]),
            ("\n \t\n", vec![]),
            ("RUN echo a#b # c", vec!["RUN echo a#b # c"]),
        ] {
            assert_eq!(lines(source), expected, "{source:?}");
        }
    }

    #[test]
    fn spans_lead_back() {
        let source = "\n  RUN abc \\\n # x\n  déf \\\n\n g";
        let mut reader = LineReader::new(source, '\\');
        let line = reader.logical().unwrap().unwrap();
        assert_eq!(line.text, "RUN abc   déf  g");
        let fragment = line.fragment();
        for word in ["RUN", "abc", "déf", "g"] {
            let at = line.text.find(word).unwrap();
            let span = fragment.slice(at, at + word.len()).span();
            assert_eq!(&source[span.range()], word);
        }
        let at = line.text.find("abc").unwrap();
        let across = fragment.slice(at, line.text.len()).span();
        assert_eq!(&source[across.range()], "abc \\\n # x\n  déf \\\n\n g");
        assert_eq!(line.span, Span::new(3, source.len()));
        assert!(line.empty_continuation.is_some());
        assert_eq!(fragment.slice(3, 3).span(), Span::at(6));
    }

    #[test]
    fn comments_above() {
        let mut reader = LineReader::new("# one\n#\n# two\n\n# three\nRUN a\nRUN b", '\\');
        let first = reader.logical().unwrap().unwrap();
        let texts: Vec<_> = first.comments.iter().map(|c| c.text.as_str()).collect();
        assert_eq!(texts, ["two", "three"]);
        assert!(reader.logical().unwrap().unwrap().comments.is_empty());
    }

    #[test]
    fn long_lines() {
        let fits = format!("{}\n", "x".repeat(65_535));
        assert!(LineReader::new(&fits, '\\').logical().is_ok());
        let long = format!("{}\n", "x".repeat(65_536));
        assert!(LineReader::new(&long, '\\').logical().is_err());
        let huge = "x".repeat(4 << 20);
        assert!(LineReader::new(&huge, '\\').logical().is_err());
    }
}
