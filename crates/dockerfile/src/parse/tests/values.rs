//! Instructions that take words, names and values.

use super::*;

#[test]
fn names_and_values() {
    let pairs = |source: &str| match one(source) {
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => pairs
            .into_iter()
            .map(|p| {
                format!(
                    "{}={}{}",
                    p.name.text,
                    p.value.text,
                    if p.legacy { " legacy" } else { "" }
                )
            })
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    for (source, expected) in [
        ("ENV a=1 b=\"x y\" c='z'", vec!["a=1", "b=\"x y\"", "c='z'"]),
        ("ENV a=1\\ 2", vec!["a=1\\ 2"]),
        ("ENV a b  c=d", vec!["a=b  c=d legacy"]),
        ("ENV a \\\n  b", vec!["a=b legacy"]),
        ("ENV a=1 \\\n  b=2", vec!["a=1", "b=2"]),
        ("ENV a==b=c", vec!["a==b=c"]),
        ("ENV a=", vec!["a="]),
        ("LABEL \"a b\"=c", vec!["\"a b\"=c"]),
        ("LABEL a b", vec!["a=b legacy"]),
        ("ENV a=b\\", vec!["a=b"]),
    ] {
        assert_eq!(pairs(source), expected, "{source:?}");
    }
    for (source, message) in [
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("LABEL a", "LABEL must have two arguments"),
        (
            "ENV a=1 b",
            "Syntax error - can't find = in \"b\". Must be of the form: name=value",
        ),
        (
            "ENV A=\"${U:-\"x y\"}\"",
            "Syntax error - can't find = in \"y\\\"}\\\"\". Must be of the form: name=value",
        ),
        ("ENV =x", "ENV names can not be blank"),
        ("LABEL a=1 =x", "LABEL names can not be blank"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =x", "ARG names can not be blank"),
    ] {
        assert_eq!(body_error(source), message, "{source:?}");
    }
    match one("# A the letter\n# check=skip=all\nARG A B= C=\"x y\"") {
        InstructionKind::Arg(args) => {
            let found: Vec<_> = args
                .iter()
                .map(|a| {
                    (
                        a.name.text.as_str(),
                        a.default.as_ref().map(|d| d.text.as_str()),
                    )
                })
                .collect();
            assert_eq!(
                found,
                [("A", None), ("B", Some("")), ("C", Some("\"x y\""))]
            );
            assert_eq!(args[0].doc.as_deref(), Some("the letter"));
            assert_eq!(args[1].doc, None);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn single_strings() {
    for (source, expected) in [
        ("WORKDIR /a b", "/a b"),
        ("WORKDIR \"/a b\"", "\"/a b\""),
        ("USER  a:b  ", "a:b"),
        ("STOPSIGNAL SIGTERM", "SIGTERM"),
        ("MAINTAINER A B <c@d>", "A B <c@d>"),
    ] {
        let word = match one(source) {
            InstructionKind::Workdir(w)
            | InstructionKind::User(w)
            | InstructionKind::StopSignal(w)
            | InstructionKind::Maintainer(w) => w,
            other => panic!("{other:?}"),
        };
        assert_eq!(word.text, expected);
    }
    for name in ["WORKDIR", "USER", "STOPSIGNAL", "MAINTAINER"] {
        assert_eq!(
            body_error(name),
            format!("{name} requires exactly one argument")
        );
    }
}

#[test]
fn lists() {
    for (source, expected) in [
        ("EXPOSE 80 443/tcp $P", vec!["80", "443/tcp", "$P"]),
        ("VOLUME /a /b/", vec!["/a", "/b/"]),
        ("VOLUME [\"/a b\", \" /c \"]", vec!["/a b", "/c"]),
        ("SHELL [\"a\", \"-c\"]", vec!["a", "-c"]),
    ] {
        let words = match one(source) {
            InstructionKind::Expose(w) | InstructionKind::Volume(w) | InstructionKind::Shell(w) => {
                w
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(texts(&words), expected, "{source:?}");
    }
    for (source, message) in [
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        (
            "VOLUME [\" \"]",
            "VOLUME specified can not be an empty string",
        ),
        ("SHELL", "SHELL requires at least one argument"),
        ("SHELL []", "SHELL requires at least one argument"),
        (
            "SHELL a -c",
            "SHELL requires the arguments to be in JSON form",
        ),
    ] {
        assert_eq!(body_error(source), message, "{source:?}");
    }
}

#[test]
fn from_forms() {
    let found = file("# b is nice\nFROM --platform=$P a:1 As B.1-x_\nFROM a$X");
    let stage = &found.stages[0];
    assert_eq!(stage.base.text, "a:1");
    assert_eq!(stage.platform.as_ref().unwrap().text, "$P");
    assert_eq!(stage.name.as_ref().unwrap().text, "b.1-x_");
    assert_eq!(stage.as_keyword.as_ref().unwrap().text, "As");
    assert_eq!(found.stage_named("B.1-X_"), Some(0));
    assert_eq!(found.stage_named("0"), None);
    assert_eq!(file("FROM a AS x\nFROM b AS x").stage_named("x"), Some(1));
    for (source, message) in [
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a to b", "FROM requires either one or three arguments"),
        (
            "FROM a AS b c",
            "FROM requires either one or three arguments",
        ),
        (
            "FROM a AS 1b",
            "invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
        ),
        (
            "FROM a AS b/c",
            "invalid name for build stage: \"b/c\", name can't start with a number or contain symbols",
        ),
        (
            "FROM --platfrm=x a",
            "unknown flag: --platfrm (did you mean platform?)",
        ),
    ] {
        assert_eq!(first_error(source), message, "{source:?}");
    }
}
