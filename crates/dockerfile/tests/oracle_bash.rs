//! The pattern operators against bash, for patterns that mean the same in both (no brackets, no escapes).

use std::io::Write as _;
use std::process::{Command, Stdio};

use firebuild_dockerfile::expand_word;

fn expand(text: &str, value: &str) -> String {
    expand_word(text, '\\', |name| (name == "V").then_some(value))
        .map(|expanded| expanded.text)
        .unwrap_or_else(|error| format!("error: {error}"))
}

/// A small generator: the cases must be the same on each run.
struct Random(u64);

impl Random {
    fn next(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound
    }

    fn text(&mut self, letters: &[&str], longest: usize) -> String {
        (0..self.next(longest + 1))
            .map(|_| letters[self.next(letters.len())])
            .collect()
    }
}

#[test]
fn operators_agree() {
    let mut random = Random(1);
    let mut cases = Vec::new();
    for _ in 0..4000 {
        let value = random.text(&["a", "b", ".", "x", "é"], 8);
        let pattern = random.text(&["a", "b", ".", "*", "?", "é"], 4);
        let word = random.text(&["a", "b", "-"], 2);
        let text = match random.next(12) {
            0 => format!("${{V#{pattern}}}"),
            1 => format!("${{V##{pattern}}}"),
            2 => format!("${{V%{pattern}}}"),
            3 => format!("${{V%%{pattern}}}"),
            // bash does not replace with an empty pattern.
            4 if !pattern.is_empty() => format!("${{V/{pattern}/{word}}}"),
            // Where a star can match nothing the two differ: Go finds an empty match behind the last one or in an empty text.
            5 if !pattern.is_empty() && !pattern.contains('*') => {
                format!("${{V//{pattern}/{word}}}")
            }
            6 => format!("${{V:-{word}}}"),
            7 => format!("${{V-{word}}}"),
            8 => format!("${{V:+{word}}}"),
            9 => format!("${{V+{word}}}"),
            10 => format!("${{NOPE:-{word}}}$V"),
            _ => format!("${{NOPE+{word}}}${{NOPE-$V}}"),
        };
        cases.push((value, text));
    }
    let script: String = cases
        .iter()
        .map(|(value, text)| format!("V='{value}'; printf '%s\\n' \"{text}\"\n"))
        .collect();
    let child = Command::new("bash")
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|need| need == "tool:bash"),
            "bash is required"
        );
        eprintln!("SKIP operators_agree: no bash on this machine");
        return;
    };
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), cases.len());
    for ((value, text), bash) in cases.iter().zip(lines) {
        // In bash the text stands in double quotes, so that nothing is split; there they change nothing else.
        assert_eq!(expand(text, value), bash, "V={value:?} {text}");
    }
}
