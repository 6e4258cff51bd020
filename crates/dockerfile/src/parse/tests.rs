use crate::{
    Command, Dockerfile, HealthTest, Instruction, InstructionKind, ParseErrorKind, Script,
    parse_instruction,
};

fn file(source: &str) -> Dockerfile {
    Dockerfile::parse(source).unwrap_or_else(|e| panic!("{source:?}: {:?}", e.all()))
}

/// The instructions behind `FROM scratch`.
fn body(source: &str) -> Vec<Instruction> {
    file(&format!("FROM scratch\n{source}"))
        .stages
        .remove(0)
        .instructions
}

fn one(source: &str) -> InstructionKind {
    let mut instructions = body(source);
    assert_eq!(instructions.len(), 1, "{source:?}");
    instructions.remove(0).kind
}

fn first_error(source: &str) -> String {
    match Dockerfile::parse(source) {
        Ok(file) => panic!("{source:?}: {file:?}"),
        Err(errors) => errors.first().to_string(),
    }
}

fn body_error(source: &str) -> String {
    first_error(&format!("FROM scratch\n{source}"))
}

fn texts(words: &[crate::Word]) -> Vec<&str> {
    words.iter().map(|word| word.text.as_str()).collect()
}

fn show(command: &Command) -> String {
    match command {
        Command::Exec(words) => format!("exec {:?}", texts(words)),
        Command::Shell(word) => format!("shell {}", word.text),
    }
}

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
fn command_forms() {
    for (source, expected) in [
        ("RUN echo  'a'  \"b\" # c", "shell echo  'a'  \"b\" # c"),
        ("RUN [\"a\", \"b c\"]", "exec [\"a\", \"b c\"]"),
        ("RUN ['a']", "shell ['a']"),
        ("RUN [\"a\"] # tail", "shell [\"a\"] # tail"),
        ("RUN [\"a\"", "shell [\"a\""),
        ("RUN", "shell "),
        ("CMD []", "exec []"),
        ("CMD", "shell "),
        ("ENTRYPOINT []", "exec []"),
        ("ENTRYPOINT [\"\\u0041\"]", "exec [\"A\"]"),
        ("CMD [ \"a\" , \\\n  \"b\" ]", "exec [\"a\", \"b\"]"),
    ] {
        let command = match one(source) {
            InstructionKind::Run(run) => run.command,
            InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => command,
            other => panic!("{other:?}"),
        };
        assert_eq!(show(&command), expected, "{source:?}");
    }
    for (source, message) in [
        ("RUN []", "RUN requires at least one argument"),
        (
            "CMD [\"a\", 1]",
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
        (
            "COPY [\"a\", null]",
            "when using JSON array syntax, arrays must be comprised of strings only",
        ),
        ("CMD --x a", "unknown flag: --x"),
    ] {
        assert_eq!(body_error(source), message, "{source:?}");
    }
}

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

#[test]
fn healthchecks() {
    let check = |source: &str| match one(source) {
        InstructionKind::Healthcheck(check) => check,
        other => panic!("{other:?}"),
    };
    assert_eq!(check("HEALTHCHECK none").test, HealthTest::None);
    let full = check(
        "HEALTHCHECK --interval=1m30s --timeout=100ms --start-period=0 --start-interval=1s --retries=3 cmd curl -f x",
    );
    assert_eq!(full.interval.unwrap().as_secs(), 90);
    assert_eq!(full.timeout.unwrap().as_millis(), 100);
    assert_eq!(full.start_period, None);
    assert_eq!(full.retries, Some(3));
    match full.test {
        HealthTest::Command(command) => assert_eq!(show(&command), "shell curl -f x"),
        HealthTest::None => panic!(),
    }
    match check("HEALTHCHECK CMD [\"a\", \"b\"]").test {
        HealthTest::Command(command) => assert_eq!(show(&command), "exec [\"a\", \"b\"]"),
        HealthTest::None => panic!(),
    }
    assert_eq!(check("HEALTHCHECK --retries=0 CMD x").retries, None);
    for (source, message) in [
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        (
            "HEALTHCHECK CMD []",
            "Missing command after HEALTHCHECK CMD",
        ),
        (
            "HEALTHCHECK curl x",
            "Unknown type \"CURL\" in HEALTHCHECK (try CMD)",
        ),
        (
            "HEALTHCHECK --interval=1us CMD x",
            "Interval \"interval\" cannot be less than 1ms",
        ),
        (
            "HEALTHCHECK --timeout=-1s CMD x",
            "Interval \"timeout\" cannot be less than 1ms",
        ),
        (
            "HEALTHCHECK --retries=-1 CMD x",
            "--retries cannot be negative (-1)",
        ),
        (
            "HEALTHCHECK --retries=x CMD x",
            "invalid number \"x\" for --retries",
        ),
        ("HEALTHCHECK --retry=1 CMD x", "unknown flag: --retry"),
    ] {
        assert_eq!(body_error(source), message, "{source:?}");
    }
    assert!(
        body_error("HEALTHCHECK --interval=30 CMD x").contains("missing unit in duration \"30\"")
    );
}

#[test]
fn copy_and_add() {
    match one(
        "COPY --from=b --chown=1:$G --chmod=0644 --link --parents --exclude=a --exclude=$b x 'y' /d/",
    ) {
        InstructionKind::Copy(copy) => {
            assert_eq!(copy.from.unwrap().text, "b");
            assert!(copy.parents && copy.transfer.link);
            assert_eq!(copy.transfer.chown.unwrap().text, "1:$G");
            assert_eq!(copy.transfer.chmod.unwrap().text, "0644");
            assert_eq!(texts(&copy.transfer.exclude), ["a", "$b"]);
            assert_eq!(texts(&copy.transfer.sources), ["x", "'y'"]);
            assert_eq!(copy.transfer.destination.text, "/d/");
        }
        other => panic!("{other:?}"),
    }
    match one("ADD --checksum=sha256:x --keep-git-dir=false --unpack https://x/y [\"z\"]") {
        InstructionKind::Add(add) => {
            assert_eq!(add.checksum.unwrap().text, "sha256:x");
            assert_eq!(add.keep_git_dir, Some(false));
            assert_eq!(add.unpack, Some(true));
        }
        other => panic!("{other:?}"),
    }
    match one("COPY -- --odd /x") {
        InstructionKind::Copy(copy) => assert_eq!(texts(&copy.transfer.sources), ["--odd"]),
        other => panic!("{other:?}"),
    }
    match one("COPY [\"a b\", \"<<EOF\", \"/d\"]") {
        InstructionKind::Copy(copy) => assert_eq!(texts(&copy.transfer.sources), ["a b", "<<EOF"]),
        other => panic!("{other:?}"),
    }
    for (source, message) in [
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "ADD",
            "ADD requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "COPY []",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "COPY --frob a b",
            "unknown flag: --frob (did you mean from?)",
        ),
        ("COPY --from a b", "missing a value on flag: --from"),
        (
            "COPY --chown=a --chown=b a b",
            "duplicate flag specified: --chown",
        ),
        ("ADD --from=a a b", "unknown flag: --from"),
        ("ADD --parents a b", "unknown flag: --parents"),
        (
            "COPY a <<EOF\nEOF",
            "COPY cannot accept a heredoc as a destination",
        ),
    ] {
        assert_eq!(body_error(source), message, "{source:?}");
    }
}

#[test]
fn run_flags() {
    match one(
        "RUN --mount=type=cache,target=/c --mount=from=b,target=/b --network=none --security=insecure x",
    ) {
        InstructionKind::Run(run) => {
            assert_eq!(run.mounts.len(), 2);
            assert_eq!(run.mounts[1].from.as_ref().unwrap().text, "b");
            assert_eq!(run.network, crate::NetworkMode::None);
            assert_eq!(run.security, crate::SecurityMode::Insecure);
        }
        other => panic!("{other:?}"),
    }
    for (source, message) in [
        (
            "RUN --network=non x",
            "invalid network mode \"non\" (did you mean none?)",
        ),
        ("RUN --security=x y", "security \"x\" is not valid"),
        (
            "RUN --mount=from=$A,target=/x y",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("RUN --mnt=x y", "unknown flag: --mnt (did you mean mount?)"),
    ] {
        assert_eq!(body_error(source), message, "{source:?}");
    }
    // Quotes keep blanks in a flag.
    match one("RUN --mount=type=bind,\"target=/b c\" x") {
        InstructionKind::Run(run) => {
            assert_eq!(run.mounts[0].fields[1].value.as_deref(), Some("/b c"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn run_heredocs() {
    let script = |source: &str| match one(source) {
        InstructionKind::Run(run) => match run.script() {
            Script::Exec(argv) => format!("exec {:?}", texts(argv)),
            Script::Shell(text) => format!("shell {text}"),
            Script::File { name, content } => format!("file {name} {content}"),
        },
        other => panic!("{other:?}"),
    };
    for (source, expected) in [
        ("RUN <<EOF\na\n\n# b \\\nc\nEOF", "shell a\n\n# b \\\nc\n"),
        ("RUN <<-EOF\n\ta\n\t\t b\n\tEOF", "shell a\n b\n"),
        ("RUN <<'EOF'\n$a\nEOF", "shell $a\n"),
        ("RUN << EOF\na\nEOF", "shell a\n"),
        ("RUN <<EOF\n#!/bin/x\ny\nEOF", "file EOF #!/bin/x\ny\n"),
        ("RUN <<-EOF\n\t#!/bin/x\nEOF", "file EOF #!/bin/x\n"),
        ("RUN cat <<EOF > /x\na\nEOF", "shell cat <<EOF > /x\na\nEOF"),
        (
            "RUN cat <<A <<'B C' 3<<D\na\nA\nb\nB C\nd\nD",
            "shell cat <<A <<'B C' 3<<D\na\nA\nb\nB C\nd\nD",
        ),
        ("RUN cat \\\n  <<EOF\na\nEOF", "shell cat   <<EOF\na\nEOF"),
        ("RUN cat <<\\EOF\n$a\nEOF", "shell cat <<\\EOF\n$a\nEOF"),
        ("RUN cat <<E\"O\"F\na\nEOF", "shell cat <<E\"O\"F\na\nEOF"),
        ("RUN cat \"<<EOF\"", "shell cat \"<<EOF\""),
        ("RUN echo $((1<<2))", "shell echo $((1<<2))"),
        ("RUN cat <<< foo", "shell cat <<< foo"),
        ("RUN [\"cat\", \"<<EOF\"]", "exec [\"cat\", \"<<EOF\"]"),
        ("RUN <<EOF\nEOF", "shell "),
        ("RUN <<EOF\r\na\r\nEOF\r\n", "shell a\r\n"),
    ] {
        assert_eq!(script(source), expected, "{source:?}");
    }
    // What follows the end is an instruction again.
    assert_eq!(body("RUN cat <<EOF\nRUN x\nEOF\nRUN y").len(), 2);
    assert!(body_error("RUN <<EOF\na\n EOF").starts_with("unterminated heredoc"));
    assert!(body_error("RUN <<EOF").starts_with("unterminated heredoc"));
    // CMD and ENTRYPOINT have none.
    assert_eq!(body("CMD cat <<EOF\nRUN x").len(), 2);
}

#[test]
fn copy_heredocs() {
    match one("COPY <<a.txt /etc/x <<-'b' /d/\n$A\na.txt\n\tx\n\tb") {
        InstructionKind::Copy(copy) => {
            assert_eq!(texts(&copy.transfer.sources), ["/etc/x"]);
            let files = &copy.transfer.files;
            assert_eq!((files[0].name.as_str(), files[0].expand), ("a.txt", true));
            assert_eq!(files[0].text(), "$A\n");
            assert_eq!((files[1].name.as_str(), files[1].expand), ("b", false));
            assert_eq!(files[1].text(), "x\n");
        }
        other => panic!("{other:?}"),
    }
    assert!(body_error("COPY it's <<EOF /x\nEOF").starts_with("the heredoc <<EOF cannot be read"));
}

#[test]
fn triggers() {
    let trigger = |source: &str| match one(source) {
        InstructionKind::OnBuild(onbuild) => onbuild.trigger,
        other => panic!("{other:?}"),
    };
    for (source, expected) in [
        ("ONBUILD RUN  a   b", "RUN  a   b"),
        ("onbuild\tcopy . /x", "copy . /x"),
        ("ONBUILD NONSENSE x", "NONSENSE x"),
        ("ONBUILD RUN cat <<EOF\na\nEOF", "RUN cat <<EOF\na\nEOF"),
        (
            "ONBUILD COPY <<-EOF /x\n\ta\n\tEOF",
            "COPY <<-EOF /x\n\ta\nEOF",
        ),
        ("ONBUILD RUN a \\\n  b", "RUN a   b"),
    ] {
        assert_eq!(trigger(source), expected, "{source:?}");
        // What is stored can be read again.
        if !expected.starts_with("NONSENSE") {
            let instruction = parse_instruction(expected).unwrap();
            assert!(expected.to_uppercase().starts_with(instruction.kind.name()));
        }
    }
    for (source, message) in [
        ("ONBUILD", "ONBUILD requires at least one argument"),
        (
            "ONBUILD ONBUILD RUN x",
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("ONBUILD from a", "FROM isn't allowed as an ONBUILD trigger"),
        (
            "ONBUILD MAINTAINER a",
            "MAINTAINER isn't allowed as an ONBUILD trigger",
        ),
    ] {
        assert_eq!(body_error(source), message, "{source:?}");
    }
    for (text, message) in [
        ("", "onbuild trigger should be a single expression"),
        (
            "RUN a\nRUN b",
            "onbuild trigger should be a single expression",
        ),
        ("FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        ("NONSENSE", "unknown instruction: NONSENSE"),
        (
            "RUN <<EOF\na",
            "unterminated heredoc: no line \"EOF\" follows",
        ),
    ] {
        assert_eq!(
            parse_instruction(text).unwrap_err().to_string(),
            message,
            "{text:?}"
        );
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
