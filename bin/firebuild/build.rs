//! Builds the guest init, which travels inside of this program.
//!
//! `vminit` is a static program with a profile and flags of its own, so a nested cargo builds it into a directory of its
//! own below `OUT_DIR`; there it stays, and a second build finds nothing to do. The nested build is offline: what it needs
//! is a part of what the outer build has fetched.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

/// What the init is made of, from the root of the workspace.
const SOURCES: [&str; 8] = [
    "bin/vminit",
    "crates/accounts",
    "crates/guest-proto",
    "crates/rootfs",
    "crates/sandbox",
    "crates/sys",
    "Cargo.toml",
    "Cargo.lock",
];

/// Settings of the outer build that must not reach the nested one: flags (coverage, sanitizers, `-D warnings` of a lint
/// run), another target directory, a lint driver in place of the compiler, what cargo tells this build script.
const OUTER: [&str; 18] = [
    "CARGO_BUILD_",
    "CARGO_CFG_",
    "CARGO_CRATE_",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_FEATURE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_PROFILE_",
    "CARGO_TARGET_DIR",
    "DEP_",
    "HOST",
    "LLVM_PROFILE_FILE",
    "OUT_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "TARGET",
];

fn main() {
    let root = PathBuf::from(setting("CARGO_MANIFEST_DIR")).join("../..");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let target = setting("TARGET");
    let target = target.to_str().expect("a target's name is plain text");
    let directory = PathBuf::from(setting("OUT_DIR")).join("vminit");

    let mut cargo = Command::new(setting("CARGO"));
    for (name, _) in env::vars_os() {
        if is_of_outer_build(&name) {
            cargo.env_remove(name);
        }
    }
    cargo
        .args([
            "build",
            "--package",
            "vminit",
            "--bin",
            "vminit",
            "--profile",
            "vminit",
        ])
        // Named even where it is the host's own: the flags are then for the program, not for macros and build scripts.
        .args(["--locked", "--offline", "--target", target])
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&directory)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    let status = match cargo.status() {
        Ok(status) => status,
        Err(error) => panic!("cannot start cargo for the guest init: {error}"),
    };
    assert!(
        status.success(),
        "the guest init (package vminit) does not build for {target}: {status}"
    );

    let program = directory.join(target).join("vminit/vminit");
    println!("cargo::rustc-env=VMINIT_PATH={}", program.display());
}

fn setting(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo does not set {name}"))
}

fn is_of_outer_build(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| {
        OUTER.iter().any(|outer| {
            if outer.ends_with('_') {
                name.starts_with(outer)
            } else {
                name == *outer
            }
        })
    })
}
