//! Findings of the checks, for people and for programs.
//!
//! The first line is BuildKit's (`WARN: Rule: text (line 3)`), which log filters know; the excerpt and the fix follow.

use std::fmt::Write as _;

use firebuild_engine::build::Warned;
use serde_json::{Value, json};

use super::diagnostic::{Snippet, source};

/// The line of a progress view.
pub(crate) fn line(warned: &Warned) -> String {
    format!(
        "WARN: {}: {} (line {})",
        warned.rule, warned.message, warned.line
    )
}

/// The place in the file, and what to do.
pub(crate) fn excerpt(warned: &Warned) -> String {
    let snippet = Snippet {
        file: warned.file.clone(),
        text: warned.text.to_string(),
        span: warned.span.clone(),
    };
    let mut text = source(&snippet);
    let _ = writeln!(text, "fix: {}", warned.advice);
    text
}

/// A finding of `--check`.
pub(crate) fn block(warned: &Warned) -> String {
    let mut text = format!("WARNING: {}", warned.rule);
    if let Some(url) = &warned.url {
        let _ = write!(text, " - {url}");
    }
    let _ = writeln!(text, "\n{}", warned.message);
    text + &excerpt(warned)
}

/// A finding as BuildKit's `lint` answer has it, with `fix` beside.
pub(crate) fn value(warned: &Warned) -> Value {
    let mut value = json!({
        "ruleName": warned.rule,
        "description": warned.description,
        "detail": warned.message,
        "location": location(&warned.text, &warned.span),
        "fix": { "advice": warned.advice },
    });
    if let Some(url) = &warned.url {
        value["url"] = json!(url);
    }
    if let Some((span, text)) = &warned.edit {
        value["fix"]["replace"] = range(&warned.text, span);
        value["fix"]["with"] = json!(text);
    }
    value
}

/// A place as BuildKit writes it.
pub(crate) fn location(text: &str, span: &std::ops::Range<usize>) -> Value {
    json!({ "sourceIndex": 0, "ranges": [range(text, span)] })
}

/// Lines are counted from 1, characters from 0.
fn range(text: &str, span: &std::ops::Range<usize>) -> Value {
    json!({ "start": position(text, span.start), "end": position(text, span.end) })
}

fn position(text: &str, at: usize) -> Value {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let begin = before.rfind('\n').map_or(0, |at| at + 1);
    json!({
        "line": before.matches('\n').count() + 1,
        "character": before[begin..].chars().count(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Warned, block, line, value};

    #[test]
    fn texts_and_values() {
        let warned = Warned {
            rule: "LegacyKeyValueFormat",
            description: "why",
            url: Some("https://x/".to_owned()),
            message: "what".to_owned(),
            file: "Dockerfile".to_owned(),
            text: "FROM a\nENV é b\n".into(),
            span: 7..15,
            line: 2,
            advice: "write ENV é=b".to_owned(),
            edit: Some((7..15, "ENV é=b".to_owned())),
        };
        assert_eq!(line(&warned), "WARN: LegacyKeyValueFormat: what (line 2)");
        assert_eq!(
            block(&warned),
            "WARNING: LegacyKeyValueFormat - https://x/\nwhat\n --> Dockerfile:2:1\n  |\n2 | ENV é b\n  | ^^^^^^^\nfix: write ENV é=b\n"
        );
        let value = value(&warned);
        assert_eq!(value["location"]["ranges"][0]["end"]["character"], 7);
        assert_eq!(value["fix"]["with"], "ENV é=b");
    }
}
