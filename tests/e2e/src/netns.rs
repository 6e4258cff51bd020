//! What runs in the network namespaces of a test ([`firebuild_netlab`]): an image that asks and answers, and who and what is
//! there.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "helpers of tests: what fails here fails the test"
)]

use std::process::Command;

use firebuild_netlab::{is_inside, namespace_of, run_in_namespace};

use crate::fixtures::{Home, static_program};
use crate::skip::{missing, skip};

/// `net tcp|udp ADDRESS` asks, `net serve PORT` answers.
const GUEST_PROGRAM: &str = include_str!("../../../crates/vm/tests/vm_boot/guest/net.rs");
/// What the image of [`net_home`] is called.
pub const NET_IMAGE: &str = "net:1";

/// Runs this test again, alone, in a network namespace of its own; whether this is the run inside.
#[must_use]
pub fn in_namespace(test: &str) -> bool {
    if is_inside() {
        return true;
    }
    if !rustix::process::geteuid().is_root() {
        skip(test, "root", "needs root");
        return false;
    }
    if let Some(program) = missing(&["unshare", "nsenter", "ip", "passt", "qemu-system-x86_64"]) {
        skip(test, "vm", &format!("{program} is not installed"));
        return false;
    }
    run_in_namespace(test);
    false
}

/// A home with a kernel and the image [`NET_IMAGE`], whose program is `net`; or a loud skip.
#[must_use]
pub fn net_home(test: &str) -> Option<Home> {
    let (Some(home), Some(busybox)) = (Home::with_kernel(), static_program()) else {
        skip(test, "vm", "no kernel package or no static busybox");
        return None;
    };
    let source = home.context("net", &[("net.rs", GUEST_PROGRAM.as_bytes())]);
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args([
            "--edition=2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
        ])
        .args(["-o", "net", "net.rs"])
        .current_dir(&source)
        .status()
        .unwrap();
    assert!(built.success());
    let net = fs_err::read(source.join("net")).unwrap();
    let dockerfile =
        b"FROM scratch\nCOPY --chmod=0755 busybox /bin/sh\nCOPY --chmod=0755 busybox /bin/ip\n\
        COPY --chmod=0755 busybox /bin/sleep\nCOPY --chmod=0755 busybox /bin/cat\nCOPY --chmod=0755 net /bin/net\n\
        ENTRYPOINT [\"/bin/sh\", \"-c\"]\n";
    let context = home.context(
        "image",
        &[
            ("Dockerfile", dockerfile),
            ("busybox", &busybox),
            ("net", &net),
        ],
    );
    let _ = home.build(NET_IMAGE, &context).ok();
    Some(home)
}

/// What a program prints.
#[must_use]
pub fn text_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Links, addresses and rules of the network namespace of the caller.
#[must_use]
pub fn links_and_rules() -> String {
    let mut all = text_of("ip", &["-brief", "link"]);
    all.push_str(&text_of("ip", &["-brief", "-4", "addr"]));
    if missing(&["nft"]).is_none() {
        all.push_str(&text_of("nft", &["list", "ruleset"]));
    }
    all
}

/// Programs of machines that run in the network namespace of the caller.
#[must_use]
pub fn machines_here() -> Vec<String> {
    let own = namespace_of(std::process::id());
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(program) = fs_err::read_to_string(format!("/proc/{pid}/comm")) else {
            continue;
        };
        let is_ours = ["qemu", "passt", "firebuild"]
            .iter()
            .any(|ours| program.starts_with(ours))
            // Not the tests of that name.
            || ["firecracker", "jailer"].contains(&program.trim());
        if is_ours && namespace_of(pid) == own {
            found.push(format!("{pid} {}", program.trim()));
        }
    }
    found
}
