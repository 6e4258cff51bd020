use super::{CheckOptions, Rule, lint, looks_secret};
use crate::stage::Dockerfile;

fn findings(source: &str) -> Vec<String> {
    let file = Dockerfile::parse(source).unwrap();
    let options = file.directives.check.as_ref().map_or_else(
        || Ok(CheckOptions::default()),
        |word| CheckOptions::parse(&word.text),
    );
    lint(&file, &options.unwrap())
        .iter()
        .map(|warning| format!("{} {warning}", &source[warning.span.range()]))
        .collect()
}

#[test]
fn each_rule() {
    for (source, expected) in [
        (
            "FROM a AS Build",
            vec!["Build StageNameCasing: Stage name 'Build' should be lowercase"],
        ),
        (
            "FROM a as b",
            vec!["as FromAsCasing: 'as' and 'FROM' keywords' casing do not match"],
        ),
        (
            "from a AS b",
            vec!["AS FromAsCasing: 'AS' and 'from' keywords' casing do not match"],
        ),
        (
            "FROM a\nRUN x \\\n\n y",
            vec![" y NoEmptyContinuation: Empty continuation line"],
        ),
        (
            "FROM a\nrun x",
            vec![
                "run ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase)",
            ],
        ),
        (
            "from a\nrun x\nRUN y",
            vec![
                "RUN ConsistentInstructionCasing: Command 'RUN' should match the case of the command majority (lowercase)",
            ],
        ),
        (
            "from a\nRun x",
            vec![
                "Run ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (lowercase)",
            ],
        ),
        (
            "FROM a AS b\nFROM a AS b",
            vec!["b DuplicateStageName: Duplicate stage name \"b\", stage names should be unique"],
        ),
        (
            "FROM a AS scratch",
            vec![
                "scratch ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\"",
            ],
        ),
        (
            "FROM a\nMAINTAINER me",
            vec![
                "MAINTAINER MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
            ],
        ),
        (
            "ARG VERSION=1\nFROM a:$VERSON",
            vec![
                "a:$VERSON UndefinedArgInFrom: FROM argument 'VERSON' is not declared (did you mean VERSION?)",
            ],
        ),
        (
            "ARG A=1\nFROM --platform=$BUILDPLATFORM a:$A-$TARGETARCH",
            vec![],
        ),
        ("# check=skip=all\nFROM a as b", vec![]),
        ("# check=skip=FromAsCasing,X\nFROM a as b", vec![]),
        (
            "FROM x\n# check=skip=MaintainerDeprecated\nMAINTAINER a",
            vec![],
        ),
        ("# note\nFROM a AS b", vec![]),
        (
            "# check=experimental=all\n# note\nFROM a AS b",
            vec![
                "FROM a AS b InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>`",
            ],
        ),
        (
            "# check=experimental=InvalidDefinitionDescription\n# b is it\nFROM a AS b",
            vec![],
        ),
    ] {
        assert_eq!(findings(source), expected, "{source}");
    }
}

#[test]
fn options() {
    for text in ["nothing", "skipp=all", "error=maybe", "skip=a;x=b"] {
        assert!(CheckOptions::parse(text).is_err(), "{text}");
    }
    assert_eq!(
        CheckOptions::parse("skipp=all").unwrap_err().to_string(),
        "invalid check option \"skipp\""
    );
    let options =
        CheckOptions::parse(" skip = UndefinedVar , X ; error=true; experimental=all").unwrap();
    assert!(options.is_error());
    assert!(!options.wants(Rule::UndefinedVar, &[]));
    assert!(options.wants(Rule::InvalidDefinitionDescription, &[]));
    assert!(
        CheckOptions::parse("")
            .unwrap()
            .wants(Rule::UndefinedVar, &[])
    );
    assert!(!CheckOptions::default().wants(Rule::InvalidDefinitionDescription, &[]));
    assert_eq!(Rule::ALL.len(), 22);
}

#[test]
fn pages_and_names() {
    for (rule, page) in [
        (Rule::JSONArgsRecommended, "json-args-recommended"),
        (Rule::FromAsCasing, "from-as-casing"),
        (Rule::UndefinedArgInFrom, "undefined-arg-in-from"),
    ] {
        let url = rule.url().unwrap();
        assert!(url.ends_with(&format!("/{page}/")), "{url}");
    }
    for (name, secret) in [
        ("DB_PASSWORD", true),
        ("token", true),
        ("PASSWORD_FILE", false),
        ("PUBLIC_KEY", false),
        ("KEYS", false),
        ("KEYBOARD", false),
    ] {
        assert_eq!(looks_secret(name), secret, "{name}");
    }
}
