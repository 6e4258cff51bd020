//! The patterns of `${name#p}`, `${name%p}` and `${name/p/r}`.
//!
//! `*` is any run and `?` one character, neither crossing a line end; a backslash makes `*`, `?` and itself plain. There
//! are no brackets. Matching walks all possibilities at once, so its cost is bounded by text times pattern, and the
//! product is bounded by a budget.

/// What one pattern character matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    Plain(char),
}

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PatternError {
    /// A backslash in front of something that needs none.
    InvalidEscape(Option<char>),
    /// Too much work.
    TooLarge,
}

/// Which of several matches is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Shortest,
    Longest,
}

#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut tokens = Vec::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                // A run of stars is one star.
                '*' if tokens.last() == Some(&Token::Star) => continue,
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    // These escapes are for the `${…}` syntax only.
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Plain(c),
                    other => return Err(PatternError::InvalidEscape(other)),
                },
                c => Token::Plain(c),
            });
        }
        Ok(Self { tokens })
    }

    /// Removes a match at the start.
    pub(crate) fn trim_prefix<'v>(
        &self,
        value: &'v str,
        extent: Extent,
        budget: &mut u64,
    ) -> Result<&'v str, PatternError> {
        let chars: Vec<char> = value.chars().collect();
        let cut = match_length(&self.tokens, &chars, extent, budget)?.unwrap_or(0);
        Ok(&value[byte_offset(&chars[..cut])..])
    }

    /// Removes a match at the end.
    pub(crate) fn trim_suffix<'v>(
        &self,
        value: &'v str,
        extent: Extent,
        budget: &mut u64,
    ) -> Result<&'v str, PatternError> {
        let tokens: Vec<Token> = self.tokens.iter().rev().copied().collect();
        let chars: Vec<char> = value.chars().rev().collect();
        let cut = match_length(&tokens, &chars, extent, budget)?.unwrap_or(0);
        Ok(&value[..value.len() - byte_offset(&chars[..cut])])
    }

    /// Replaces the first match, the longest at the leftmost place, or all of them.
    ///
    /// With `all` a template is expanded: `$0` is the match, `$$` a dollar sign, other `$name` nothing; that is what
    /// Go's `regexp.ReplaceAllString` makes of text that comes from variables.
    pub(crate) fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
        max_bytes: usize,
        budget: &mut u64,
    ) -> Result<String, PatternError> {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::with_capacity(value.len());
        let mut at = 0;
        let mut last_end = None;
        while at <= chars.len() {
            match match_length(&self.tokens, &chars[at..], Extent::Longest, budget)? {
                // An empty match right behind another match is none.
                Some(length) if length > 0 || last_end != Some(at) => {
                    if !all {
                        out.push_str(replacement);
                        out.extend(&chars[at + length..]);
                        return Ok(out);
                    }
                    let matched: String = chars[at..at + length].iter().collect();
                    fill_template(replacement, &matched, &mut out);
                    if out.len() > max_bytes {
                        return Err(PatternError::TooLarge);
                    }
                    last_end = Some(at + length);
                    if length > 0 {
                        at += length;
                        continue;
                    }
                }
                _ => {}
            }
            if let Some(&c) = chars.get(at) {
                out.push(c);
            }
            at += 1;
        }
        Ok(out)
    }
}

fn byte_offset(chars: &[char]) -> usize {
    chars.iter().map(|c| c.len_utf8()).sum()
}

/// The number of characters that a match at the start of `text` takes.
fn match_length(
    tokens: &[Token],
    text: &[char],
    extent: Extent,
    budget: &mut u64,
) -> Result<Option<usize>, PatternError> {
    let accept = tokens.len();
    let mut states = vec![0];
    follow_stars(tokens, &mut states);
    let mut best = None;
    for at in 0..=text.len() {
        if states.last() == Some(&accept) {
            best = Some(at);
            if extent == Extent::Shortest {
                break;
            }
        }
        let Some(&c) = text.get(at) else { break };
        *budget = budget
            .checked_sub(states.len() as u64 + 1)
            .ok_or(PatternError::TooLarge)?;
        // States are kept in ascending order, each once.
        let mut next: Vec<usize> = Vec::with_capacity(states.len() + 1);
        for &state in &states {
            let target = match tokens.get(state) {
                Some(Token::Star) if c != '\n' => state,
                Some(Token::Any) if c != '\n' => state + 1,
                Some(&Token::Plain(plain)) if plain == c => state + 1,
                _ => continue,
            };
            if next.last().is_none_or(|&last| last < target) {
                next.push(target);
            }
        }
        follow_stars(tokens, &mut next);
        if next.is_empty() {
            break;
        }
        states = next;
    }
    Ok(best)
}

/// A star may match nothing: adds the states behind stars. Keeps the order.
fn follow_stars(tokens: &[Token], states: &mut Vec<usize>) {
    if !states
        .iter()
        .any(|&state| tokens.get(state) == Some(&Token::Star))
    {
        return;
    }
    let mut out: Vec<usize> = Vec::with_capacity(states.len() * 2);
    for &start in states.iter() {
        let mut state = start;
        loop {
            if out.last().is_none_or(|&last| last < state) {
                out.push(state);
            }
            if tokens.get(state) != Some(&Token::Star) {
                break;
            }
            state += 1;
        }
    }
    *states = out;
}

/// Go's `Regexp.Expand` for an expression without groups.
fn fill_template(template: &str, matched: &str, out: &mut String) {
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let (body, braced) = match rest.strip_prefix('{') {
            Some(body) => (body, true),
            None => (rest, false),
        };
        let length = body
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(body.len());
        let name = &body[..length];
        let tail = &body[length..];
        let tail = if braced {
            tail.strip_prefix('}')
        } else {
            Some(tail)
        };
        match tail {
            Some(tail) if !name.is_empty() => {
                if name == "0" {
                    out.push_str(matched);
                }
                rest = tail;
            }
            // Malformed: the dollar sign is text.
            _ => out.push('$'),
        }
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::{Extent, Pattern, PatternError};

    #[test]
    fn replacing() {
        for (value, pattern, replacement, first, all) in [
            ("a-b-c", "-", "+", "a+b-c", "a+b+c"),
            ("abc", "*", "x", "x", "x"),
            ("abc", "", "x", "xabc", "xaxbxcx"),
            ("abc", "?", "[&]", "[&]bc", "[&][&][&]"),
            ("xaxbx", "x*", "y", "y", "y"),
            ("a.b.c", ".", "", "ab.c", "abc"),
            ("aéa", "é", "è", "aèa", "aèa"),
            ("", "*", "x", "x", "x"),
            ("a\nb", "*", "x", "x\nb", "x\nx"),
            ("abc", "q", "x", "abc", "abc"),
        ] {
            let pattern_ = Pattern::parse(pattern).unwrap();
            let replace = |all| {
                pattern_
                    .replace(value, replacement, all, 1000, &mut 100_000)
                    .unwrap()
            };
            assert_eq!(replace(false), first, "{value} {pattern}");
            assert_eq!(replace(true), all, "{value} {pattern}");
        }
    }

    #[test]
    fn templates() {
        let pattern = Pattern::parse("b").unwrap();
        for (replacement, expected) in [
            ("$$", "a$c"),
            ("$0$0", "abbc"),
            ("$1", "ac"),
            ("${0}x", "abxc"),
            ("${0", "a${0c"),
            ("$", "a$c"),
            ("$-", "a$-c"),
        ] {
            assert_eq!(
                pattern
                    .replace("abc", replacement, true, 1000, &mut 1000)
                    .unwrap(),
                expected,
                "{replacement}"
            );
        }
    }

    #[test]
    fn errors() {
        assert!(matches!(
            Pattern::parse(r"\a"),
            Err(PatternError::InvalidEscape(Some('a')))
        ));
        assert!(matches!(
            Pattern::parse("\\"),
            Err(PatternError::InvalidEscape(None))
        ));
        let grow = Pattern::parse("a").unwrap();
        let (value, replacement) = ("a".repeat(100_000), "b".repeat(100_000));
        assert_eq!(
            grow.replace(&value, &replacement, true, 1 << 20, &mut 1_000_000),
            Err(PatternError::TooLarge)
        );
        let many = Pattern::parse(&"*a".repeat(1000)).unwrap();
        let text = "a".repeat(100_000);
        assert_eq!(
            many.trim_prefix(&text, Extent::Longest, &mut 1_000_000),
            Err(PatternError::TooLarge)
        );
    }
}
