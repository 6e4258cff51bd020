//! Splitting an argument into words.

use crate::line::Fragment;

/// The white space that separates words (moby/buildkit, parser.go `reWhitespace`).
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r')
}

/// Splits at the first run of blanks: the word before and, if there was a blank, the rest behind.
pub(crate) fn split_first(text: Fragment<'_>) -> (Fragment<'_>, Option<Fragment<'_>>) {
    match text.text.find(is_blank) {
        None => (text, None),
        Some(at) => {
            let rest = text.text[at..].trim_start_matches(is_blank);
            (
                text.slice(0, at),
                Some(text.slice(text.text.len() - rest.len(), text.text.len())),
            )
        }
    }
}

/// Splits at blanks; quotes mean nothing. The text has no outer white space.
pub(crate) fn split_blanks(text: Fragment<'_>) -> Vec<Fragment<'_>> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, tail) = split_first(rest);
        words.push(word);
        match tail {
            Some(tail) => rest = tail,
            None => break,
        }
    }
    words
}

/// Splits at white space outside quotes; quotes and escapes stay in the words.
///
/// An escape character protects the next character, but not inside `'`; one at the very end of the text is dropped.
/// `${…}` means nothing here, so a quote inside it ends an outer quote.
pub(crate) fn split_quoted(text: Fragment<'_>, escape: char) -> Vec<Fragment<'_>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote: Option<char> = None;
    let mut end = text.text.len();
    let mut chars = text.text.char_indices();
    while let Some((at, c)) = chars.next() {
        let begin = match start {
            Some(begin) => begin,
            None if c.is_whitespace() => continue,
            None => *start.insert(at),
        };
        if quote.is_none() && c.is_whitespace() {
            words.push(text.slice(begin, at));
            start = None;
        } else if c == escape && quote != Some('\'') {
            if chars.next().is_none() {
                end = at;
            }
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && (c == '\'' || c == '"') {
            quote = Some(c);
        }
    }
    if let Some(begin) = start
        && begin < end
    {
        words.push(text.slice(begin, end));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{split_blanks, split_quoted};
    use crate::line::LineReader;

    fn split(text: &str, quoted: Option<char>) -> Vec<String> {
        // A leading word keeps the blanks of the text; the line reader would cut them.
        let source = format!("X{text}");
        let line = LineReader::new(&source, '\u{1}')
            .logical()
            .unwrap()
            .unwrap();
        let fragment = line.fragment();
        let fragment = fragment.slice(1, source.len());
        let words = match quoted {
            Some(escape) => split_quoted(fragment, escape),
            None => split_blanks(fragment),
        };
        words.iter().map(|word| word.text.to_owned()).collect()
    }

    #[test]
    fn blanks() {
        assert_eq!(split("a \t b\u{b}'c d'", None), ["a", "b", "'c", "d'"]);
        assert_eq!(split("", None), Vec::<String>::new());
        assert_eq!(split("a\u{a0}b", None), ["a\u{a0}b"]);
    }

    #[test]
    fn quotes_and_escapes() {
        for (text, expected) in [
            ("a=1 b=2", vec!["a=1", "b=2"]),
            (r#"a="1 2" b"#, vec![r#"a="1 2""#, "b"]),
            (r"a='1 2\' b", vec![r"a='1 2\'", "b"]),
            (r"a=1\ 2 b", vec![r"a=1\ 2", "b"]),
            (r#"a="x\" y" b"#, vec![r#"a="x\" y""#, "b"]),
            (r"a=\' b", vec![r"a=\'", "b"]),
            (r"a b\", vec!["a", "b"]),
            (r"a \", vec!["a"]),
            (r#"a="b c"#, vec![r#"a="b c"#]),
            (r#""""#, vec![r#""""#]),
            (r#"A="${U:-"x y"}""#, vec![r#"A="${U:-"x"#, r#"y"}""#]),
            ("  é  ", vec!["é"]),
        ] {
            assert_eq!(split(text, Some('\\')), expected, "{text}");
        }
        assert_eq!(split(r"a=C:\x` y b", Some('`')), [r"a=C:\x` y", "b"]);
    }
}
