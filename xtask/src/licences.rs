//! Every crate of the lock file has a licence that goes with ours, and comes from the registry.
//!
//! `deny.toml` says the same to `cargo deny`, which knows advisories besides; this check needs nothing but cargo. A test
//! keeps the two lists equal.

use std::path::Path;

use crate::Fallible;
use crate::metadata::{Package, packages};
use crate::spdx::allows;

/// Licences of what may be linked into the programs.
const ALLOWED: [&str; 11] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates with another licence, or another source.
pub(crate) fn problems(root: &Path) -> Fallible<Vec<String>> {
    Ok(check(&packages(root)?))
}

fn check(packages: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let (name, version, licence) = (&package.name, &package.version, &package.licence);
        match allows(licence, &ALLOWED) {
            Some(true) => {}
            Some(false) => problems.push(format!(
                "{name} {version}: the licence {licence} is not on the list"
            )),
            None => problems.push(format!(
                "{name} {version}: no licence that can be read: {licence:?}"
            )),
        }
        if package.member != package.source.is_empty()
            || !package.member && package.source != REGISTRY
        {
            problems.push(format!(
                "{name} {version}: comes from {:?}, not from the registry",
                package.source
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_is_in_order() {
        assert_eq!(
            problems(&crate::root()).expect("cargo metadata"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn cargo_deny_has_the_same_list() {
        let text = fs_err::read_to_string(crate::root().join("deny.toml")).expect("deny.toml");
        let list = text
            .split_once("allow = [")
            .and_then(|(_, rest)| rest.split_once(']'))
            .map(|(list, _)| list)
            .expect("a list of licences");
        let listed: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(listed, ALLOWED);
    }

    #[test]
    fn other_licences_and_sources_are_found() {
        let package = |licence: &str, source: &str| Package {
            name: "x".into(),
            version: "1.0.0".into(),
            licence: licence.into(),
            member: false,
            source: source.into(),
            dependencies: Vec::new(),
        };
        assert!(check(&[package("MIT", REGISTRY)]).is_empty());
        assert_eq!(check(&[package("GPL-3.0", REGISTRY)]).len(), 1);
        assert_eq!(check(&[package("", REGISTRY)]).len(), 1);
        assert_eq!(
            check(&[package("MIT", "git+https://example.org/x")]).len(),
            1
        );
        assert_eq!(check(&[package("MIT", "")]).len(), 1);
    }
}
