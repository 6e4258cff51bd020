use super::{CheckOptions, Rule, lint};
use crate::stage::Dockerfile;

fn findings(source: &str) -> Vec<String> {
    let file = Dockerfile::parse(source).unwrap();
    let options = file.directives.check.as_ref().map_or_else(
        || Ok(CheckOptions::default()),
        |word| CheckOptions::parse(&word.text),
    );
    lint(&file, &options.unwrap(), |_| true)
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
            vec![" NoEmptyContinuation: Empty continuation line"],
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
        (
            "FROM a\nCMD [\"x\"]\nCMD [\"y\"]\nCMD [\"z\"]",
            vec![
                "CMD [\"x\"] MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used",
                "CMD [\"y\"] MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used",
            ],
        ),
        ("FROM a\nCMD [\"x\"]\nFROM a\nCMD [\"y\"]", vec![]),
        (
            "FROM a\nENV k v",
            vec![
                "ENV k v LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            ],
        ),
        (
            "FROM --platform=$TARGETPLATFORM a",
            vec![
                "--platform=$TARGETPLATFORM RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ],
        ),
        (
            "FROM --platform=linux/amd64 a",
            vec![
                "--platform=linux/amd64 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"",
            ],
        ),
        ("FROM --platform=linux/x86_64 a AS x-amd64", vec![]),
        (
            "FROM a\nENV DB_PASSWORD=x PASSWORD_FILE=y KEYS=z",
            vec![
                "DB_PASSWORD SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"DB_PASSWORD\")",
            ],
        ),
        (
            "ARG token\nFROM a",
            vec![
                "token SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"token\")",
            ],
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
fn stages_not_in_use() {
    let file = Dockerfile::parse("FROM a\nENV k v\nMAINTAINER x").unwrap();
    let rules: Vec<_> = lint(&file, &CheckOptions::default(), |_| false)
        .iter()
        .map(|warning| warning.rule)
        .collect();
    assert_eq!(rules, [Rule::MaintainerDeprecated]);
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
