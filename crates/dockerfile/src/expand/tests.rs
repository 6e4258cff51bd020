use super::{ExpandErrorKind, expand_heredoc, expand_word, expand_words, shell_words};

fn env(name: &str) -> Option<&'static str> {
    Some(match name {
        "A" => "a",
        "AB" => "ab cd",
        "EMPTY" => "",
        "FILE" => "archive.tar.gz",
        "PATHS" => "/usr/local/bin/x",
        "DOLLAR" => "$1",
        "é" => "accent",
        "1" => "one",
        "PORTS" => "80 443/tcp",
        _ => return None,
    })
}

fn word(text: &str) -> String {
    match expand_word(text, '\\', env) {
        Ok(expanded) => expanded.text,
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn quoting() {
    for (text, expected) in [
        ("plain", "plain"),
        (r"a\b\\c", r"ab\c"),
        (r"\$A", "$A"),
        (r"end\", "end"),
        ("'$A \\'", "$A \\"),
        ("\"$A 'x'\"", "a 'x'"),
        (r#""a\b \" \$A \\""#, r#"a\b " $A \"#),
        ("a\"b c\"'d e'f", "ab cd ef"),
        ("\"\"", ""),
        (
            "\"abc",
            "error: unexpected end of statement while looking for matching double-quote",
        ),
        (
            "'abc",
            "error: unexpected end of statement while looking for matching single-quote",
        ),
        ("a<<b < c", "a<<b < c"),
    ] {
        assert_eq!(word(text), expected, "{text}");
    }
    let backtick = |text| expand_word(text, '`', env).unwrap().text;
    assert_eq!(backtick("C:\\x`$A`\""), "C:\\x$A\"");
    assert_eq!(backtick("\"a`b`\"\\\""), "a`b\"\\");
}

#[test]
fn variables() {
    for (text, expected) in [
        ("$A", "a"),
        ("${A}b", "ab"),
        ("$AB", "ab cd"),
        ("$A-$A.$A", "a-a.a"),
        ("$1x", "onex"),
        ("$1A", "oneA"),
        ("$NOPE", ""),
        ("$-", ""),
        ("$@$*$#$?$$$!$0", ""),
        ("$", "$"),
        ("a$ b$. $%", "a$ b$. $%"),
        ("$é", "accent"),
        ("${EMPTY}", ""),
        ("${", "error: syntax error: missing '}'"),
        ("${A", "error: syntax error: missing '}'"),
        ("${A:", "error: syntax error: missing '}'"),
        ("${A:-x", "error: syntax error: missing '}'"),
        ("${A:-\"x}", "error: syntax error: missing '}'"),
        ("${}", "error: syntax error: bad substitution"),
        ("${:-x}", "error: syntax error: bad substitution"),
        ("${{A}}", "error: syntax error: bad substitution"),
        ("${A^}", "error: unsupported modifier (^) in substitution"),
        (
            "${A:#x}",
            "error: unsupported modifier (:#) in substitution",
        ),
        (
            "${A:%x}",
            "error: unsupported modifier (:%) in substitution",
        ),
        (
            "${A:/x/y}",
            "error: unsupported modifier (:/) in substitution",
        ),
        ("${A:}", "error: unsupported modifier (:}) in substitution"),
        ("${A.x}", "error: unsupported modifier (.) in substitution"),
    ] {
        assert_eq!(word(text), expected, "{text}");
    }
}

#[test]
fn defaults() {
    for (text, expected) in [
        ("${A:-x}|${A-x}", "a|a"),
        ("${EMPTY:-x}|${EMPTY-x}", "x|"),
        ("${NOPE:-x}|${NOPE-x}", "x|x"),
        ("${A:+x}|${A+x}", "x|x"),
        ("${EMPTY:+x}|${EMPTY+x}", "|x"),
        ("${NOPE:+x}|${NOPE+x}", "|"),
        ("${A:?x}${A?x}", "aa"),
        ("${EMPTY?x}", ""),
        ("${EMPTY:?}", "error: EMPTY: is not allowed to be empty"),
        ("${NOPE?}", "error: NOPE: is not allowed to be unset"),
        ("${NOPE:?}", "error: NOPE: is not allowed to be unset"),
        ("${NOPE:?needs a value}", "error: NOPE: needs a value"),
        ("${NOPE:-${A}$AB}", "aab cd"),
        ("${NOPE:-a\\}b}", "a}b"),
        ("${NOPE:-'a}b'}", "a}b"),
        ("${NOPE:-\"$A b\"}", "a b"),
        ("${NOPE:-${NOPE:-${NOPE:-deep}}}", "deep"),
        ("${NOPE:-}", ""),
        ("\"${NOPE:-x y}\"", "x y"),
    ] {
        assert_eq!(word(text), expected, "{text}");
    }
}

#[test]
fn patterns() {
    for (text, expected) in [
        ("${FILE%.*}", "archive.tar"),
        ("${FILE%%.*}", "archive"),
        ("${FILE#*.}", "tar.gz"),
        ("${FILE##*.}", "gz"),
        ("${PATHS##*/}", "x"),
        ("${PATHS%/*}", "/usr/local/bin"),
        ("${FILE#?}", "rchive.tar.gz"),
        ("${FILE#nope}", "archive.tar.gz"),
        ("${FILE%}", "archive.tar.gz"),
        (
            "${FILE#\\a}",
            "error: invalid pattern (\\a) in substitution: invalid escape '\\a'",
        ),
        ("${FILE#archive\\*}", "archive.tar.gz"),
        ("${FILE#$A*r}", "chive.tar.gz"),
        ("${FILE/tar/zip}", "archive.zip.gz"),
        ("${FILE/a/A}", "Archive.tar.gz"),
        ("${FILE//a/A}", "Archive.tAr.gz"),
        ("${FILE/.*/}", "archive"),
        ("${FILE//[a]/x}", "archive.tar.gz"),
        ("${FILE/tar/&}", "archive.&.gz"),
        ("${PATHS//\\//:}", ":usr:local:bin:x"),
        ("${A/a/\\/}", "\\/"),
        ("${A/a/$AB}", "ab cd"),
        ("${A/a/${NOPE:-\\}}}", "}"),
        ("${A/a}", "error: syntax error: missing '/' in ${}"),
        ("${A/a/b", "error: syntax error: missing '}'"),
        ("${NOPE/a/b}", ""),
        ("${A/a/$DOLLAR}", "$1"),
        ("${A//a/$DOLLAR}", ""),
        ("${NOPE#*}", ""),
    ] {
        assert_eq!(word(text), expected, "{text}");
    }
}

#[test]
fn unset_names() {
    let expanded = expand_word("$X ${Y:-$Z} $X ${A:-$Q} $A ${W+x}", '\\', env).unwrap();
    assert_eq!(expanded.unset, ["X", "Z", "Y", "Q", "W"]);
}

#[test]
fn splitting() {
    let words = |text| expand_words(text, '\\', env).unwrap().words;
    assert_eq!(words("$PORTS"), ["80", "443/tcp"]);
    assert_eq!(words("\"$PORTS\""), ["80 443/tcp"]);
    assert_eq!(words("1$PORTS"), ["180", "443/tcp"]);
    assert_eq!(words("$NOPE"), Vec::<String>::new());
    assert_eq!(words("a\\ b c"), ["a b", "c"]);
    assert_eq!(words("80${NOPE:-90}"), ["8090"]);
}

#[test]
fn heredoc_bodies() {
    let body = |text| expand_heredoc(text, env).unwrap().text;
    assert_eq!(body("\"$A\" '$A'\n"), "\"a\" 'a'\n");
    assert_eq!(body("\\$A \\\\ a\\\nb \\x\n"), "$A \\ a\nb x\n");
    assert_eq!(body("$NOPE|${NOPE:-'d'}\n"), "|'d'\n");
    assert!(expand_heredoc("${A^}", env).is_err());
}

#[test]
fn words_of_a_shell_line() {
    let words = |text| shell_words(text).unwrap();
    assert_eq!(
        words("RUN cat <<EOF >\"/x y\" 3<<'B C' << D"),
        ["RUN", "cat", "<<EOF", ">\"/x y\"", "3<<'B C'", "<< D"]
    );
    assert_eq!(words("a $X ${Y:-b c}"), ["a", "$X", "${Y:-b", "c}"]);
    assert!(shell_words("RUN ${X^^} <<EOF").is_err());
    assert!(shell_words("RUN it's <<EOF").is_err());
}

#[test]
fn limits() {
    let kind = |text: &str| expand_word(text, '\\', env).map_err(|e| e.kind());
    assert!(kind(&format!("{}x{}", "${N:-".repeat(64), "}".repeat(64))).is_ok());
    let deep = "${N:-".repeat(1_000_000);
    assert_eq!(kind(&deep), Err(ExpandErrorKind::TooLarge));
    let quoted = "\"${N:-".repeat(100_000);
    assert_eq!(kind(&quoted), Err(ExpandErrorKind::TooLarge));
    let large = "x".repeat(1 << 19);
    let twice = |_: &str| Some(large.as_str());
    assert!(expand_word("$a$a", '\\', twice).is_ok());
    assert!(expand_word("$a$a$a", '\\', twice).is_err());
    assert!(expand_word("\"$a$a$a\"", '\\', twice).is_err());
    assert!(expand_word("${a//x/$a}", '\\', twice).is_err());
    assert!(expand_word("${a##*x*x*x*x*x*x*x*x*x*y}", '\\', twice).is_ok());
    let stars = format!("${{a##{}y}}", "*x".repeat(1000));
    assert!(expand_word(&stars, '\\', twice).is_err());
}

#[test]
fn errors_know_their_place() {
    for (text, offset) in [
        ("abc ${", 4),
        ("a 'b", 2),
        ("a ${A^}", 2),
        ("${N:-x} ${N:?}", 8),
    ] {
        assert_eq!(
            expand_word(text, '\\', env).unwrap_err().offset(),
            offset,
            "{text}"
        );
    }
}
