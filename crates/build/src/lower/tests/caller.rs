//! What the caller adds and allows.

use super::*;

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
