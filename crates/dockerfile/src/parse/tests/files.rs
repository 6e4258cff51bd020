//! Whole files: lines, bytes, limits, and errors in them.

use super::*;

#[test]
fn whole_files() {
    for (source, message) in [
        ("", "the Dockerfile cannot be empty"),
        ("# only\n\n# comments\n", "file with no instructions"),
        ("# escape=`\n", "file with no instructions"),
        (
            "ARG A=1\n",
            "dockerfile contains no stages to build: there is no FROM",
        ),
        (
            "RUN x\nFROM a",
            "no build stage in current context: RUN stands above the first FROM",
        ),
        (
            "# escape=x\nFROM a",
            "invalid escape token 'x' does not match ` or \\",
        ),
        (
            "# syntax=a\n# syntax=b\nFROM a",
            "only one syntax parser directive can be used",
        ),
    ] {
        assert_eq!(first_error(source), message, "{source:?}");
    }
}

#[test]
fn lexical_rules() {
    for source in [
        "\u{feff}FROM a\r\nRUN x y\r\n",
        "from a\nrun\tx y",
        "FROM a\nRun \\\n x y",
        "FROM a\nRUN x \\\n# comment \\\n   # another\ny",
        "FROM a\nRUN x \\   \n\n\ny",
        "FROM a\n# comment \\\nRUN x y",
        "FROM a\n   RUN x y\\",
        "FROM a\nRU\\\nN x \\\n\\\ny",
    ] {
        let file = file(source);
        let InstructionKind::Run(run) = &file.stages[0].instructions[0].kind else {
            panic!("{source:?}")
        };
        assert_eq!(
            show(&run.command).replace("  ", " "),
            "shell x y",
            "{source:?}"
        );
    }
    assert_eq!(file("FROM a\nRUN x \\\n\ny").empty_continuations.len(), 1);
    // A hash elsewhere is data, a doubled escape no continuation.
    let found = body("RUN echo a #b\nRUN x\\\\\nRUN y");
    assert_eq!(found.len(), 3);
    // The escape directive rules continuation and words alike.
    let windows = file("# escape=`\nFROM a\nRUN dir c:\\\nRUN a `\n  b");
    assert_eq!(windows.escape(), '`');
    assert_eq!(windows.stages[0].instructions.len(), 2);
}

#[test]
fn unknown_instructions() {
    for (source, message) in [
        (
            "FNTRYPOINT [\"x\"]",
            "unknown instruction: FNTRYPOINT (did you mean ENTRYPOINT?)",
        ),
        ("FETCH a b", "unknown instruction: FETCH"),
        ("cpoy a b", "unknown instruction: cpoy (did you mean copy?)"),
        ("\\\n", "unknown instruction: "),
    ] {
        assert_eq!(body_error(source), message, "{source:?}");
    }
}

#[test]
fn several_errors() {
    let errors = Dockerfile::parse("FROM a b c d\nCPOY x y\nRUN ok\nENV x\nCOPY a").unwrap_err();
    let kinds: Vec<_> = errors.all().iter().map(crate::ParseError::kind).collect();
    assert_eq!(
        kinds,
        [
            ParseErrorKind::WrongArguments,
            ParseErrorKind::UnknownInstruction,
            ParseErrorKind::WrongArguments,
            ParseErrorKind::WrongArguments,
        ]
    );
    assert_eq!(
        errors.to_string(),
        "FROM requires either one or three arguments (and 3 more errors)"
    );
    let many = "NOPE x\n".repeat(1000);
    assert_eq!(
        Dockerfile::parse(&format!("FROM a\n{many}"))
            .unwrap_err()
            .all()
            .len(),
        20
    );
}

#[test]
fn spans() {
    let source = "FROM  --platform=p base AS n\nENV a=\"b\" \\\n  c=d\nRUN --mount=target=/x <<E\nbody\nE\nCMD [\"p\", \\\n \"q\"]\n";
    let parsed = file(source);
    let stage = &parsed.stages[0];
    let at = |span: crate::Span| &source[span.range()];
    assert_eq!(at(stage.base.span), "base");
    assert_eq!(at(stage.platform.as_ref().unwrap().span), "--platform=p");
    assert_eq!(at(stage.name.as_ref().unwrap().span), "n");
    assert_eq!(at(stage.from_span), "FROM  --platform=p base AS n");
    assert!(at(stage.span).starts_with("FROM") && at(stage.span).ends_with("\"q\"]"));
    match &stage.instructions[0].kind {
        InstructionKind::Env(pairs) => {
            assert_eq!(at(pairs[0].value.span), "\"b\"");
            assert_eq!(at(pairs[1].name.span), "c");
            assert_eq!(at(pairs[1].value.span), "d");
        }
        other => panic!("{other:?}"),
    }
    match &stage.instructions[1].kind {
        InstructionKind::Run(run) => {
            assert_eq!(at(run.heredocs[0].span), "<<E");
            assert_eq!(at(run.heredocs[0].body_span), "body\n");
            assert_eq!(at(run.mounts[0].span), "--mount=target=/x");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        at(stage.instructions[1].span),
        "RUN --mount=target=/x <<E\nbody\nE"
    );
    match &stage.instructions[2].kind {
        InstructionKind::Cmd(Command::Exec(argv)) => {
            assert_eq!(at(argv[0].span), "\"p\"");
            assert_eq!(at(argv[1].span), "\"q\"");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes() {
    let (text, parsed) = Dockerfile::parse_bytes(b"# caf\xe9\nFROM a\nRUN x \\\n y\n");
    assert!(text.starts_with("# caf?\n"));
    assert!(parsed.is_ok());
    let (_, parsed) = Dockerfile::parse_bytes(b"FROM a\nRUN caf\xe9\n");
    let errors = parsed.unwrap_err();
    assert_eq!(errors.first().kind(), ParseErrorKind::NotUtf8);
    assert_eq!(errors.first().span(), crate::Span::new(14, 15));
}

#[test]
fn limits() {
    let kind = |source: &str| Dockerfile::parse(source).unwrap_err().first().kind();
    assert_eq!(kind(&"x".repeat(4 << 20)), ParseErrorKind::TooLarge);
    assert_eq!(
        kind(&format!("FROM a\nRUN {}\n", "x".repeat(65_532))),
        ParseErrorKind::TooLarge
    );
    assert!(Dockerfile::parse(&format!("FROM a\nRUN {}\n", "x".repeat(65_531))).is_ok());
    assert_eq!(kind(&"#\n".repeat(9 << 20)), ParseErrorKind::TooLarge);
    assert_eq!(kind(&"FROM a\n".repeat(2_002)), ParseErrorKind::TooLarge);
    assert_eq!(
        kind(&format!("FROM a\n{}", "RUN a\n".repeat(20_000))),
        ParseErrorKind::TooLarge
    );
    // Long through continuation is fine.
    let long = format!("FROM a\nRUN x {}", "\\\ny".repeat(1 << 20));
    assert!(Dockerfile::parse(&long).is_ok());
    let names = format!("FROM a\nRUN << {}", "\\\n$x${y}\"".repeat(1 << 18));
    drop(Dockerfile::parse(&names));
}
