//! What tests need of the machine: a test that cannot run says so, and fails when it was required to run.

/// Whether the process is root. Else prints a skip line, or panics when `FIREBUILD_TEST_REQUIRE` names `root`.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|need| need == "root"),
            "{test} needs root and is required to run"
        );
        eprintln!("SKIP {test}: needs root");
    }
    root
}
