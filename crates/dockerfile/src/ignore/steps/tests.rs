use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};

use super::{LOOKS, Steps};

/// The definition, word by word: `**` with its slash is `.*` at the end, else `(.*/)?`; `*` and `?` keep off slashes.
fn defined(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*', rest @ ..] => match rest.strip_prefix(&['/']).unwrap_or(rest) {
            [] => true,
            rest => {
                let behind = (0..path.len()).filter(|&at| path[at] == '/');
                defined(rest, path) || behind.into_iter().any(|at| defined(rest, &path[at + 1..]))
            }
        },
        ['*', rest @ ..] => {
            let run = path.iter().take_while(|c| **c != '/').count();
            (0..=run).any(|at| defined(rest, &path[at..]))
        }
        ['?', rest @ ..] => {
            matches!(path, [c, path @ ..] if *c != '/' && defined(rest, path))
        }
        [plain, rest @ ..] => {
            matches!(path, [c, path @ ..] if c == plain && defined(rest, path))
        }
    }
}

/// The path, or a directory above it.
fn defined_with_parents(pattern: &[char], path: &[char]) -> bool {
    let ends = (0..path.len()).filter(|&at| path[at] == '/');
    ends.chain([path.len()])
        .any(|end| defined(pattern, &path[..end]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn as_defined(
        pattern in "([ab*?é]|\\*\\*|/\\*\\*/|/){1,7}",
        path in "[abé]{1,2}(/[abé]{1,2}){0,4}",
    ) {
        let steps = Steps::new(&pattern);
        let [chars, text] = [&pattern, &path].map(|text| text.chars().collect::<Vec<_>>());
        prop_assert_eq!(
            steps.cover(path.as_bytes()),
            defined_with_parents(&chars, &text),
            "{} {}", pattern, path
        );
        // Where nothing below can match, nothing does.
        for (at, _) in path.match_indices('/') {
            if !steps.go_on_behind(&path.as_bytes()[..=at]) {
                prop_assert_eq!(defined(&chars, &text), false, "{} {}", pattern, path);
            }
        }
    }
}

/// A file full of `**` and a long, deep path: each character of the path looks at each place of the pattern a few times at the
/// most.
#[test]
fn linear() {
    for (pattern, path) in [
        ("**/a".repeat(500) + "*b", "a/".repeat(2000) + "a"),
        ("*a".repeat(1000) + "b", "a".repeat(4000)),
        ("**".repeat(1000) + "?x", "a/".repeat(2000) + "a"),
        (
            "*".repeat(3) + &"/**/*".repeat(300) + "b",
            "a/".repeat(2000) + "a",
        ),
    ] {
        let steps = Steps::new(&pattern);
        LOOKS.set(0);
        assert!(!steps.cover(path.as_bytes()));
        let most = 4 * (steps.0.len() as u64 + 1) * path.len() as u64;
        assert!(LOOKS.get() <= most, "{} > {most}", LOOKS.get());
        assert!(LOOKS.get() > most / 100, "the path was walked");
    }
}
