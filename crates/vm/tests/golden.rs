//! Specs and the plans they become, as texts: `golden/NAME.spec.json` and `golden/NAME.plan.json`.
//!
//! Write the plans anew with `FIREBUILD_BLESS=1 cargo test -p firebuild-vm --test golden`, and read the difference.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: what fails here fails the test, and skips are loud"
)]

use std::path::{Path, PathBuf};

use firebuild_vm::backend::qemu::Qemu;
use firebuild_vm::capability::KvmState;
use firebuild_vm::net::host::HostNetwork;
use firebuild_vm::run_dir::RunDir;
use firebuild_vm::{Backend, VmSpec};

/// The host that a case is planned for.
struct Host {
    root: bool,
    kvm_group: Option<Option<u32>>,
    passt: bool,
    ipv4_route: bool,
    ipv6_route: bool,
    nameservers: &'static [&'static str],
}

/// Root on a server with everything but KVM.
const SERVER: Host = Host {
    root: true,
    kvm_group: None,
    passt: true,
    ipv4_route: true,
    ipv6_route: true,
    nameservers: &["192.0.2.53"],
};

const CASES: &[(&str, Host)] = &[
    (
        "plain",
        Host {
            root: false,
            ..SERVER
        },
    ),
    ("disks", SERVER),
    (
        "kvm-group",
        Host {
            kvm_group: Some(Some(104)),
            ..SERVER
        },
    ),
    ("microvm", SERVER),
    ("passt-ports", SERVER),
    (
        "passt-offline",
        Host {
            root: false,
            ipv4_route: false,
            ipv6_route: false,
            nameservers: &[],
            ..SERVER
        },
    ),
    (
        "passt-ipv6-only",
        Host {
            ipv4_route: false,
            nameservers: &["2001:db8::53"],
            ..SERVER
        },
    ),
    (
        "slirp-ports",
        Host {
            passt: false,
            ..SERVER
        },
    ),
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn spec(name: &str) -> VmSpec {
    let text = fs_err::read_to_string(golden().join(format!("{name}.spec.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn plan(name: &str, host: &Host) -> String {
    let qemu = Qemu {
        program: "/usr/bin/qemu-system-x86_64".into(),
        passt: host.passt.then(|| "/usr/bin/passt".into()),
        kvm: match host.kvm_group {
            Some(group) => KvmState::Works { group },
            None => KvmState::Unusable {
                reason: "there is no /dev/kvm".to_owned(),
            },
        },
        host: HostNetwork {
            ipv4_route: host.ipv4_route.then(|| "eth0".to_owned()),
            ipv6_route: host.ipv6_route.then(|| "eth0".to_owned()),
            nameservers: host
                .nameservers
                .iter()
                .map(|text| text.parse().unwrap())
                .collect(),
            loopback_nameserver: host.nameservers.is_empty(),
            search: Vec::new(),
        },
    };
    let checked = spec(name).check(&qemu.capabilities()).unwrap();
    let user = host.root.then_some((1_900_000_000, 1_900_000_000));
    let dir = RunDir::dry(Path::new("/run/firebuild"), "golden", user).unwrap();
    qemu.plan(&checked, &dir).unwrap().to_text()
}

#[test]
fn specs_become_these_plans() {
    let bless = std::env::var_os("FIREBUILD_BLESS").is_some();
    for (name, host) in CASES {
        let made = plan(name, host);
        let file = golden().join(format!("{name}.plan.json"));
        if bless {
            fs_err::write(&file, &made).unwrap();
        }
        let expected = fs_err::read_to_string(&file).unwrap_or_default();
        assert!(
            made == expected,
            "the plan of {name} is another one than {}:\n{made}",
            file.display()
        );
    }
}

#[test]
fn the_text_of_a_spec_reads_back() {
    for (name, _) in CASES {
        let spec = spec(name);
        let again: VmSpec = serde_json::from_str(&spec.to_text()).unwrap();
        assert_eq!(again, spec, "{name}");
    }
}

#[test]
fn every_file_is_a_case() {
    let mut found: Vec<String> = fs_err::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".spec.json").map(str::to_owned))
        .collect();
    found.sort();
    let mut cases: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
    cases.sort_unstable();
    assert_eq!(found, cases);
}
