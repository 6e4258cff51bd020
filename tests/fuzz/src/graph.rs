//! Dockerfiles that make sense, from the fuzzer's choices, in several spellings.

use std::fmt::Write as _;

use firebuild_build::dump::graph_to_text;
use firebuild_build::lower::{Lowered, NamedContext, Options};
use firebuild_dockerfile::Dockerfile;

use crate::choices::Choices;
use crate::images::{check_graph, lowered, options};

/// Values of one length that nothing else has, so that one can be put in place of the other.
const VALUES: [&str; 2] = ["qqZ0Zqq", "qqZ1Zqq"];

/// What keys are made of depends on what it shall, and on nothing else: not on comments and blanks, on stages that nobody
/// needs, on arguments that nobody declares. Another value of an argument is another value in the graph and no other
/// change.
pub fn graph(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let sketch = Sketch::new(&mut choices);
    let mut options = options();
    options.target = Some(sketch.target.clone());
    options
        .contexts
        .insert("files".to_owned(), NamedContext::Files);
    options
        .build_args
        .insert("A0".to_owned(), VALUES[0].to_owned());

    let plain = sketch.text(None);
    let first = facts(&plain, &options);
    // One question an input: each costs as much as the rest.
    match choices.below(5) {
        0 => assert_eq!(first, facts(&plain, &options), "lowering is a function"),
        1 => {
            let noisy = sketch.text(Some(&mut choices));
            assert_eq!(
                first,
                facts(&noisy, &options),
                "spelling:\n{plain}\n{noisy}"
            );
        }
        2 => {
            let more = format!("{plain}FROM scratch AS unneeded\nCOPY --from=files x /\nRUN x\n");
            assert_eq!(first, facts(&more, &options), "a stage that is not needed");
        }
        3 => {
            options
                .build_args
                .insert("UNDECLARED".to_owned(), "1".to_owned());
            assert_eq!(first, facts(&plain, &options), "an argument of nobody");
        }
        _ => {
            options
                .build_args
                .insert("A0".to_owned(), VALUES[1].to_owned());
            let replaced = first.map(|text| text.replace(VALUES[0], VALUES[1]));
            assert_eq!(replaced, facts(&plain, &options), "another value:\n{plain}");
        }
    }
}

/// The graph without what is for people only; `None` when there is none.
fn facts(text: &str, options: &Options) -> Option<String> {
    let file = Dockerfile::parse(text).ok()?;
    let lowered: Lowered = lowered(&file, options)?.ok()?;
    check_graph(&lowered, text);
    let graph = graph_to_text(&lowered.graph);
    Some(
        graph
            .lines()
            .filter(|line| !line.starts_with('#'))
            .fold(String::new(), |all, line| all + line + "\n"),
    )
}

/// Stages of instructions, each a keyword and the rest of its line.
struct Sketch {
    global: Vec<(&'static str, String)>,
    stages: Vec<(String, Vec<(&'static str, String)>)>,
    target: String,
}

impl Sketch {
    fn new(choices: &mut Choices<'_>) -> Self {
        let global = (0..choices.below(3))
            .map(|_| ("ARG", argument(choices)))
            .collect();
        let count = 1 + choices.below(4);
        let mut stages = Vec::new();
        for number in 0..count {
            let base = match choices.below(6) {
                0 => "scratch".to_owned(),
                1 => "debian:bookworm".to_owned(),
                2 => "example.com/trigger:1".to_owned(),
                3 => "${A0:-scratch}".to_owned(),
                _ if number > 0 => format!("s{}", choices.below(number)),
                _ => "alpine".to_owned(),
            };
            let lines = (0..choices.below(7))
                .map(|_| instruction(choices, number))
                .collect();
            stages.push((format!("{base} AS s{number}"), lines));
        }
        let target = format!("s{}", count - 1 - choices.below(count));
        Self {
            global,
            stages,
            target,
        }
    }

    /// The Dockerfile, with noise when there are choices for it.
    fn text(&self, mut noise: Option<&mut Choices<'_>>) -> String {
        let mut text = String::new();
        for (keyword, rest) in &self.global {
            line(&mut text, keyword, rest, noise.as_deref_mut());
        }
        for (from, lines) in &self.stages {
            line(&mut text, "FROM", from, noise.as_deref_mut());
            for (keyword, rest) in lines {
                line(&mut text, keyword, rest, noise.as_deref_mut());
            }
        }
        text
    }
}

fn line(text: &mut String, keyword: &str, rest: &str, noise: Option<&mut Choices<'_>>) {
    let Some(noise) = noise else {
        let _ = writeln!(text, "{keyword} {rest}");
        return;
    };
    let keyword = match noise.below(3) {
        0 => keyword.to_owned(),
        1 => keyword.to_lowercase(),
        _ => format!("  {keyword}"),
    };
    let between = *noise.of(&["", "\n", "# a comment\n", "   # another\n", "\n\n#\n"]);
    let gap = *noise.of(&[" ", "  ", "\t", " \\\n ", " \\\n# inside\n", " \\ \n\n"]);
    let _ = writeln!(text, "{between}{keyword}{gap}{rest}");
}

fn argument(choices: &mut Choices<'_>) -> String {
    let name = choices.below(3);
    match choices.below(3) {
        0 => format!("A{name}"),
        1 => format!("A{name}=value"),
        _ => format!("A{name}=$A0 A2"),
    }
}

fn instruction(choices: &mut Choices<'_>, stage: u8) -> (&'static str, String) {
    let word = (*choices.of(&[
        "one",
        "$A0",
        "${A1:-two}",
        "${A2:+$A0}",
        "/a/b",
        "$E0-x",
        "\"q $A0\"",
    ]))
    .to_owned();
    match choices.below(14) {
        0 => ("ARG", argument(choices)),
        1 => ("ENV", format!("E{}={word}", choices.below(2))),
        2 => ("RUN", format!("echo {word}")),
        3 => ("RUN", format!("[\"echo\", \"{}\"]", choices.below(9))),
        4 => {
            let flag = *choices.of(&[
                "--network=none",
                "--security=sandbox",
                "--mount=type=tmpfs,target=/t",
                "--mount=type=cache,target=/c,id=$A0",
                "--mount=type=bind,target=/f,from=files",
                "--mount=type=secret,id=s",
            ]);
            ("RUN", format!("{flag} make {word}"))
        }
        5 => ("COPY", format!("{word} /dst/")),
        6 => {
            let from = if stage > 0 && choices.below(2) == 0 {
                format!("s{}", choices.below(stage))
            } else {
                (*choices.of(&["files", "busybox"])).to_owned()
            };
            ("COPY", format!("--from={from} {word} /dst/"))
        }
        7 => {
            let flag = *choices.of(&[
                "--link",
                "--chown=1:2",
                "--chmod=0755",
                "--exclude=*.o",
                "--parents",
            ]);
            ("COPY", format!("{flag} a {word} /dst/"))
        }
        8 => ("ADD", format!("{word} /add/")),
        9 => ("WORKDIR", word),
        10 => ("USER", word),
        11 => ("LABEL", format!("l={word}")),
        12 => ("CMD", word),
        _ => ("ONBUILD", format!("RUN {word}")),
    }
}
