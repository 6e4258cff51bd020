//! Arguments and expansion.

use super::*;

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
