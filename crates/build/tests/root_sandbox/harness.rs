//! What of libtest's command line cargo and nextest use.

use std::process::ExitCode;

use crate::cases::Case;
use crate::user::Who;

pub(crate) const ALL: [Who; 3] = [Who::Root, Who::Ranges, Who::Single];

/// A skip, which is a failure where `FIREBUILD_TEST_REQUIRE` names the need.
pub(crate) struct Skip {
    pub(crate) need: &'static str,
    pub(crate) reason: String,
}

fn tests() -> Vec<(String, &'static Case, Who)> {
    let mut tests = Vec::new();
    for case in crate::all_cases() {
        for who in ALL {
            if case.who.contains(&who) {
                tests.push((format!("{}::{}", who.name(), case.name), case, who));
            }
        }
    }
    tests
}

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        if !has("--ignored") {
            for (name, _, _) in tests() {
                println!("{name}: test");
            }
        }
        return ExitCode::SUCCESS;
    }
    if has("--ignored") {
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| {
                if has("--exact") {
                    name == *filter
                } else {
                    name.contains(filter.as_str())
                }
            })
    };
    let mut failed = 0;
    for (name, case, who) in tests().into_iter().filter(|(name, _, _)| wanted(name)) {
        // A panic names its place; the next test starts afresh.
        let result = std::panic::catch_unwind(|| who.run(case));
        match result {
            Ok(Ok(())) => println!("test {name} ... ok"),
            Ok(Err(skip)) if required(skip.need) => {
                println!(
                    "test {name} ... FAILED ({} is required: {})",
                    skip.need, skip.reason
                );
                failed += 1;
            }
            Ok(Err(skip)) => eprintln!("SKIP {name}: {}", skip.reason),
            Err(_) => {
                println!("test {name} ... FAILED");
                failed += 1;
            }
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(101)
    }
}

fn required(need: &str) -> bool {
    std::env::var("FIREBUILD_TEST_REQUIRE")
        .unwrap_or_default()
        .split(',')
        .any(|name| name == need)
}
