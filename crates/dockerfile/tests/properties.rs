//! Any text gives a value or errors, never a panic, and spans lie where they can be used.

use firebuild_dockerfile::{
    CheckOptions, Command, Dockerfile, IgnorePatterns, InstructionKind, Span, expand_heredoc,
    expand_word, expand_words, glob_match, lint, parse_instruction,
};
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_oneof, proptest,
};

/// Pieces that mean something to the parser, and noise.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "FROM ",
            "RUN ",
            "COPY ",
            "ADD ",
            "ENV ",
            "ARG ",
            "LABEL ",
            "CMD ",
            "ENTRYPOINT ",
            "ONBUILD ",
            "EXPOSE ",
            "HEALTHCHECK ",
            "SHELL ",
            "VOLUME ",
            "USER ",
            "WORKDIR ",
            "STOPSIGNAL ",
            "from ",
            "AS ",
            "a",
            "b=c",
            "\n",
            "\n",
            "\n",
            "\r\n",
            "\\\n",
            "`\n",
            "\\",
            "`",
            "#",
            "# escape=`\n",
            "# check=skip=all\n",
            "<<EOF",
            "EOF\n",
            "<<-E ",
            "E\n",
            "\t",
            " ",
            "  ",
            "\"",
            "'",
            "$",
            "${",
            "}",
            ":-",
            "/",
            "//",
            "%",
            "[",
            "]",
            "[\"a\",",
            "\"b\"]",
            "--from=",
            "--mount=",
            "type=bind,",
            "target=/x",
            "--",
            "\u{feff}",
            "é",
            "\u{a0}",
            "=",
            "1",
            "\\u00e9",
            ",",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ]
}

fn text() -> impl Strategy<Value = String> {
    (
        prop_oneof![Just(String::new()), Just("FROM a\n".to_owned())],
        prop::collection::vec(piece(), 0..40),
    )
        .prop_map(|(head, pieces)| head + &pieces.concat())
}

fn usable(source: &str, span: Span) -> bool {
    source.get(span.range()).is_some()
}

fn check_spans(source: &str, file: &Dockerfile) -> Result<(), String> {
    let check = |span: Span, what: &str| {
        if usable(source, span) {
            Ok(())
        } else {
            Err(format!("{what} {span:?}"))
        }
    };
    for stage in &file.stages {
        check(stage.base.span, "base")?;
        check(stage.span, "stage")?;
        check(stage.from_span, "from")?;
        for word in [&stage.name, &stage.platform, &stage.as_keyword]
            .into_iter()
            .flatten()
        {
            check(word.span, "from word")?;
        }
    }
    let all = file
        .stages
        .iter()
        .flat_map(|stage| &stage.instructions)
        .chain(&file.global_args);
    for instruction in all {
        check(instruction.span, "instruction")?;
        check(instruction.keyword.span, "keyword")?;
        for comment in &instruction.comments {
            check(comment.span, "comment")?;
        }
        let command = |command: &Command| match command {
            Command::Exec(argv) => argv.iter().try_for_each(|word| check(word.span, "argv")),
            Command::Shell(word) => check(word.span, "shell text"),
        };
        match &instruction.kind {
            InstructionKind::Run(run) => {
                command(&run.command)?;
                for heredoc in &run.heredocs {
                    check(heredoc.span, "heredoc")?;
                    check(heredoc.body_span, "heredoc body")?;
                    if source[heredoc.body_span.range()] != heredoc.body {
                        return Err("heredoc body differs from its place".to_owned());
                    }
                }
                drop(run.script());
            }
            InstructionKind::Cmd(c) | InstructionKind::Entrypoint(c) => command(c)?,
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
                for pair in pairs {
                    check(pair.name.span, "name")?;
                    check(pair.value.span, "value")?;
                }
            }
            InstructionKind::Expose(words)
            | InstructionKind::Volume(words)
            | InstructionKind::Shell(words) => {
                for word in words {
                    check(word.span, "word")?;
                }
            }
            InstructionKind::Copy(copy) => {
                for word in copy
                    .transfer
                    .sources
                    .iter()
                    .chain([&copy.transfer.destination])
                {
                    check(word.span, "path")?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn parsing_never_panics(source in text()) {
        match Dockerfile::parse(&source) {
            Ok(file) => {
                prop_assert!(check_spans(&source, &file).is_ok(), "{:?}", check_spans(&source, &file));
                for warning in lint(&file, &CheckOptions::default()) {
                    prop_assert!(usable(&source, warning.span), "{warning:?}");
                }
            }
            Err(errors) => {
                prop_assert!(!errors.all().is_empty());
                for error in errors.all() {
                    prop_assert!(usable(&source, error.span()), "{error:?}");
                }
            }
        }
        drop(parse_instruction(&source));
        drop(CheckOptions::parse(&source));
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut file = b"FROM a\nRUN ".to_vec();
        file.extend(&bytes);
        let (source, parsed) = Dockerfile::parse_bytes(&file);
        prop_assert!(source.len() == file.len());
        if let Err(errors) = parsed {
            for error in errors.all() {
                prop_assert!(usable(&source, error.span()));
            }
        }
    }

    #[test]
    fn expanding_never_panics(source in text(), escape in prop::sample::select(vec!['\\', '`'])) {
        let lookup = |name: &str| match name {
            "a" => Some("x y"),
            "b" => Some(""),
            _ => None,
        };
        if let Err(error) = expand_word(&source, escape, lookup) {
            prop_assert!(source.is_char_boundary(error.offset()));
        }
        drop(expand_words(&source, escape, lookup));
        drop(expand_heredoc(&source, lookup));
    }

    #[test]
    fn quoted_text_is_itself(value in "[^']*") {
        let expanded = expand_word(&format!("'{value}'"), '\\', |_| None);
        prop_assert!(expanded.is_ok_and(|e| e.text == value));
    }

    #[test]
    fn ignoring(
        patterns in prop::collection::vec("!?[ab*?/]{1,6}", 0..5),
        directory in "[ab]{1,2}(/[ab]{1,2}){0,2}",
        rest in "[ab]{1,2}(/[ab]{1,2}){0,2}",
    ) {
        if let Ok(list) = IgnorePatterns::from_patterns(patterns.iter().map(String::as_str)) {
            let below = format!("{directory}/{rest}");
            // What may be skipped has nothing in it.
            if list.skips_below(directory.as_bytes()) {
                prop_assert!(list.is_ignored(below.as_bytes()), "{patterns:?} {below}");
            }
        }
        for pattern in &patterns {
            let _ = glob_match(pattern, directory.as_bytes());
        }
    }
}
