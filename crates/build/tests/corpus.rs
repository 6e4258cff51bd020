//! Golden tests of lowering: `tests/corpus/NNN-topic`.
//!
//! A case is a directory with a `Dockerfile` and what is expected of it: `graph.txt` and `config.json`, or `error.txt`;
//! `warnings.txt` when the checks find something. Further input: `base.json` (image configurations by reference),
//! `options.json` (`args`, `target`, `labels`, `contexts`, `platform`) and `context/.dockerignore`.
//!
//! With `FIREBUILD_BLESS=1` the expected files are written instead of compared. A changed `graph.txt` is a change of
//! cache keys and needs a line in the changelog.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use firebuild_build::dump::graph_to_text;
use firebuild_build::lower::{
    Entitlements, LowerError, Lowered, NamedContext, Options, Outcome, lower,
};
use firebuild_build::resolve::{ImageRequest, Resolved, ResolvedImage};
use firebuild_dockerfile::{Dockerfile, IgnorePatterns, LineIndex, Span};
use firebuild_oci::{Digest, ImageConfig, Platform};

/// The whole chain of an error, the way it is printed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn place(source: &str, span: Option<Span>) -> String {
    let Some(span) = span else {
        return "-".to_owned();
    };
    let at = LineIndex::new(source).position(span.start);
    format!("{}:{}", at.line, at.column)
}

fn read_options(case: &Path) -> Options {
    // The machine that runs the tests must not show.
    let mut options = Options {
        build_platform: Platform::linux("amd64"),
        allow: Entitlements::ALL,
        ..Options::default()
    };
    if let Ok(text) = fs_err::read_to_string(case.join("options.json")) {
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let map = |name: &str| -> BTreeMap<String, String> {
            json.get(name)
                .map(|value| serde_json::from_value(value.clone()).unwrap())
                .unwrap_or_default()
        };
        options.build_args = map("args");
        options.labels = map("labels");
        options.target = json
            .get("target")
            .map(|target| target.as_str().unwrap().to_owned());
        options.platform = json
            .get("platform")
            .map(|platform| platform.as_str().unwrap().parse().unwrap());
        for (name, value) in map("contexts") {
            let context = match value.strip_prefix("docker-image://") {
                Some(reference) => NamedContext::Image(reference.to_owned()),
                None => NamedContext::Files,
            };
            options.contexts.insert(name, context);
        }
    }
    if let Ok(file) = fs_err::read(case.join("context/.dockerignore")) {
        options.ignore = Some(IgnorePatterns::parse(&file).unwrap());
    }
    options
}

fn read_images(case: &Path) -> BTreeMap<String, ImageConfig> {
    let Ok(text) = fs_err::read_to_string(case.join("base.json")) else {
        return BTreeMap::new();
    };
    let json: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    json.into_iter()
        .map(|(name, config)| {
            (
                name,
                ImageConfig::parse(config.to_string().as_bytes()).unwrap(),
            )
        })
        .collect()
}

/// Lowers, and looks images up in `base.json` until none is missing.
fn run(
    file: &Dockerfile,
    options: &Options,
    images: &BTreeMap<String, ImageConfig>,
) -> Result<Lowered, LowerError> {
    let mut resolved = Resolved::default();
    loop {
        match lower(file, &resolved, options)? {
            Outcome::Lowered(lowered) => return Ok(*lowered),
            Outcome::NeedsTime(request) => panic!("{request:?}"),
            Outcome::Needs(requests) => {
                assert!(!requests.is_empty());
                for (request, _) in requests {
                    let image = image(&request, images);
                    assert!(
                        resolved.images.insert(request, image).is_none(),
                        "asked twice"
                    );
                }
            }
        }
    }
}

fn image(request: &ImageRequest, images: &BTreeMap<String, ImageConfig>) -> ResolvedImage {
    let config = images
        .get(&request.reference)
        .unwrap_or_else(|| panic!("{} is wanted and not in base.json", request.reference))
        .clone();
    let manifest = Digest::of(config.to_bytes());
    ResolvedImage {
        reference: request
            .reference
            .parse::<firebuild_oci::Reference>()
            .unwrap()
            .with_digest(manifest),
        manifest,
        layers: config.rootfs.diff_ids.clone(),
        config,
    }
}

/// Compares with the expected file, or writes it.
fn expect(path: &Path, found: &str, failures: &mut Vec<String>) {
    let expected = fs_err::read_to_string(path).unwrap_or_default();
    if expected == found {
        return;
    }
    if std::env::var_os("FIREBUILD_BLESS").is_some() {
        if found.is_empty() {
            fs_err::remove_file(path).unwrap();
        } else {
            fs_err::write(path, found).unwrap();
        }
        return;
    }
    failures.push(format!(
        "{}:\n--- expected\n{expected}\n--- found\n{found}",
        path.display()
    ));
}

fn check(case: &Path, failures: &mut Vec<String>) {
    let bytes = fs_err::read(case.join("Dockerfile")).unwrap();
    let (source, parsed) = Dockerfile::parse_bytes(&bytes);
    let file = match parsed {
        Ok(file) => file,
        Err(errors) => {
            let lines = errors
                .all()
                .iter()
                .map(|error| format!("{} {error}\n", place(&source, Some(error.span()))));
            return expect(
                &case.join("error.txt"),
                &lines.collect::<String>(),
                failures,
            );
        }
    };
    let options = read_options(case);
    let images = read_images(case);
    let mut graph = String::new();
    let mut config = String::new();
    let mut warnings = String::new();
    let mut error = String::new();
    match run(&file, &options, &images) {
        Ok(lowered) => {
            graph = graph_to_text(&lowered.graph);
            config = serde_json::to_string_pretty(&lowered.config).unwrap() + "\n";
            for warning in &lowered.warnings {
                warnings += &format!("{} {warning}\n", place(&source, Some(warning.span)));
            }
            for name in &lowered.unused_args {
                warnings += &format!("- unused build argument {name}\n");
            }
            check_graph(&lowered, &source);
        }
        Err(wrong) => {
            let stage = wrong
                .stage()
                .map(|stage| format!(" [{stage}]"))
                .unwrap_or_default();
            let hint = wrong
                .hint()
                .map(|hint| format!("hint: {hint}\n"))
                .unwrap_or_default();
            error = format!(
                "{}{stage} {}\n{hint}",
                place(&source, wrong.span()),
                chain(&wrong)
            );
        }
    }
    expect(&case.join("graph.txt"), &graph, failures);
    expect(&case.join("config.json"), &config, failures);
    expect(&case.join("warnings.txt"), &warnings, failures);
    expect(&case.join("error.txt"), &error, failures);
}

/// What holds for every graph.
fn check_graph(lowered: &Lowered, source: &str) {
    for (number, vertex) in lowered.graph.vertices.iter().enumerate() {
        for input in &vertex.inputs {
            assert!(
                (input.0 as usize) < number,
                "an input stands behind its user"
            );
        }
        if let Some(span) = vertex.span {
            assert!(source.get(span.range()).is_some());
        }
    }
    assert_eq!(
        lowered.graph.needed().len(),
        lowered.graph.vertices.len(),
        "a vertex is not needed"
    );
}

#[test]
fn corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    let cases: BTreeSet<PathBuf> = fs_err::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Dockerfile").exists())
        .collect();
    assert!(
        cases.len() > 20,
        "only {} cases in {}",
        cases.len(),
        root.display()
    );
    let mut failures = Vec::new();
    for case in &cases {
        check(case, &mut failures);
    }
    assert!(
        failures.is_empty(),
        "{} differences\n{}",
        failures.len(),
        failures.join("\n")
    );
}
