//! JSON arrays of strings: the exec form of an instruction.
//!
//! Three answers are needed, not two: an array of strings, something that is no JSON at all (then the text is the shell
//! form), and valid JSON with another element in it (an error). So the whole of JSON is checked, without recursion.

use std::ops::Range;

use crate::limits::MAX_JSON_DEPTH;

/// What an argument turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JsonArgument {
    /// An array of strings, each with the place of its token.
    Strings(Vec<(String, Range<usize>)>),
    /// A JSON array with an element that is no string: its place.
    NotStrings(Range<usize>),
    /// No JSON array.
    NotJson,
}

/// Looks at a whole argument.
pub(crate) fn parse_argument(text: &str) -> JsonArgument {
    if !text.trim_start().starts_with('[') {
        return JsonArgument::NotJson;
    }
    Parser {
        text,
        at: text.len() - text.trim_start().len(),
    }
    .array()
    .unwrap_or(JsonArgument::NotJson)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    /// The top array; `None` is "no JSON".
    fn array(&mut self) -> Option<JsonArgument> {
        let mut strings = Vec::new();
        let mut other = None;
        self.expect(b'[')?;
        self.blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                self.blanks();
                let start = self.at;
                if self.peek() == Some(b'"') {
                    let string = self.string()?;
                    strings.push((string, start..self.at));
                } else {
                    self.value()?;
                    other.get_or_insert(start..self.at);
                }
                self.blanks();
                match self.next()? {
                    b',' => {}
                    b']' => break,
                    _ => return None,
                }
            }
        }
        self.blanks();
        if self.at != self.text.len() {
            return None;
        }
        Some(match other {
            Some(range) => JsonArgument::NotStrings(range),
            None => JsonArgument::Strings(strings),
        })
    }

    /// Skips any value but keeps its grammar. `stack` holds the closing bytes that are awaited.
    fn value(&mut self) -> Option<()> {
        let mut stack: Vec<u8> = Vec::new();
        loop {
            self.blanks();
            // A value.
            match self.peek()? {
                open @ (b'[' | b'{') => {
                    self.at += 1;
                    self.blanks();
                    let close = if open == b'[' { b']' } else { b'}' };
                    if self.peek() == Some(close) {
                        self.at += 1;
                    } else {
                        if stack.len() >= MAX_JSON_DEPTH {
                            return None;
                        }
                        stack.push(close);
                        if close == b'}' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => drop(self.string()?),
                b'-' | b'0'..=b'9' => self.number()?,
                _ => self.literal()?,
            }
            // What may follow it.
            loop {
                let Some(&close) = stack.last() else {
                    return Some(());
                };
                self.blanks();
                let byte = self.next()?;
                if byte == close {
                    stack.pop();
                } else if byte == b',' {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                } else {
                    return None;
                }
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        self.blanks();
        self.string()?;
        self.blanks();
        self.expect(b':')
    }

    fn literal(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        let word = ["true", "false", "null"]
            .into_iter()
            .find(|word| rest.starts_with(word))?;
        self.at += word.len();
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Some(())
    }

    fn some_digits(&mut self) -> Option<()> {
        let start = self.at;
        self.digits();
        (self.at > start).then_some(())
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Option<String> {
        self.expect(b'"')?;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ')?;
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.next()? {
                b'"' => return Some(out),
                b'\\' => out.push(self.escaped()?),
                _ => return None,
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.next()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex()?;
                if !(0xd800..0xdc00).contains(&high) {
                    // A low surrogate alone is no character.
                    return Some(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                let before = self.at;
                if self.text[self.at..].starts_with("\\u") {
                    self.at += 2;
                    let low = self.hex()?;
                    if (0xdc00..0xe000).contains(&low) {
                        let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        return char::from_u32(code);
                    }
                }
                self.at = before;
                char::REPLACEMENT_CHARACTER
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{JsonArgument, parse_argument};

    #[test]
    fn strings() {
        for (text, expected) in [
            ("[]", vec![]),
            (" [ ] ", vec![]),
            (r#"["a"]"#, vec!["a"]),
            (r#"[ "a" , "b c" ]"#, vec!["a", "b c"]),
            (r#"["\"\\\/\b\f\n\r\t"]"#, vec!["\"\\/\u{8}\u{c}\n\r\t"]),
            (r#"["é\u00e9\ud83d\ude00"]"#, vec!["éé😀"]),
            (r#"["\ud83dx\udc00"]"#, vec!["\u{fffd}x\u{fffd}"]),
            (r#"["\ud83d\u0041"]"#, vec!["\u{fffd}A"]),
        ] {
            match parse_argument(text) {
                JsonArgument::Strings(found) => {
                    let found: Vec<_> = found.iter().map(|(s, _)| s.as_str()).collect();
                    assert_eq!(found, expected, "{text}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn not_json() {
        for text in [
            "",
            "x",
            "[",
            "[a]",
            "['a']",
            r#"["a"] # tail"#,
            r#"["a",]"#,
            r#"["a" "b"]"#,
            r#"["a\x"]"#,
            "[\"a\tb\"]",
            r#"["a"#,
            r#"["\u12"]"#,
            r#"["\u+123"]"#,
            "[01]",
            "[1.]",
            "[-]",
            "[1e]",
            "[tru]",
            r#"[{"a"}]"#,
            "[{1:2}]",
            "[[1,]]",
            "[1]]",
            r#"["\u12é4"]"#,
        ] {
            assert_eq!(parse_argument(text), JsonArgument::NotJson, "{text}");
        }
        assert_eq!(parse_argument(&"[".repeat(100_000)), JsonArgument::NotJson);
    }

    #[test]
    fn other_elements() {
        for text in [
            "[1]",
            "[null]",
            "[true, false]",
            r#"["a", -1.5e+3]"#,
            "[[]]",
            r#"[{"a":[{}, 0.1E-2, "x"], "b": {}}]"#,
            "[[[1], 2]]",
        ] {
            assert!(
                matches!(parse_argument(text), JsonArgument::NotStrings(_)),
                "{text}"
            );
        }
        assert_eq!(
            parse_argument(r#"["a", 12]"#),
            JsonArgument::NotStrings(6..8)
        );
    }
}
