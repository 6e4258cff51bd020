//! What tests of networks share.

use crate::namespace::{Namespaces, unshare};

/// Runs a test in a network namespace of its own thread, or says why it cannot.
pub(crate) fn in_own_network(name: &str, test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| match unshare(Namespaces::NET) {
            Ok(()) => test(),
            Err(error) => {
                let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
                assert!(
                    !required.split(',').any(|need| need == "root"),
                    "root is required: {error}"
                );
                eprintln!("SKIP {name}: no network namespace: {error}");
            }
        });
    });
}
