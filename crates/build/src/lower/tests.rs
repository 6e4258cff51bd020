use std::collections::BTreeMap;

use firebuild_dockerfile::Dockerfile;
use firebuild_oci::{Digest, ImageConfig, Platform, Reference};

use super::{Entitlements, LowerError, LowerErrorKind, Lowered, Options, Outcome, lower};
use crate::graph::{ExecOp, MkdirOp, NetworkMode, Op, SecurityMode};
use crate::resolve::{ImageRequest, Resolved, ResolvedImage};

/// Each image has one layer; `edit` changes its configuration.
fn build_with(
    text: &str,
    options: &Options,
    edit: impl Fn(&ImageRequest, &mut ImageConfig),
) -> Result<Lowered, LowerError> {
    let file = Dockerfile::parse(text).unwrap();
    let mut resolved = Resolved::default();
    loop {
        match lower(&file, &resolved, options)? {
            Outcome::Lowered(lowered) => return Ok(*lowered),
            Outcome::NeedsTime(request) => panic!("{request:?}"),
            Outcome::Needs(requests) => {
                for (request, _) in requests {
                    let mut config = ImageConfig::new(request.platform.parse().unwrap());
                    edit(&request, &mut config);
                    let manifest = Digest::of(request.reference.as_bytes());
                    let reference: Reference = request.reference.parse().unwrap();
                    let image = ResolvedImage {
                        reference: reference.with_digest(manifest),
                        manifest,
                        config,
                        layers: vec![manifest],
                    };
                    resolved.images.insert(request, image);
                }
            }
        }
    }
}

fn options(args: &[(&str, &str)]) -> Options {
    Options {
        build_args: args
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        build_platform: Platform::linux("amd64"),
        ..Options::default()
    }
}

fn build(text: &str) -> Lowered {
    build_with(text, &options(&[]), |_, _| {}).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn error(text: &str) -> LowerError {
    match build_with(text, &options(&[]), |_, _| {}) {
        Ok(_) => panic!("{text} is lowered"),
        Err(error) => error,
    }
}

fn execs(lowered: &Lowered) -> Vec<&ExecOp> {
    let ops = lowered.graph.vertices.iter().map(|vertex| &vertex.op);
    ops.filter_map(|op| match op {
        Op::Exec(exec) => Some(exec),
        _ => None,
    })
    .collect()
}

fn env<'a>(exec: &'a ExecOp, name: &str) -> Option<&'a str> {
    exec.env
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

fn history(lowered: &Lowered) -> Vec<&str> {
    lowered
        .config
        .history
        .iter()
        .map(|entry| entry.created_by.as_deref().unwrap_or(""))
        .collect()
}

#[test]
fn only_what_is_needed_is_asked_for() {
    let text = "FROM one AS a\nFROM two AS b\nFROM three AS c\nCOPY --from=b /x /x\nRUN --mount=from=four,target=/m y\nFROM c\nFROM five";
    let file = Dockerfile::parse(text).unwrap();
    let ask = |target: &str| {
        let options = Options {
            target: Some(target.to_owned()),
            ..options(&[])
        };
        match lower(&file, &Resolved::default(), &options).unwrap() {
            Outcome::NeedsTime(request) => panic!("{request:?}"),
            Outcome::Needs(requests) => requests
                .into_iter()
                .map(|(request, _)| request.reference)
                .collect::<Vec<_>>(),
            Outcome::Lowered(_) => panic!("images are missing"),
        }
    };
    let name = |short: &str| format!("docker.io/library/{short}:latest");
    assert_eq!(ask("a"), [name("one")]);
    assert_eq!(ask("C"), [name("two"), name("three"), name("four")]);
}

#[test]
fn platforms_of_requests() {
    let text = "FROM --platform=linux/arm64 one AS a\nFROM two\nCOPY --from=three /x /x\nCOPY --from=a /x /x";
    let file = Dockerfile::parse(text).unwrap();
    let options = Options {
        platform: Some("linux/riscv64".parse().unwrap()),
        ..options(&[])
    };
    let Outcome::Needs(requests) = lower(&file, &Resolved::default(), &options).unwrap() else {
        panic!("images are missing")
    };
    let found: Vec<_> = requests
        .iter()
        .map(|(request, span)| (request.platform.as_str(), &text[span.range()]))
        .collect();
    assert_eq!(
        found,
        [
            ("linux/arm64", "one"),
            ("linux/riscv64", "two"),
            ("linux/riscv64", "--from=three")
        ]
    );
}

#[test]
fn arguments_by_position() {
    let text = "ARG G=global\nARG U\nFROM x\nRUN 0\nARG G\nARG U\nARG D=$G-$E\nRUN 1\nARG G=stage\nENV G=env E=e\nRUN 2\nARG G=late\nRUN 3\nFROM x\nRUN 4";
    let lowered = build_with(
        text,
        &Options {
            target: Some(String::new()),
            ..options(&[])
        },
        |_, _| {},
    )
    .unwrap();
    assert_eq!(env(execs(&lowered)[0], "G"), None, "another stage");
    let first = text.split("FROM x\nRUN 4").next().unwrap();
    let lowered = build(first);
    let steps = execs(&lowered);
    let values: Vec<_> = steps.iter().map(|exec| env(exec, "G")).collect();
    assert_eq!(values, [None, Some("global"), Some("env"), Some("late")]);
    assert_eq!(env(steps[1], "U"), None, "unset is not empty");
    assert_eq!(env(steps[1], "D"), Some("global-"));
    assert_eq!(
        lowered.config.config.env_value("G"),
        Some("env"),
        "the image keeps ENV"
    );

    let given = build_with(
        first,
        &options(&[("G", "$cli 'x'"), ("U", ""), ("X", "")]),
        |_, _| {},
    )
    .unwrap();
    let steps = execs(&given);
    assert_eq!(env(steps[1], "G"), Some("$cli 'x'"), "literal");
    assert_eq!(env(steps[1], "U"), Some(""));
    assert_eq!(given.unused_args, ["X"]);
}

#[test]
fn arguments_of_bases() {
    let text = "FROM x AS a\nARG A=1\nENV E=2\nARG E=3\nRUN 1\nFROM a\nRUN 2";
    let lowered = build(text);
    let steps = execs(&lowered);
    assert_eq!(
        (env(steps[0], "A"), env(steps[0], "E")),
        (Some("1"), Some("3"))
    );
    assert_eq!(
        (env(steps[1], "A"), env(steps[1], "E")),
        (Some("1"), Some("2"))
    );
    assert_eq!(
        history(&lowered).last(),
        Some(&"RUN |2 A=1 E=2 /bin/sh -c 2 # buildkit")
    );
}

#[test]
fn expansion_sees_the_state_before() {
    let lowered = build("FROM x\nENV A=1\nENV A=2 B=$A C=${A:+set}\nLABEL $A=$B ${B}x=y\nRUN x");
    let config = &lowered.config.config;
    assert_eq!(config.env_value("B"), Some("1"));
    assert_eq!(
        config.labels,
        BTreeMap::from([
            ("2".to_owned(), "1".to_owned()),
            ("1x".to_owned(), "y".to_owned())
        ])
    );
    assert_eq!(
        config
            .env
            .iter()
            .filter(|entry| entry.starts_with("A="))
            .count(),
        1
    );
}

#[test]
fn entrypoint_clears_an_inherited_command_only() {
    let with_cmd = |_: &ImageRequest, config: &mut ImageConfig| {
        config.config.cmd = Some(vec!["base".to_owned()])
    };
    let cmd = |text: &str| {
        let lowered = build_with(text, &options(&[]), with_cmd).unwrap();
        lowered.config.config.cmd.map(|cmd| cmd.join(" "))
    };
    for (text, expected) in [
        ("FROM x", Some("base")),
        ("FROM x\nENTRYPOINT [\"e\"]", None),
        ("FROM x\nENTRYPOINT []", None),
        ("FROM x\nCMD [\"own\"]\nENTRYPOINT [\"e\"]", Some("own")),
        ("FROM x\nENTRYPOINT [\"e\"]\nCMD [\"own\"]", Some("own")),
        ("FROM x AS a\nCMD [\"a\"]\nFROM a\nENTRYPOINT [\"e\"]", None),
        ("FROM x\nCMD []", None),
        ("FROM x\nCMD run me", Some("/bin/sh -c run me")),
        ("FROM x\nSHELL [\"s\"]\nCMD run me", Some("s run me")),
    ] {
        assert_eq!(cmd(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn working_directories() {
    for (text, path, layers) in [
        ("WORKDIR a\nWORKDIR b/", "/a/b", 2),
        ("WORKDIR /a\nWORKDIR ../../b", "/b", 2),
        ("WORKDIR \"/a b\"", "/a b", 1),
        ("WORKDIR /a b", "/a b", 1),
        ("WORKDIR /x\nWORKDIR $NOPE", "/x", 2),
        ("WORKDIR /", "/", 0),
        ("WORKDIR /a//b/", "/a//b/", 1),
        ("WORKDIR /a/../b\nWORKDIR c/", "/b/c", 2),
    ] {
        let lowered = build(&format!("FROM x\n{text}"));
        assert_eq!(lowered.config.config.working_dir, path, "{text}");
        let made: Vec<_> = lowered
            .graph
            .vertices
            .iter()
            .filter(|vertex| matches!(&vertex.op, Op::Mkdir(MkdirOp { .. })))
            .collect();
        assert_eq!(made.len(), layers, "{text}");
        let counted = lowered
            .config
            .history
            .iter()
            .filter(|entry| !entry.empty_layer)
            .count();
        assert_eq!(counted, layers, "{text}");
    }
}

#[test]
fn scratch_has_a_path() {
    let config = build("FROM scratch\nUSER x").config;
    assert_eq!(config.config.working_dir, "/");
    assert_eq!(
        config.config.env,
        ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    );
    assert_eq!(config.platform, Platform::linux("amd64"));
    // A base without one gets it, behind what it has.
    let lowered = build_with("FROM x\nENV B=2", &options(&[]), |_, config| {
        config.config.env = vec!["A=1".to_owned()]
    });
    let env = lowered.unwrap().config.config.env;
    assert_eq!(env[0], "A=1");
    assert!(env[1].starts_with("PATH=") && env[2] == "B=2");
}

#[test]
fn triggers_fire_once() {
    let edit = |request: &ImageRequest, config: &mut ImageConfig| {
        if request.reference.contains("onb") {
            config.config.on_build =
                vec!["RUN fired".to_owned(), "COPY --from=other /x /x".to_owned()];
        }
    };
    let lowered = build_with(
        "FROM onb AS a\nRUN own\nFROM a\nRUN child",
        &options(&[]),
        edit,
    )
    .unwrap();
    let steps: Vec<_> = execs(&lowered)
        .iter()
        .map(|exec| exec.argv[2].clone())
        .collect();
    assert_eq!(steps, ["fired", "own", "child"]);
    assert!(lowered.config.config.on_build.is_empty());
    // Errors of a trigger are at the FROM line.
    let text = "FROM x AS unused\nFROM onb\nRUN a";
    let bad = |_: &ImageRequest, config: &mut ImageConfig| {
        config.config.on_build = vec!["ENV a=${b?}".to_owned()]
    };
    let error = build_with(text, &options(&[]), bad).unwrap_err();
    assert_eq!(error.kind(), LowerErrorKind::Expansion);
    assert_eq!(&text[error.span().unwrap().range()], "FROM onb");
}

#[test]
fn names_of_stages() {
    let text = "FROM x AS Build\nRUN 1\nFROM x AS build\nRUN 2\nFROM scratch\nCOPY --from=BUILD /a /a\nCOPY --from=0 /b /b";
    let lowered = build(text);
    let steps: Vec<_> = execs(&lowered)
        .iter()
        .map(|exec| exec.argv[2].clone())
        .collect();
    assert_eq!(
        steps,
        ["1", "2"],
        "a name means the last stage, a number the one at that place"
    );
    // A FROM looks above itself, exactly as written.
    let lowered = build("FROM x AS b\nRUN 1\nFROM b\nRUN 2\nFROM x AS b");
    assert!(execs(&lowered).is_empty());
    let chained = build_with(
        "FROM x AS b\nRUN 1\nFROM b AS c\nRUN 2\nFROM x AS b",
        &Options {
            target: Some("c".to_owned()),
            ..options(&[])
        },
        |_, _| {},
    );
    assert_eq!(execs(&chained.unwrap()).len(), 2);
    // A number as target is a name, and there is none.
    let numbered = build_with(
        "FROM x\nFROM x",
        &Options {
            target: Some("0".to_owned()),
            ..options(&[])
        },
        |_, _| {},
    );
    assert_eq!(numbered.unwrap_err().kind(), LowerErrorKind::Target);
}

#[test]
fn base_fields_that_do_not_pass_on() {
    let edit = |_: &ImageRequest, config: &mut ImageConfig| {
        config.created = Some("2020-01-01T00:00:00Z".to_owned());
        config
            .extra
            .insert("moby.buildkit.cache.v0".to_owned(), "x".into());
        config
            .config
            .extra
            .insert("Hostname".to_owned(), "x".into());
        config.config.shell = Some(vec!["s".to_owned()]);
    };
    let config = build_with("FROM x", &options(&[]), edit).unwrap().config;
    assert_eq!(config.created, None);
    assert!(config.extra.is_empty() && config.config.extra.is_empty());
    assert_eq!(config.config.shell, Some(vec!["s".to_owned()]));
    assert!(config.history.is_empty());
}

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
fn commands_of_the_caller_stand_around_the_target_stage() {
    let text = "FROM x AS a\nRUN one\nFROM a\nARG V=1\nUSER me\nWORKDIR /w\nRUN two";
    let options = Options {
        before: vec!["pre $V".to_owned()],
        after: vec!["post".to_owned(), "last".to_owned()],
        ..options(&[])
    };
    let lowered = build_with(text, &options, |_, _| {}).unwrap();
    let steps: Vec<(&str, &str, &str)> = lowered
        .graph
        .vertices
        .iter()
        .filter_map(|vertex| match &vertex.op {
            Op::Exec(op) => Some((op.argv[2].as_str(), op.user.as_str(), op.cwd.as_str())),
            _ => None,
        })
        .collect();
    let expected = [
        ("one", "", "/"),
        ("pre $V", "", "/"),
        ("two", "me", "/w"),
        ("post", "", "/"),
        ("last", "", "/"),
    ];
    assert_eq!(steps, expected);
    let names: Vec<&str> = lowered
        .graph
        .vertices
        .iter()
        .map(|v| v.name.as_str())
        .collect();
    assert!(names.contains(&"[stage-1 1/5] RUN pre $V"), "{names:?}");
    assert!(names.contains(&"[stage-1 5/5] RUN last"), "{names:?}");
    let history: Vec<&str> = lowered
        .config
        .history
        .iter()
        .filter_map(|entry| entry.created_by.as_deref())
        .collect();
    assert_eq!(
        history.last(),
        Some(&"RUN |1 V=1 /bin/sh -c last # buildkit")
    );
}

#[test]
fn run_of_a_platform_that_cannot_be_executed() {
    let refused = Options {
        executable: Some(vec![Platform::linux("amd64")]),
        platform: Some(Platform::linux("arm64")),
        ..options(&[])
    };
    let error = |text: &str| build_with(text, &refused, |_, _| {}).unwrap_err();
    let found = error("FROM x\nCOPY a /\nRUN y");
    assert_eq!(found.kind(), LowerErrorKind::Platform);
    assert!(found.to_string().contains("linux/arm64"), "{found}");
    assert!(found.hint().unwrap().contains("binfmt_misc"));
    for text in [
        "FROM x\nCOPY a /",
        "FROM --platform=$BUILDPLATFORM x AS b\nRUN y\nFROM x\nCOPY --from=b a /",
    ] {
        assert!(build_with(text, &refused, |_, _| {}).is_ok(), "{text}");
    }
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

#[test]
fn what_needs_the_callers_word() {
    for (flag, name) in [
        ("--network=host", "network.host"),
        ("--security=insecure", "security.insecure"),
    ] {
        let error = error(&format!("FROM a\nRUN {flag} make\n"));
        assert_eq!(error.kind(), LowerErrorKind::Entitlement);
        assert_eq!(error.to_string(), format!("{name} is not allowed"));
        assert!(error.hint().unwrap().contains(&format!("--allow {name}")));
        assert!(error.span().is_some());
        // Nobody asks for what is not built.
        build(&format!("FROM a AS x\nRUN {flag} make\nFROM a\n"));
    }
    let text =
        "FROM a\nRUN one\nRUN --network=none two\nRUN --network=host --security=insecure three\n";
    let mut options = options(&[]);
    options.allow = Entitlements::ALL;
    options.network = NetworkMode::None;
    options.extra_hosts = vec![("10.0.0.1".to_owned(), "db".to_owned())];
    let lowered = build_with(text, &options, |_, _| {}).unwrap();
    let modes: Vec<_> = execs(&lowered)
        .iter()
        .map(|exec| (exec.network, exec.security))
        .collect();
    assert_eq!(
        modes,
        [
            (NetworkMode::None, SecurityMode::Sandbox),
            (NetworkMode::None, SecurityMode::Sandbox),
            (NetworkMode::Host, SecurityMode::Insecure),
        ]
    );
    assert!(
        execs(&lowered)
            .iter()
            .all(|exec| exec.extra_hosts == options.extra_hosts)
    );
}

#[test]
fn an_image_is_asked_for_once() {
    // Found by a fuzzer: the same name at several places with another one between them.
    let file = Dockerfile::parse(
        "FROM b\nRUN --mount=from=x true\nRUN --mount=from=y true\nRUN --mount=from=x true\n",
    )
    .unwrap();
    let Outcome::Needs(requests) = lower(&file, &Resolved::default(), &options(&[])).unwrap()
    else {
        panic!("images are needed");
    };
    assert_eq!(requests.len(), 3, "{requests:?}");
}
