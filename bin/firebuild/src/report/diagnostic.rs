//! Errors for people: what failed, where, why, and what to do about it.
//!
//! ```text
//! error: unknown instruction: CPOY
//!  --> Dockerfile:3:1
//!   |
//! 3 | CPOY a /a
//!   | ^^^^
//!   |
//! hint: did you mean COPY?
//! ```
//!
//! The chain of causes follows on lines of their own; each error says only its own part.

use std::error::Error;
use std::fmt::Write as _;
use std::ops::Range;

/// A piece of source text that an error is about.
#[derive(Clone, Debug)]
pub(crate) struct Snippet {
    /// Name of the file, as the user gave it.
    pub(crate) file: String,
    /// Its text.
    pub(crate) text: String,
    /// Bytes of the text that are meant.
    pub(crate) span: Range<usize>,
}

/// The longest part of a source line that is shown; a Dockerfile line may have megabytes.
const SHOWN_COLUMNS: usize = 160;
/// A longer message loses its middle; in bytes.
const SHOWN_MESSAGE: usize = 4000;
/// More lines than this of a long instruction are cut.
const SHOWN_LINES: usize = 8;

/// The text of an error: message, snippet, causes, hints.
pub(crate) fn render(error: &dyn Error, snippet: Option<&Snippet>, hints: &[String]) -> String {
    let mut text = format!("error: {}\n", shortened(error.to_string()));
    if let Some(snippet) = snippet {
        text.push_str(&source(snippet));
    }
    let mut cause = error.source();
    let mut last = error.to_string();
    while let Some(error) = cause {
        let message = error.to_string();
        if message != last {
            let _ = writeln!(text, "  caused by: {}", shortened(message.clone()));
        }
        last = message;
        cause = error.source();
    }
    for hint in hints {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}

/// A message as people can read it: it may name a value that has megabytes.
fn shortened(mut message: String) -> String {
    if message.len() > SHOWN_MESSAGE {
        let end = message.split_off(floor(&message, message.len() - SHOWN_MESSAGE / 4));
        message.truncate(floor(&message, SHOWN_MESSAGE / 2));
        message = format!("{message} … {end}");
    }
    message
}

/// The lines of a snippet with their numbers and a caret below the place.
pub(crate) fn source(snippet: &Snippet) -> String {
    let text = &snippet.text;
    let start = floor(text, snippet.span.start);
    let end = floor(text, snippet.span.end.max(start));
    let first = text[..start].matches('\n').count();
    let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let column = text[begin..start].chars().count();
    let mut out = String::new();
    let spanned = text[start..end].trim_end().matches('\n').count() + 1;
    let width = (first + spanned).to_string().len();
    let _ = writeln!(
        out,
        "{:width$}--> {}:{}:{}",
        "",
        snippet.file,
        first + 1,
        column + 1
    );
    let _ = writeln!(out, "{:width$} |", "");
    for (index, line) in text[begin..]
        .lines()
        .take(spanned.min(SHOWN_LINES))
        .enumerate()
    {
        // A place far to the right of a long line moves into view.
        let skip = if index == 0 {
            column.saturating_sub(SHOWN_COLUMNS / 2)
        } else {
            0
        };
        let shown: String = line
            .chars()
            .skip(skip)
            .take(SHOWN_COLUMNS)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let _ = writeln!(out, "{:>width$} | {shown}", first + index + 1);
        let from = if index == 0 { column - skip } else { 0 };
        let length = if spanned == 1 {
            text[start..end].trim_end().chars().count()
        } else {
            line.trim_end().chars().count()
                - if index == 0 {
                    column.min(line.trim_end().chars().count())
                } else {
                    0
                }
        };
        let carets = length.clamp(1, SHOWN_COLUMNS.saturating_sub(from).max(1));
        if index == 0 || spanned == 1 {
            let _ = writeln!(
                out,
                "{:width$} | {}{}",
                "",
                " ".repeat(from),
                "^".repeat(carets)
            );
        }
    }
    if spanned > SHOWN_LINES {
        let _ = writeln!(
            out,
            "{:width$} | … {} lines more",
            "",
            spanned - SHOWN_LINES
        );
    }
    out
}

/// The largest character boundary that is not after `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::{Snippet, render, source};

    fn snippet(text: &str, span: std::ops::Range<usize>) -> Snippet {
        Snippet {
            file: "Dockerfile".to_owned(),
            text: text.to_owned(),
            span,
        }
    }

    #[test]
    fn a_caret_stands_below_the_place() {
        let text = source(&snippet("FROM a\nCPOY é b\n", 7..11));
        assert_eq!(text, " --> Dockerfile:2:1\n  |\n2 | CPOY é b\n  | ^^^^\n");
        let text = source(&snippet("FROM a\nCPOY é b\n", 15..16));
        assert_eq!(
            text,
            " --> Dockerfile:2:8\n  |\n2 | CPOY é b\n  |        ^\n"
        );
    }

    #[test]
    fn long_lines_and_wrong_spans_are_harmless() {
        let long = "x".repeat(1 << 20);
        let text = source(&snippet(&long, 500_000..500_003));
        assert!(text.len() < 1000 && text.contains("^^^"), "{text}");
        let text = render(&std::io::Error::other(format!("é{long}.")), None, &[]);
        assert!(text.len() < 5000 && text.ends_with("xx.\n"), "{text}");
        source(&snippet("é", 1..99));
        source(&snippet("", 0..0));
        source(&snippet("a\n", 2..2));
    }

    #[test]
    fn the_chain_and_the_hints_follow() {
        #[derive(Debug)]
        struct Outer(std::io::Error);
        impl std::fmt::Display for Outer {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("cannot open the door")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let text = render(
            &Outer(std::io::Error::other("locked")),
            None,
            &["knock".to_owned()],
        );
        assert_eq!(
            text,
            "error: cannot open the door\n  caused by: locked\nhint: knock\n"
        );
    }
}
