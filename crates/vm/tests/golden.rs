//! Specs and the plans they become, as texts: `golden/NAME.spec.json`, `golden/NAME.plan.json` for QEMU and
//! `golden/NAME.firecracker.plan.json`.
//!
//! Write the plans anew with `FIREBUILD_BLESS=1 cargo test -p firebuild-vm --test golden`, and read the difference.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: what fails here fails the test, and skips are loud"
)]

use std::path::{Path, PathBuf};

use firebuild_vm::backend::PlanError;
use firebuild_vm::backend::firecracker::{Cgroup, CgroupHost, Firecracker, Jail, Version};
use firebuild_vm::backend::qemu::Qemu;
use firebuild_vm::capability::KvmState;
use firebuild_vm::net::host::HostNetwork;
use firebuild_vm::places::Owner;
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
    ("hardware", SERVER),
    ("microvm", SERVER),
    ("bridge-ports", SERVER),
    ("bridge-limits", SERVER),
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

/// How Firecracker runs in a case.
#[derive(Clone, Copy)]
enum Way {
    /// In a jail, with nothing but the defaults.
    Jail,
    /// In a jail with everything that can be said, and cgroups of version 1.
    WholeJail,
    /// Without a jail, started by root.
    Root,
    /// Without a jail, started by an ordinary user.
    User,
}

const FIRECRACKER_CASES: &[(&str, Way)] = &[
    ("disks", Way::Jail),
    ("hardware", Way::Root),
    ("jail", Way::WholeJail),
    ("plain", Way::User),
];

fn jail(way: Way) -> Option<Jail> {
    let plain = Jail {
        program: "/usr/bin/jailer".into(),
        chroot_base: "/srv/jailer".into(),
        user: None,
        cgroup: Cgroup {
            host: CgroupHost::V2("/sys/fs/cgroup".into()),
            ..Cgroup::default()
        },
        max_file_bytes: None,
        max_open_files: None,
    };
    match way {
        Way::Jail => Some(plain),
        Way::WholeJail => Some(Jail {
            user: Some(Owner {
                uid: 5001,
                gid: 5002,
            }),
            cgroup: Cgroup {
                host: CgroupHost::of_mounts(
                    "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                     cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n",
                    None,
                ),
                parent: Some("vms/tests".to_owned()),
                settings: [
                    ("memory.limit_in_bytes", "1073741824"),
                    ("cpuset.mems", "0"),
                    ("cpuset.cpus", "0-1"),
                ]
                .map(|(file, value)| (file.to_owned(), value.to_owned()))
                .into(),
            },
            max_file_bytes: Some(1 << 40),
            max_open_files: Some(1024),
            ..plain
        }),
        Way::Root | Way::User => None,
    }
}

fn firecracker(way: Way) -> Firecracker {
    Firecracker {
        program: "/usr/bin/firecracker".into(),
        version: Version::new(1, 17, 0),
        jail: jail(way),
        kvm: KvmState::Works { group: Some(104) },
    }
}

fn firecracker_plan(name: &str, way: Way) -> String {
    let backend = firecracker(way);
    let checked = spec(name).check(&backend.capabilities()).unwrap();
    let (base, user) = match way {
        Way::User => ("/run/user/1000/firebuild", None),
        _ => ("/run/firebuild", Some((1_900_000_000, 1_900_000_000))),
    };
    let dir = RunDir::dry(Path::new(base), "golden", user).unwrap();
    backend.plan(&checked, &dir).unwrap().to_text()
}

fn compare(made: &str, file: &str) {
    let file = golden().join(file);
    if std::env::var_os("FIREBUILD_BLESS").is_some() {
        fs_err::write(&file, made).unwrap();
    }
    let expected = fs_err::read_to_string(&file).unwrap_or_default();
    assert!(
        made == expected,
        "the plan is another one than {}:\n{made}",
        file.display()
    );
}

#[test]
fn specs_become_these_plans() {
    for (name, host) in CASES {
        compare(&plan(name, host), &format!("{name}.plan.json"));
    }
}

#[test]
fn specs_become_these_plans_of_firecracker() {
    for (name, way) in FIRECRACKER_CASES {
        let made = firecracker_plan(name, *way);
        compare(&made, &format!("{name}.firecracker.plan.json"));
    }
}

/// The error of a plan that cannot be.
fn no_plan(change: impl FnOnce(&mut Firecracker), user: Option<(u32, u32)>) -> PlanError {
    let mut backend = firecracker(Way::Jail);
    change(&mut backend);
    let checked = spec("disks").check(&backend.capabilities()).unwrap();
    let dir = RunDir::dry(Path::new("/run/firebuild"), "golden", user).unwrap();
    backend.plan(&checked, &dir).unwrap_err()
}

#[test]
fn jails_that_cannot_be_are_refused_with_what_would_help() {
    let user = Some((1_900_000_000, 1_900_000_000));
    let base = format!("/{}", "b".repeat(99));
    let error = no_plan(
        |backend| backend.jail.as_mut().unwrap().chroot_base = base.clone().into(),
        user,
    );
    assert_eq!(
        error.to_string(),
        format!(
            "path of the socket {base}/firecracker/golden/root/api.sock has 133 bytes, it may have 107; give a \
             --chroot-base of at most 65 bytes ({base} has 100), or the program a shorter name"
        )
    );
    let text = no_plan(|_| (), None).to_string();
    assert!(text.contains("--jailer=off"), "{text}");
    let text = no_plan(
        |backend| backend.jail.as_mut().unwrap().user = Some(Owner { uid: 0, gid: 5 }),
        user,
    )
    .to_string();
    assert!(text.contains("does not run as root"), "{text}");
    for base in ["/", "relative", ""] {
        let text = no_plan(
            |backend| backend.jail.as_mut().unwrap().chroot_base = base.into(),
            user,
        )
        .to_string();
        assert!(text.contains("not an absolute path"), "{base}: {text}");
    }
    let cgroup = |parent: Option<&str>, file: &str| {
        no_plan(
            |backend| {
                let cgroup = &mut backend.jail.as_mut().unwrap().cgroup;
                cgroup.host = CgroupHost::of_mounts("cgroup /c cgroup rw,memory 0 0\n", None);
                cgroup.parent = parent.map(str::to_owned);
                cgroup.settings = vec![(file.to_owned(), "1".to_owned())];
            },
            user,
        )
        .to_string()
    };
    assert!(cgroup(Some("a/../b"), "memory.x").contains("parent cgroup"));
    assert!(cgroup(Some(""), "memory.x").contains("parent cgroup"));
    assert!(cgroup(None, "pids.max").contains("no cgroup with the file"));
    assert!(cgroup(None, "tasks").contains("no cgroup with the file"));
}

#[test]
fn firecracker_tells_beforehand_what_it_cannot_do() {
    let user = spec("passt-ports").check(&firecracker(Way::Jail).capabilities());
    let text = user.unwrap_err().to_string();
    assert!(text.contains("--backend=qemu"), "{text}");
    let old = Firecracker {
        version: Version::new(1, 10, 0),
        ..firecracker(Way::Root)
    };
    let text = spec("hardware")
        .check(&old.capabilities())
        .unwrap_err()
        .to_string();
    assert!(text.contains("free_page_reporting"), "{text}");
    let no_kvm = Firecracker {
        kvm: KvmState::Unusable {
            reason: "it is broken".to_owned(),
        },
        ..firecracker(Way::Jail)
    };
    let text = spec("disks").check(&no_kvm.capabilities()).unwrap_err();
    assert_eq!(text.to_string(), "kvm cannot be used: it is broken");
}

/// What an older one does not know the host does itself, or the guest's init.
#[test]
fn an_older_firecracker_is_told_what_it_knows() {
    let old = Firecracker {
        version: Version::new(1, 15, 0),
        ..firecracker(Way::Root)
    };
    let mut wanted = spec("jail");
    if let firebuild_vm::spec::Network::Bridge(network) = &mut wanted.network {
        network.netns = None;
    }
    wanted.hardware.serial_limit = spec("hardware").hardware.serial_limit;
    let text = wanted.clone().check(&old.capabilities()).unwrap_err();
    assert!(text.to_string().contains("have no emit_id"), "{text}");
    let metrics = wanted.hardware.metrics.as_mut().unwrap();
    metrics.emit_id = false;
    metrics.properties.clear();
    let plan = |backend: &Firecracker| {
        let checked = wanted.clone().check(&backend.capabilities()).unwrap();
        let user = Some((1_900_000_000, 1_900_000_000));
        let dir = RunDir::dry(Path::new("/run/firebuild"), "golden", user).unwrap();
        backend.plan(&checked, &dir).unwrap()
    };
    let told = |plan: &firebuild_vm::LaunchPlan, path: &str| {
        let requests = &plan.api.as_ref().unwrap().requests;
        let found = requests.iter().find(|request| request.path == path);
        found.map(|request| request.body.clone())
    };
    let (before, now) = (plan(&old), plan(&firecracker(Way::Root)));
    assert_eq!(before.console_limit, wanted.hardware.serial_limit);
    assert_eq!(told(&before, "/serial"), None);
    assert_eq!(now.console_limit, None);
    assert!(told(&now, "/serial").unwrap()["rate_limiter"].is_object());
    for (plan, mtu) in [(before, None), (now, Some(1400))] {
        let interface = told(&plan, "/network-interfaces/eth0").unwrap();
        assert_eq!(
            interface.get("mtu").and_then(serde_json::Value::as_u64),
            mtu
        );
        let metrics = serde_json::json!({"metrics_path": "metrics"});
        assert_eq!(told(&plan, "/metrics"), Some(metrics));
    }
}

#[test]
fn the_text_of_a_spec_reads_back() {
    let names = CASES.iter().map(|(name, _)| *name);
    for name in names.chain(FIRECRACKER_CASES.iter().map(|(name, _)| *name)) {
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
    cases.extend(FIRECRACKER_CASES.iter().map(|(name, _)| *name));
    cases.sort_unstable();
    cases.dedup();
    assert_eq!(found, cases);
}
