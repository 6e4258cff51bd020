//! Parser directives: `# name=value` lines at the very top.
//!
//! The first line that is no known directive ends the search for good (moby/buildkit, parser/directives.go).

use crate::error::{ParseError, ParseErrorKind};
use crate::instruction::Word;
use crate::line::LineReader;
use crate::span::Span;

/// The parser directives of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// `syntax`: the frontend the author asks for.
    pub syntax: Option<Word>,
    /// `escape`: backslash or backtick.
    pub escape: char,
    /// `check`: options of the checks; see [`CheckOptions`](crate::CheckOptions).
    pub check: Option<Word>,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            syntax: None,
            escape: '\\',
            check: None,
        }
    }
}

impl Directives {
    /// Reads the directives and leaves the reader at the first line that is none.
    pub(crate) fn read(reader: &mut LineReader<'_>) -> Result<Self, ParseError> {
        let mut found = Self::default();
        let mut escape_seen = false;
        while let Some(line) = reader.peek_physical()? {
            let end = line.start + line.text.len();
            let Some((name, value)) = split(line.text) else {
                break;
            };
            let span = Span::new(
                line.start + (line.text.len() - line.text.trim_start().len()),
                end,
            );
            // `value` is the tail of the line but for blanks, so its place follows from its length.
            let value_end = line.start + line.text.trim_end().len();
            let word = Word::new(value, Span::new(value_end - value.len(), value_end));
            let repeated = match name.as_str() {
                "syntax" => found.syntax.replace(word).is_some(),
                "check" => found.check.replace(word).is_some(),
                "escape" => {
                    found.escape = match value {
                        "\\" => '\\',
                        "`" => '`',
                        _ => {
                            return Err(ParseError::new(
                                ParseErrorKind::BadDirective,
                                word.span,
                                format!("invalid escape token '{value}' does not match ` or \\"),
                            ));
                        }
                    };
                    std::mem::replace(&mut escape_seen, true)
                }
                _ => break,
            };
            if repeated {
                return Err(ParseError::new(
                    ParseErrorKind::BadDirective,
                    span,
                    format!("only one {name} parser directive can be used"),
                ));
            }
            reader.skip_to(line.next);
        }
        reader.escape = found.escape;
        Ok(found)
    }
}

/// `# name = value` with the name in lower case.
fn split(line: &str) -> Option<(String, &str)> {
    let text = line.trim_start().strip_prefix('#')?.trim_start();
    let (name, value) = text.split_once('=')?;
    let name = name.trim_end();
    let value = value.trim();
    let mut letters = name.chars();
    let well_formed = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric());
    (well_formed && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::Directives;
    use crate::line::LineReader;

    fn read(source: &str) -> Result<(Directives, Option<String>), String> {
        let mut reader = LineReader::new(source, '\\');
        let found = Directives::read(&mut reader).map_err(|e| e.to_string())?;
        let next = reader.logical().unwrap().map(|line| line.text);
        Ok((found, next))
    }

    #[test]
    fn forms() {
        for source in [
            "# escape=`\nX",
            "#escape=`\nX",
            "  #  EsCaPe \t=  `  \r\nX",
            "\u{feff}# escape=`\nX",
            "# syntax=docker/dockerfile:1\n# escape=`\nX",
        ] {
            let (found, next) = read(source).unwrap();
            assert_eq!(found.escape, '`', "{source:?}");
            assert_eq!(next.as_deref(), Some("X"), "{source:?}");
        }
    }

    #[test]
    fn search_ends() {
        for source in [
            "# comment\n# escape=`\nX",
            "# unknown=1\n# escape=`\nX",
            "\n# escape=`\nX",
            "FROM a\n# escape=`\nX",
            "#!/bin/x\n# escape=`\nX",
            "# escape=\n# escape=`\nX",
            "# es cape=`\n# escape=`\nX",
        ] {
            assert_eq!(read(source).unwrap().0.escape, '\\', "{source:?}");
        }
    }

    #[test]
    fn values_and_errors() {
        let source = "# syntax = a/B:1 x \n# check=skip=all;error=true\n";
        let (found, _) = read(source).unwrap();
        let syntax = found.syntax.unwrap();
        assert_eq!(syntax.text, "a/B:1 x");
        assert_eq!(&source[syntax.span.range()], "a/B:1 x");
        assert_eq!(found.check.unwrap().text, "skip=all;error=true");
        assert_eq!(
            read("# escape=`\n# escape=`").unwrap_err(),
            "only one escape parser directive can be used"
        );
        assert!(
            read("# escape=x")
                .unwrap_err()
                .contains("invalid escape token")
        );
    }
}
