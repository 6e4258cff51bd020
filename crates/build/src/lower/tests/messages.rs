//! Errors, limits, findings and names of steps.

use super::*;

#[test]
fn places_of_errors() {
    for (text, kind, place) in [
        ("FROM x\nENV A=b${C^}", LowerErrorKind::Expansion, "${C^}"),
        (
            "FROM x\nCOPY --from=$A a b",
            LowerErrorKind::Stage,
            "--from=$A",
        ),
        ("FROM x\nEXPOSE 1 70000", LowerErrorKind::Value, "70000"),
        (
            "FROM x\nRUN --mount=type=cache,target=/ x",
            LowerErrorKind::Mount,
            "--mount=type=cache,target=/",
        ),
        (
            "FROM --platform=$N x",
            LowerErrorKind::Platform,
            "--platform=$N",
        ),
        (
            "FROM x\nCOPY --chmod=u a b",
            LowerErrorKind::Copy,
            "--chmod=u",
        ),
        (
            "FROM x\nADD a\\\n git@h:a?x=y d",
            LowerErrorKind::Copy,
            "git@h:a?x=y",
        ),
    ] {
        let error = error(text);
        assert_eq!(error.kind(), kind, "{text}: {error}");
        assert_eq!(&text[error.span().unwrap().range()], place, "{text}");
        assert_eq!(error.stage(), Some("stage-0"), "{text}");
    }
}

#[test]
fn limits() {
    // Values that double with each line.
    let mut text = "FROM x\nENV A=aaaaaaaaaaaaaaaa\n".to_owned();
    text += &"ENV A=$A$A\n".repeat(40);
    assert_eq!(error(&text).kind(), LowerErrorKind::Expansion);
    let mut text = format!("FROM x\nENV A={}\n", "a".repeat(60_000));
    for number in 0..40 {
        text += &format!("ENV B{number}=$A$A$A$A$A$A\n");
    }
    assert_eq!(error(&text).kind(), LowerErrorKind::TooLarge);
    let text = format!(
        "FROM x\nENV A={}\nENV B=$A$A$A$A$A$A$A$A$A$A\n{}",
        "a".repeat(60_000),
        "RUN x\n".repeat(5_000)
    );
    assert_eq!(error(&text).kind(), LowerErrorKind::TooLarge);
    let text = format!(
        "FROM x\nARG {}\n{}",
        "a ".repeat(30_000),
        "RUN x\n".repeat(100)
    );
    assert_eq!(
        history(&build(&text)).last(),
        Some(&"RUN |1 a= /bin/sh -c x # buildkit")
    );
    // Long chains of stages are no problem.
    let mut text = "FROM x AS s0\n".to_owned();
    for number in 1..1_000 {
        text += &format!(
            "FROM s{} AS s{number}\nCOPY --from=s0 a b\nRUN x\n",
            number - 1
        );
    }
    assert_eq!(execs(&build(&text)).len(), 999);
}

#[test]
fn findings_that_need_the_instructions() {
    for (text, expected) in [
        (
            "FROM x\nCMD [\"a\"]\ncmd [\"b\"]",
            "Multiple cmd instructions should not be used in the same stage because only the last one will be used",
        ),
        (
            "FROM x\nlabel k v",
            "\"label key=value\" should be used instead of legacy \"label key value\" format",
        ),
        (
            "FROM --platform=${TARGETPLATFORM} x",
            "Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior",
        ),
        (
            "FROM --platform=linux/s390x x",
            "FROM --platform flag should not use constant value \"linux/s390x\"",
        ),
        (
            "FROM x\nARG token",
            "Do not use ARG or ENV instructions for sensitive data (ARG \"token\")",
        ),
    ] {
        let found = build(text).warnings;
        let found: Vec<&str> = found.iter().map(|w| w.message.as_str()).collect();
        assert!(found.contains(&expected), "{text}: {found:?}");
    }
    for text in [
        "ARG token\nFROM x",
        "FROM --platform=linux/s390x x AS for-s390x",
        "# check=skip=FromPlatformFlagConstDisallowed\nFROM --platform=linux/s390x x",
        "FROM x AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]",
        "FROM --platform=$BUILDPLATFORM x",
    ] {
        assert_eq!(build(text).warnings, [], "{text}");
    }
}

#[test]
fn names_of_steps_show_what_the_build_knows() {
    let text = "FROM x\nENV A=1\nRUN --mount=type=secret,id=t,env=T echo \"$A\" '$A' $T ${B} $HOME";
    let lowered = build(text);
    assert_eq!(
        lowered.graph.vertex(lowered.graph.target).name,
        "[2/2] RUN --mount=type=secret,id=t,env=T echo \"1\" '$A' **** ${B} $HOME"
    );
    let outline = lowered.outline;
    assert_eq!(outline.secrets[0].id, "t");
    assert!(outline.args.is_empty());
}
