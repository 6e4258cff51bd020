//! Dependencies between our crates only point down the levels that `docs/architecture.md` draws, and tokio is named by
//! the crate that may know it, and by no other.

use std::path::Path;

use crate::Fallible;
use crate::metadata::{Package, packages};

/// The level of each crate. A crate depends on lower ones only; those of one level never see each other.
const LEVELS: [(&str, u8); 19] = [
    ("firebuild-accounts", 0),
    ("firebuild-dockerfile", 0),
    ("firebuild-guest-proto", 0),
    ("firebuild-netlab", 0),
    ("firebuild-oci", 0),
    ("firebuild-rootfs", 0),
    ("firebuild-sys", 0),
    ("firebuild-copy", 1),
    ("firebuild-sandbox", 1),
    ("firebuild-store", 1),
    ("firebuild-usernet", 1),
    ("firebuild-build", 2),
    ("firebuild-vm", 2),
    ("firebuild-engine", 3),
    ("firebuild", 4),
    ("vminit", 4),
    // Tools: nothing depends on them.
    ("firebuild-e2e", 5),
    ("firebuild-fuzz-targets", 5),
    ("xtask", 5),
];

/// What a crate may not see although it lies lower: (crate, never, why).
const NEVER: [(&str, &str, &str); 5] = [
    (
        "firebuild-vm",
        "firebuild-store",
        "a machine knows no images",
    ),
    ("firebuild-vm", "firebuild-oci", "a machine knows no images"),
    (
        "firebuild-vm",
        "firebuild-rootfs",
        "a machine knows no images",
    ),
    (
        "firebuild-store",
        "firebuild-dockerfile",
        "the store knows no builds",
    ),
    (
        "vminit",
        "firebuild-engine",
        "the guest knows nothing of the host",
    ),
];

/// The asynchronous runtime, and the crate whose private business it is.
const RUNTIME: (&str, &str) = ("tokio", "firebuild-oci");

/// Everything that points the wrong way.
pub(crate) fn problems(root: &Path) -> Fallible<Vec<String>> {
    Ok(check(&packages(root)?))
}

fn check(packages: &[Package]) -> Vec<String> {
    let level = |name: &str| {
        LEVELS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, level)| *level)
    };
    let mut problems = Vec::new();
    for package in packages.iter().filter(|package| package.member) {
        let name = package.name.as_str();
        let Some(own) = level(name) else {
            problems.push(format!(
                "{name} has no level: add it to xtask/src/check_deps.rs and docs/architecture.md"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            if level(dependency).is_some_and(|theirs| theirs >= own) {
                problems.push(format!(
                    "{name} depends on {dependency}, which is not below it"
                ));
            }
            if let Some((_, _, why)) = NEVER
                .iter()
                .find(|(from, to, _)| *from == name && to == dependency)
            {
                problems.push(format!("{name} depends on {dependency}: {why}"));
            }
            if dependency == RUNTIME.0 && name != RUNTIME.1 {
                problems.push(format!("{name} names {dependency}; only {} may", RUNTIME.1));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.into(),
            version: "0.0.0".into(),
            licence: "Apache-2.0".into(),
            member: true,
            source: String::new(),
            dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn the_workspace_points_down() {
        assert_eq!(
            problems(&crate::root()).expect("cargo metadata"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_points_up_or_sideways_is_found() {
        let found = check(&[
            package("firebuild-rootfs", &["firebuild-oci", "crc32c"]),
            package("firebuild-build", &["firebuild-vm", "tokio"]),
            package("firebuild-vm", &["firebuild-sys", "firebuild-store"]),
            package("firebuild-oci", &["tokio"]),
            package("firebuild-utils", &[]),
        ]);
        assert_eq!(
            found,
            [
                "firebuild-rootfs depends on firebuild-oci, which is not below it",
                "firebuild-build depends on firebuild-vm, which is not below it",
                "firebuild-build names tokio; only firebuild-oci may",
                "firebuild-vm depends on firebuild-store: a machine knows no images",
                "firebuild-utils has no level: add it to xtask/src/check_deps.rs and docs/architecture.md",
            ]
        );
    }
}
