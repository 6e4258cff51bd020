use firebuild_dockerfile::{expand_heredoc, expand_word, expand_words};

/// Bytes that a value of the environment has at most here.
const MAX_VALUE: usize = 8;
/// Bytes of one expanded word, as documented.
const MAX_WORD: usize = 1 << 20;

/// The first byte chooses the escape character; the rest is expanded as a word, as words and as a heredoc.
pub fn expand(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let escape = if first % 2 == 0 { '\\' } else { '`' };
    let text = String::from_utf8_lossy(rest);
    let lookup = |name: &str| match name {
        "a" => Some("x y"),
        "b" => Some(""),
        "c" => Some("a*b?c"),
        "é" => Some("$a'\"\\"),
        _ => None,
    };
    debug_assert!("a*b?c".len() <= MAX_VALUE);
    match expand_word(&text, escape, lookup) {
        Ok(expanded) => {
            assert!(expanded.text.len() <= MAX_WORD);
            let mut seen = std::collections::BTreeSet::new();
            for name in &expanded.unset {
                assert!(lookup(name).is_none(), "{name:?} is set");
                assert!(seen.insert(name), "{name:?} is told twice");
            }
        }
        Err(error) => assert!(text.is_char_boundary(error.offset())),
    }
    if let Ok(words) = expand_words(&text, escape, lookup) {
        let size: usize = words.words.iter().map(String::len).sum();
        assert!(size <= MAX_WORD);
    }
    if let Ok(body) = expand_heredoc(&text, lookup) {
        assert!(body.text.len() <= 64 << 20);
        if !text.contains(['$', '\\']) {
            assert_eq!(body.text, text, "nothing to expand");
        }
    }
    known_results(&text, escape);
}

/// What is quoted, escaped or plain stands for itself.
fn known_results(text: &str, escape: char) {
    let alone = |word: &str| expand_word(word, escape, |_| None).map(|expanded| expanded.text);
    if !text.contains(['$', '\'', '"', escape]) {
        assert_eq!(alone(text).as_deref(), Ok(text), "plain text");
    }
    if !text.contains('\'') {
        assert_eq!(
            alone(&format!("'{text}'")).as_deref(),
            Ok(text),
            "quoted text"
        );
    }
    let escaped: String = text.chars().flat_map(|c| [escape, c]).collect();
    assert_eq!(alone(&escaped).as_deref(), Ok(text), "escaped text");
}
