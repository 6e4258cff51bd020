//! `run --print`: what would be started, and nothing is.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

use firebuild_e2e::{Home, missing, skip};
use serde_json::Value;

#[test]
fn plans_are_printed_and_nothing_is_started() {
    let test = "plans_are_printed_and_nothing_is_started";
    let (None, Some(home)) = (missing(&["qemu-system-x86_64"]), Home::with_kernel()) else {
        return skip(test, "vm", "no QEMU or no kernel package");
    };
    let text = "FROM scratch\nCMD [\"/x\"]\n";
    let _ = home
        .fb(["build", "-q", "-t", "t/x:1", "--dockerfile-inline", text])
        .ok();
    let print = |what: &str| -> Value {
        let flags = [
            "--mem",
            "1G",
            "--cpu",
            "2",
            "-e",
            "TOKEN=hunter2",
            "-p",
            "8080:80",
        ];
        let mut args = vec!["run", what];
        args.extend(flags);
        args.push("t/x:1");
        let done = home.fb(args).ok();
        assert!(!done.out().contains("hunter2"), "{}", done.out());
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let spec = print("--print=spec").to_string();
    assert!(spec.contains("1024") && spec.contains("8080"), "{spec}");
    let plan = print("--print=plan").to_string();
    for word in [
        "qemu-system-x86_64",
        "-nodefaults",
        "-no-user-config",
        "-sandbox",
        "1024",
    ] {
        assert!(plan.contains(word), "{word}: {plan}");
    }
    assert_eq!(home.fb(["ls", "-a", "-q"]).ok().out(), "");
    for dir in ["run", "instances"] {
        let left = fs_err::read_dir(home.path().join("home").join(dir));
        let left: Vec<_> = left
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        assert!(left.iter().all(|path| path.ends_with(".lock")), "{left:?}");
    }
}
