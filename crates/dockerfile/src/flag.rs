//! Flags: the leading words that start with `--`.
//!
//! The reader removes quotes and escapes; a word that *starts* with a quote is no flag, and a lone `--` ends the flags
//! (moby/buildkit, parser/split_command.go and instructions/bflag.go).

use crate::error::{ParseError, ParseErrorKind};
use crate::instruction::Word;
use crate::line::Fragment;
use crate::suggest::nearest;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagKind {
    /// Nothing, or `=true`, `=false`.
    Bool,
    /// One value.
    Single,
    /// One value each time.
    Repeated,
}

/// The flags that an instruction knows.
pub(crate) type FlagTable = &'static [(&'static str, FlagKind)];

/// Cuts the flag words off the front of an argument.
pub(crate) fn take_flags<'a>(argument: Fragment<'a>, escape: char) -> (Vec<Word>, Fragment<'a>) {
    let mut words = Vec::new();
    let mut rest = argument;
    loop {
        rest = rest.trim();
        if !rest.text.starts_with("--") {
            return (words, rest);
        }
        let (text, end) = read_word(rest.text, escape);
        let whole = rest.slice(0, end);
        rest = rest.slice(end, rest.text.len());
        if text == "--" {
            return (words, rest.trim());
        }
        // Where the text is as written, later places inside it are exact.
        words.push(Word::new(text, whole.span()));
    }
}

/// One word without its quotes and escapes, and where it ends.
fn read_word(text: &str, escape: char) -> (String, usize) {
    let mut out = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            return (out, at);
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && (c == '\'' || c == '"') {
            quote = Some(c);
        } else if c == escape {
            match chars.next() {
                Some((_, next)) => out.push(next),
                None => break,
            }
        } else {
            out.push(c);
        }
    }
    (out, text.len())
}

/// The checked flags of one instruction.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: Vec<(&'static str, Word)>,
}

impl Flags {
    /// Checks flag words against the table.
    pub(crate) fn check(words: &[Word], table: FlagTable) -> Result<Self, ParseError> {
        let mut flags = Self::default();
        for word in words {
            let (dashed, value) = match word.text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.text.as_str(), None),
            };
            let bad =
                |message: String| ParseError::new(ParseErrorKind::BadFlag, word.span, message);
            let name = &dashed[2..];
            let Some(&(name, kind)) = table.iter().find(|(known, _)| *known == name) else {
                return Err(ParseError::new(
                    ParseErrorKind::UnknownFlag,
                    word.span,
                    format!("unknown flag: {dashed}"),
                )
                .with_suggestion(nearest(name, table.iter().map(|(known, _)| *known))));
            };
            if kind != FlagKind::Repeated && flags.values.iter().any(|(used, _)| *used == name) {
                return Err(bad(format!("duplicate flag specified: {dashed}")));
            }
            let value = match (kind, value) {
                (FlagKind::Bool, None) => "true".to_owned(),
                (FlagKind::Bool, Some("")) | (FlagKind::Single | FlagKind::Repeated, None) => {
                    return Err(bad(format!("missing a value on flag: {dashed}")));
                }
                (FlagKind::Bool, Some(text)) => {
                    let lower = text.to_ascii_lowercase();
                    if lower != "true" && lower != "false" {
                        return Err(bad(format!(
                            "expecting boolean value for flag {dashed}, not: {text}"
                        )));
                    }
                    lower
                }
                (FlagKind::Single | FlagKind::Repeated, Some(text)) => text.to_owned(),
            };
            flags.values.push((name, Word::new(value, word.span)));
        }
        Ok(flags)
    }

    /// The value of a single flag.
    pub(crate) fn single(&self, name: &str) -> Option<&Word> {
        self.values
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, word)| word)
    }

    /// A single flag whose empty value means the same as its absence.
    pub(crate) fn filled(&self, name: &str) -> Option<Word> {
        self.single(name)
            .filter(|word| !word.text.is_empty())
            .cloned()
    }

    /// A boolean flag, if given.
    pub(crate) fn boolean(&self, name: &str) -> Option<bool> {
        self.single(name).map(|word| word.text == "true")
    }

    /// The values of a repeated flag, in order.
    pub(crate) fn repeated(&self, name: &str) -> Vec<Word> {
        self.values
            .iter()
            .filter(|(known, _)| *known == name)
            .map(|(_, word)| word.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{FlagKind, Flags, take_flags};
    use crate::line::LineReader;

    fn take(argument: &str) -> (Vec<String>, String) {
        let line = LineReader::new(argument, '\u{1}')
            .logical()
            .unwrap()
            .unwrap();
        let (words, rest) = take_flags(line.fragment(), '\\');
        (
            words.into_iter().map(|word| word.text).collect(),
            rest.text.to_owned(),
        )
    }

    #[test]
    fn leading_words() {
        for (argument, flags, rest) in [
            ("--a --b=c x --d", vec!["--a", "--b=c"], "x --d"),
            ("-a x", vec![], "-a x"),
            ("--  --odd /x", vec![], "--odd /x"),
            ("--a -- --b", vec!["--a"], "--b"),
            (r#"--a="b c" x"#, vec!["--a=b c"], "x"),
            (r#"--m=t,"dst=/b c" x"#, vec!["--m=t,dst=/b c"], "x"),
            (r"--a=b\ c x", vec!["--a=b c"], "x"),
            (r#""--a" x"#, vec![], r#""--a" x"#),
            ("--a=é", vec!["--a=é"], ""),
            (r"--a=b\", vec!["--a=b"], ""),
            ("x", vec![], "x"),
        ] {
            let (found, left) = take(argument);
            assert_eq!(found, flags, "{argument}");
            assert_eq!(left, rest, "{argument}");
        }
    }

    #[test]
    fn checking() {
        let table: super::FlagTable = &[
            ("link", FlagKind::Bool),
            ("from", FlagKind::Single),
            ("exclude", FlagKind::Repeated),
        ];
        let check = |argument: &str| {
            let line = LineReader::new(argument, '\u{1}')
                .logical()
                .unwrap()
                .unwrap();
            let (words, _) = take_flags(line.fragment(), '\\');
            Flags::check(&words, table).map_err(|e| e.to_string())
        };
        let flags = check("--link=TRUE --from=a=b --exclude=x --exclude=y z").unwrap();
        assert_eq!(flags.boolean("link"), Some(true));
        assert_eq!(flags.single("from").unwrap().text, "a=b");
        assert_eq!(flags.repeated("exclude").len(), 2);
        assert_eq!(
            check("--link=False x").unwrap().boolean("link"),
            Some(false)
        );
        assert!(check("--from= x").unwrap().filled("from").is_none());
        for (argument, message) in [
            ("--frob x", "unknown flag: --frob (did you mean from?)"),
            ("--Link x", "unknown flag: --Link"),
            ("--wholly-different x", "unknown flag: --wholly-different"),
            ("--link --link x", "duplicate flag specified: --link"),
            ("--from=a --from=b x", "duplicate flag specified: --from"),
            ("--from x", "missing a value on flag: --from"),
            ("--exclude x", "missing a value on flag: --exclude"),
            ("--link= x", "missing a value on flag: --link"),
            (
                "--link=1 x",
                "expecting boolean value for flag --link, not: 1",
            ),
        ] {
            assert_eq!(check(argument).unwrap_err(), message, "{argument}");
        }
    }
}
