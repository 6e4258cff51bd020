//! Instructions that take a command.

use super::*;

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
