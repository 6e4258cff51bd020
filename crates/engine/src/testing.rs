//! What the tests of this crate share: skipping loudly, running host tools.

use std::process::{Command, Stdio};

/// Says that a test does not run, and why. `FIREBUILD_TEST_REQUIRE` (comma-separated needs) makes it
/// a failure.
pub(crate) fn skip(test: &str, need: &str, reason: &str) {
    let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name.trim() == need),
        "{test} was skipped, but FIREBUILD_TEST_REQUIRE names {need}: {reason}"
    );
    eprintln!("SKIP {test}: {reason}");
}

/// Whether a program is on the PATH; else the test is skipped.
pub(crate) fn have_tool(test: &str, tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    if !found {
        skip(
            test,
            &format!("tool:{tool}"),
            &format!("{tool} is not installed"),
        );
    }
    found
}

/// Sends `input` through a program and gives back what it wrote.
pub(crate) fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} failed");
    output.stdout
}
