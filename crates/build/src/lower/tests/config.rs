//! What instructions make of the configuration of an image.

use super::*;

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
