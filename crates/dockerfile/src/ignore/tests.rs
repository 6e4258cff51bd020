use super::{IgnorePatterns, clean};

fn list(text: &str) -> IgnorePatterns {
    IgnorePatterns::parse(text.as_bytes()).unwrap()
}

#[test]
fn one_pattern() {
    for (pattern, path, ignored) in [
        ("a", "a", true),
        ("a", "a/b", true),
        ("a", "b/a", false),
        ("a/", "a/b", true),
        ("/a", "a", true),
        ("./a//b/../c", "a/c", true),
        ("*.md", "x.md", true),
        ("*.md", "d/x.md", false),
        ("*/*.md", "d/x.md", true),
        ("**/*.md", "x.md", true),
        ("**/*.md", "a/b/x.md", true),
        ("**/x", "x", true),
        ("**/x", "a/b/x", true),
        ("**/x", "a/bx", false),
        ("**x", "a/bx", true),
        ("a/**", "a", false),
        ("a/**", "a/b/c", true),
        ("a**", "ab/c", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "a/x/yb", false),
        ("a**b", "axb", false),
        ("a**b", "ax/b", true),
        ("**", "anything/at/all", true),
        ("*", "a/b", true),
        ("?", "a", true),
        ("?", "ab", false),
        ("a?c", "a/c", false),
        ("[a-c]x", "bx", true),
        ("[^a-c]x", "bx", false),
        ("[^a-c]x", "dx", true),
        ("\\*", "*", true),
        ("\\*", "a", false),
        ("a b", "a b", true),
        ("  a  ", "a", true),
        (" # x", "# x", true),
        ("a/**/*.o", "a/b/c/x.o", true),
        ("é?", "éü", true),
        ("a.b", "axb", false),
        ("*/b", "a/b/c", true),
        ("..", "a", false),
        (".", "a", false),
    ] {
        assert_eq!(
            list(pattern).is_ignored(path.as_bytes()),
            ignored,
            "{pattern} {path}"
        );
    }
    assert!(list("a?c").is_ignored(b"a\xffc"));
}

#[test]
fn lists() {
    for (file, path, ignored) in [
        ("*\n!a", "a", false),
        ("*\n!a", "a/b", false),
        ("*\n!a", "b", true),
        ("a\n!a/b", "a/b", false),
        ("a\n!a/b", "a/c", true),
        ("a\n!a/b\na/b/c", "a/b/c", true),
        ("!a\na", "a", true),
        ("a\n!a", "a", false),
        ("a\n!**/*.md", "a/x.md", false),
        ("\u{feff}# c\n\n#a\na", "a", true),
        ("#a", "#a", false),
        ("a\r\nb\r\n", "b", true),
        ("*\n! a", "a", false),
        ("**/*.txt\n!d", "d/a.txt", true),
        ("**/*.txt\n!d", "d/b/a.txt", true),
        ("**/*.txt\n!d/*", "d/a.txt", false),
        ("**/*.txt\n!d/b", "d/b/a.txt", true),
        ("d\n**/*.txt\n!d", "d/a.txt", false),
        ("*/b\n!a", "a/b/c", true),
        ("d\n!d\n**/*.txt", "d/a.txt", true),
        ("d\n!d\n**/*.txt\n!d", "d/a.txt", true),
        ("*", ".", false),
        ("*", "", false),
    ] {
        assert_eq!(
            list(file).is_ignored(path.as_bytes()),
            ignored,
            "{file:?} {path}"
        );
    }
}

#[test]
fn walks() {
    for (file, directory, skips) in [
        ("a", "a", true),
        ("a", "a/b", true),
        ("a", "b", false),
        ("a\n!b", "a", true),
        ("a\n!a/b", "a", false),
        ("a\n!a/b/c", "a/b", false),
        ("a\n!a/b/c", "a/x", true),
        ("a\n!a/b", "a/b", false),
        ("a\n!**/*.md", "a", false),
        ("a\n!*/x", "a", false),
        ("a\n!?/x", "aa", false),
        ("aa\n!?/x", "aa", true),
        ("a\n!b/**", "a", true),
        ("a\n!a/**", "a", false),
        ("!a\na", "a", true),
        ("**\n!a**", "ab", false),
        ("**\n!a**", "b", true),
        ("*\n!a/b/**/c", "a/b/x/y", false),
        ("*\n!a/[bc]/d", "a/x", true),
    ] {
        assert_eq!(
            list(file).skips_below(directory.as_bytes()),
            skips,
            "{file:?} {directory}"
        );
    }
}

#[test]
fn everything() {
    for (file, all) in [
        ("*", true),
        ("**/", true),
        ("**/*", true),
        ("!*", false),
        ("*.x", false),
        ("", false),
    ] {
        assert_eq!(list(file).ignores_all(), all, "{file}");
    }
}

#[test]
fn errors() {
    for (file, line, message) in [
        ("a\n!\n", 2, "illegal exclusion pattern: \"!\""),
        ("! ", 1, "illegal exclusion pattern: \"!\""),
        ("[a", 1, "illegal pattern \"[a\": syntax error in pattern"),
        (
            "a\n\nb\\",
            3,
            "illegal pattern \"b\\\\\": syntax error in pattern",
        ),
    ] {
        let error = IgnorePatterns::parse(file.as_bytes()).unwrap_err();
        assert_eq!(error.line(), line, "{file:?}");
        assert_eq!(error.to_string(), format!("line {line}: {message}"));
    }
    assert!(
        IgnorePatterns::from_patterns(["a", "!b"])
            .unwrap()
            .has_exceptions()
    );
    assert!(IgnorePatterns::from_patterns([]).unwrap().is_empty());
}

#[test]
fn cleaning() {
    for (path, cleaned) in [
        ("a/./b/", "a/b"),
        ("/../a", "a"),
        ("a/../..", ".."),
        ("../../a", "../../a"),
        ("/", "/"),
        ("a/..", "."),
    ] {
        assert_eq!(clean(path), cleaned, "{path}");
    }
}
