//! Every input that the fuzzer kept, and every one that once found something.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::io::Read;
use std::path::Path;

use firebuild_fuzz_targets::{TARGETS, Target};

fn replay(name: &str, target: Target) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let file = fs_err::File::open(corpus.join(format!("{name}.tar.gz"))).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut count = 0;
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let input = entry.path().unwrap().into_owned();
        // What it found is printed already.
        let held = std::panic::catch_unwind(|| target(&bytes));
        assert!(held.is_ok(), "{name}: found by {}", input.display());
        count += 1;
    }
    assert!(count > 20, "{name}: only {count} inputs");
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let found = TARGETS.iter().find(|(name, _)| *name == stringify!($name));
                let (name, target) = *found.unwrap();
                replay(name, target);
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($name)),*]);
        }
    };
}

replays!(control dockerfile expand frame graph ignore sessions tar);
