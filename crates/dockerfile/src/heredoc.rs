//! Here-documents of `RUN`, `COPY` and `ADD`.
//!
//! A heredoc is a shell word `<<NAME` of the joined line; the bodies follow the line in order. Bodies are verbatim: no
//! comments, no continuation. A quote anywhere in the name turns expansion off; `<<-` cuts leading tabs. The escape
//! character of the file has no say here (moby/buildkit, parser/parser.go).

use std::borrow::Cow;

use crate::error::{ParseError, ParseErrorKind};
use crate::expand::{heredoc_names, shell_words};
use crate::line::{Fragment, LineReader};
use crate::span::Span;

/// One here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The terminator without quotes; for `COPY` and `ADD` also the file name.
    pub name: String,
    /// Whether variables in the body are expanded: no quote character in the name.
    pub expand: bool,
    /// `<<-`: leading tabs of each line are not part of the document.
    pub strip_tabs: bool,
    /// The number before `<<`; 0 when absent.
    pub fd: u32,
    /// The body as it stands in the file, line endings included. [`Heredoc::text`] applies `<<-`.
    pub body: String,
    /// Where the `<<NAME` word stood; the whole line when its place is not known exactly.
    pub span: Span,
    /// Where the body stood.
    pub body_span: Span,
}

impl Heredoc {
    /// The body, without leading tabs when `<<-` asked for that.
    pub fn text(&self) -> Cow<'_, str> {
        if !self.strip_tabs || !self.body.contains('\t') {
            return Cow::Borrowed(&self.body);
        }
        self.body
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect::<String>()
            .into()
    }
}

/// The `<<NAME` word alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) name: String,
    expand: bool,
    strip_tabs: bool,
    fd: u32,
}

/// Whether a word is a heredoc: `digits << [-] blanks name`, and what it says.
pub(crate) fn parse_head(word: &str) -> Option<Head> {
    let after_digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let fd = word[..word.len() - after_digits.len()].parse().unwrap_or(0);
    let rest = after_digits.strip_prefix("<<")?;
    let (rest, strip_tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let rest = rest.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let (plain, quoted) = heredoc_names(rest).ok()?;
    let ([name], [with_quotes]) = (plain.as_slice(), quoted.as_slice()) else {
        return None;
    };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Some(Head {
        expand: quotes(name) == quotes(with_quotes),
        name: name.clone(),
        strip_tabs,
        fd,
    })
}

/// The heredocs that a logical line announces, with their places.
pub(crate) fn find_heads(line: Fragment<'_>) -> Vec<(Head, Span)> {
    if !line.text.contains("<<") {
        return Vec::new();
    }
    // A line that the shell lexer cannot split (an open quote, `${x^^}`) has none.
    let Ok(words) = shell_words(line.text) else {
        return Vec::new();
    };
    let mut searched = 0;
    words
        .iter()
        .filter_map(|word| {
            let head = parse_head(word)?;
            let span = match line.text[searched..].find(word.as_str()) {
                Some(at) => {
                    let start = searched + at;
                    searched = start + word.len();
                    line.slice(start, searched).span()
                }
                None => line.span(),
            };
            Some((head, span))
        })
        .collect()
}

/// Takes the bodies from behind the line. Also gives the end of the last terminator line.
pub(crate) fn read_bodies(
    heads: Vec<(Head, Span)>,
    reader: &mut LineReader<'_>,
) -> Result<(Vec<Heredoc>, Option<usize>), ParseError> {
    let mut heredocs = Vec::with_capacity(heads.len());
    let mut end = None;
    for (head, span) in heads {
        let mut body = String::new();
        let start = reader.position();
        loop {
            let Some(line) = reader.physical()? else {
                return Err(ParseError::new(
                    ParseErrorKind::UnterminatedHeredoc,
                    span,
                    format!("unterminated heredoc: no line {:?} follows", head.name),
                ));
            };
            let candidate = if head.strip_tabs {
                line.text.trim_start_matches('\t')
            } else {
                line.text
            };
            if candidate == head.name {
                end = Some(line.start + line.text.len());
                heredocs.push(Heredoc {
                    name: head.name,
                    expand: head.expand,
                    strip_tabs: head.strip_tabs,
                    fd: head.fd,
                    body,
                    span,
                    body_span: Span::new(start, line.start),
                });
                break;
            }
            body.push_str(reader.raw(line));
        }
    }
    Ok((heredocs, end))
}

#[cfg(test)]
mod tests {
    use super::parse_head;

    #[test]
    fn heads() {
        for (word, expected) in [
            ("<<EOF", Some(("EOF", true, false, 0))),
            ("<<-EOF", Some(("EOF", true, true, 0))),
            ("3<<EOF", Some(("EOF", true, false, 3))),
            ("<< EOF", Some(("EOF", true, false, 0))),
            ("<<- EOF", Some(("EOF", true, true, 0))),
            ("<<'EOF'", Some(("EOF", false, false, 0))),
            ("<<\"EOF\"", Some(("EOF", false, false, 0))),
            ("<<E\"O\"F", Some(("EOF", false, false, 0))),
            ("<<\"E OF\"", Some(("E OF", false, false, 0))),
            ("<<\\EOF", Some(("EOF", true, false, 0))),
            ("<<a/b.txt", Some(("a/b.txt", true, false, 0))),
            ("<<$X", Some(("$X", true, false, 0))),
            ("<<", None),
            ("<<-", None),
            ("<<<x", None),
            ("x<<EOF", None),
            ("\"<<EOF\"", None),
            ("<<A<B", None),
            ("<EOF", None),
            ("<<''", None),
            ("99999999999<<EOF", Some(("EOF", true, false, 0))),
        ] {
            let found = parse_head(word).map(|h| (h.name, h.expand, h.strip_tabs, h.fd));
            let expected = expected.map(|(n, e, s, f)| (n.to_owned(), e, s, f));
            assert_eq!(found, expected, "{word}");
        }
    }
}
