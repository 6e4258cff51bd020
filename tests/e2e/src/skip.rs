//! Skips that cannot be overlooked.

use std::path::Path;

/// Says that a test cannot run here and why. A skip of something in `FIREBUILD_TEST_REQUIRE` is a failure.
///
/// # Panics
/// When the need is required.
#[expect(
    clippy::print_stderr,
    reason = "a skip must be seen; CI counts these lines"
)]
pub fn skip(test: &str, need: &str, reason: &str) {
    let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|word| word == need),
        "{test} needs {need}: {reason}"
    );
    eprintln!("SKIP {test}: {reason}");
}

/// The first of these programs that is not on the path.
#[must_use]
pub fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    programs.iter().copied().find(|program| {
        !std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|dir| Path::new(&dir).join(program).is_file())
    })
}
