//! Stages, and the images they are made from.

use super::*;

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
