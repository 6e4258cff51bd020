//! The texts of history entries, written as Go's `fmt` writes values.

use std::fmt::Write as _;

/// `%q` of a list of strings: `["a" "b"]`.
pub(super) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `%v` of a list of strings: `[a b]`.
pub(super) fn plain_list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// `%q` of a string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c < ' ' || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Go's `time.Duration` as text: `1m30s`, `100ms`, `0s`.
pub(super) fn duration(nanos: i64) -> String {
    let total = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    if total == 0 {
        return "0s".to_owned();
    }
    for (unit, size) in [("ns", 1_000), ("µs", 1_000_000), ("ms", 1_000_000_000)] {
        if total < size {
            let scale = size / 1_000;
            return format!("{sign}{}{unit}", fraction(total, scale));
        }
    }
    let seconds = total / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let mut out = sign.to_owned();
    if hours > 0 {
        let _ = write!(out, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(out, "{minutes}m");
    }
    let rest = total - (seconds - seconds % 60) * 1_000_000_000;
    let _ = write!(out, "{}s", fraction(rest, 1_000_000_000));
    out
}

/// A number divided by a power of ten, without zeros at the end.
fn fraction(number: u64, scale: u64) -> String {
    let digits = scale.ilog10() as usize;
    let part = format!("{:0digits$}", number % scale);
    let part = part.trim_end_matches('0');
    if scale == 1 || part.is_empty() {
        return (number / scale).to_string();
    }
    format!("{}.{part}", number / scale)
}

/// What a person reads of a heredoc: its first line.
pub(super) fn heredoc_summary(body: &str) -> String {
    let body = body.trim();
    let mut lines = body.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    if lines.next().is_some() {
        first + "..."
    } else {
        first
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, heredoc_summary, quoted_list};

    #[test]
    fn go_values() {
        let words = ["a b".to_owned(), "\"\\\n\u{1}é\u{85}".to_owned()];
        assert_eq!(
            quoted_list(&words),
            "[\"a b\" \"\\\"\\\\\\n\\x01é\\u0085\"]"
        );
        assert_eq!(quoted_list(&[]), "[]");
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_000_000_000, "1s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_500_000_000, "1.5s"),
            (61_050_000_000, "1m1.05s"),
            (-1_000_000, "-1ms"),
        ] {
            assert_eq!(duration(nanos), text);
        }
        assert_eq!(heredoc_summary("\n a\nb\n"), "a...");
        assert_eq!(heredoc_summary("a\n"), "a");
    }
}
