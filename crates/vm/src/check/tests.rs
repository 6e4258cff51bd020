use std::path::PathBuf;

use firebuild_guest_proto::MacAddress;

use super::{CheckError, CheckErrorKind, CheckedAccel};
use crate::capability::{Capabilities, KvmState, UserNetworking};
use crate::hardware::{DiskSettings, Hardware, HardwareSupport};
use crate::spec::{
    Accel, BridgeNetwork, ConsoleLog, Disk, InitrdPart, Kernel, KernelFormat, MachineType, Network,
    PortPublish, Protocol, SPEC_FORMAT, UserNetwork, VmSpec,
};

pub(super) fn capabilities() -> Capabilities {
    Capabilities {
        backend: "test",
        max_cpus: 4,
        memory_mib: 64..=1024,
        max_disks: 2,
        kernel_formats: vec![KernelFormat::ElfPvh],
        machines: vec![MachineType::Q35],
        kvm: KvmState::Unusable {
            reason: "it is broken".to_owned(),
        },
        tcg: true,
        user_network: UserNetworking::Full { ipv6: false },
        hardware: HardwareSupport::default(),
    }
}

pub(super) fn spec() -> VmSpec {
    VmSpec {
        format: SPEC_FORMAT,
        id: "a-1".to_owned(),
        cpus: 1,
        memory_mib: 128,
        kernel: Kernel {
            path: "/k".into(),
            format: KernelFormat::ElfPvh,
            builtin: false,
        },
        initrd: vec![InitrdPart::File { path: "/i".into() }],
        kernel_args: Vec::new(),
        disks: vec![disk("/d", "one")],
        network: Network::None,
        console: ConsoleLog::default(),
        accel: Accel::Auto,
        machine: MachineType::Auto,
        hardware: Hardware::default(),
        mmds: None,
    }
}

fn disk(path: &str, serial: &str) -> Disk {
    Disk {
        path: path.into(),
        read_only: true,
        serial: serial.to_owned(),
        settings: DiskSettings::default(),
    }
}

fn port(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> PortPublish {
    PortPublish {
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port,
        guest_port: 80,
        protocol,
    }
}

fn refusal(change: impl FnOnce(&mut VmSpec)) -> CheckError {
    let mut changed = spec();
    change(&mut changed);
    changed.check(&capabilities()).unwrap_err()
}

#[test]
fn choices_are_made() {
    let checked = spec().check(&capabilities()).unwrap();
    assert_eq!(*checked.accel(), CheckedAccel::Tcg);
    assert_eq!(checked.machine(), MachineType::Q35);
    let can = Capabilities {
        kvm: KvmState::Works { group: Some(7) },
        ..capabilities()
    };
    assert_eq!(
        *spec().check(&can).unwrap().accel(),
        CheckedAccel::Kvm { group: Some(7) }
    );
    let wants_tcg = VmSpec {
        accel: Accel::Tcg,
        ..spec()
    };
    assert_eq!(*wants_tcg.check(&can).unwrap().accel(), CheckedAccel::Tcg);
}

#[test]
fn doubtful_kvm_is_for_those_who_insist() {
    let doubtful = |tcg| Capabilities {
        kvm: KvmState::Doubtful {
            group: Some(7),
            reason: "a test guest crashed".to_owned(),
        },
        tcg,
        ..capabilities()
    };
    let insists = VmSpec {
        accel: Accel::Kvm,
        ..spec()
    };
    for tcg in [true, false] {
        let checked = insists.clone().check(&doubtful(tcg)).unwrap();
        assert_eq!(*checked.accel(), CheckedAccel::Kvm { group: Some(7) });
        assert_eq!(
            checked.notices(),
            [
                "kvm is used because --accel kvm asks for it; it does not seem to work here: a test guest crashed"
            ]
        );
    }
    let auto = spec().check(&doubtful(true)).unwrap();
    assert_eq!(*auto.accel(), CheckedAccel::Tcg);
    assert!(auto.notices().is_empty());
    assert_eq!(
        spec().check(&doubtful(false)).unwrap_err().to_string(),
        "kvm cannot be used: a test guest crashed; --accel kvm tries nevertheless"
    );
}

#[test]
fn every_field_is_refused_by_its_kind() {
    type Change = fn(&mut VmSpec);
    let cases: &[(CheckErrorKind, Change)] = &[
        (CheckErrorKind::Format, |s| s.format = 2),
        (CheckErrorKind::Id, |s| s.id.clear()),
        (CheckErrorKind::Id, |s| s.id = "a b".to_owned()),
        (CheckErrorKind::Id, |s| s.id = "a,b".to_owned()),
        (CheckErrorKind::Id, |s| s.id = "x".repeat(65)),
        (CheckErrorKind::Cpus, |s| s.cpus = 0),
        (CheckErrorKind::Cpus, |s| s.cpus = 5),
        (CheckErrorKind::Memory, |s| s.memory_mib = 63),
        (CheckErrorKind::Memory, |s| s.memory_mib = 1025),
        (CheckErrorKind::Kernel, |s| {
            s.kernel.format = KernelFormat::BzImage
        }),
        (CheckErrorKind::Kernel, |s| {
            s.kernel.path = PathBuf::from("k")
        }),
        (CheckErrorKind::Initrd, |s| s.initrd.clear()),
        (CheckErrorKind::Initrd, |s| {
            s.initrd = vec![InitrdPart::File { path: "i".into() }]
        }),
        (CheckErrorKind::KernelArgument, |s| {
            s.kernel_args = vec!["init=/x".to_owned()]
        }),
        (CheckErrorKind::Disk, |s| {
            s.disks = vec![disk("/1", "1"), disk("/2", "2"), disk("/3", "3")]
        }),
        (CheckErrorKind::Disk, |s| {
            s.disks = vec![disk("/1", "1"), disk("/2", "1")]
        }),
        (CheckErrorKind::Disk, |s| s.disks = vec![disk("1", "1")]),
        (CheckErrorKind::Disk, |s| s.disks = vec![disk("/1", "a,b")]),
        (CheckErrorKind::Disk, |s| {
            s.disks = vec![disk("/1", "123456789012345678901")]
        }),
        (CheckErrorKind::Accel, |s| s.accel = Accel::Kvm),
        (CheckErrorKind::Machine, |s| {
            s.machine = MachineType::Microvm
        }),
    ];
    for (kind, change) in cases {
        let error = refusal(change);
        assert_eq!(error.kind(), *kind, "{error}");
    }
    let error = refusal(|s| s.accel = Accel::Kvm);
    assert_eq!(
        error.to_string(),
        "kvm cannot be used: it is broken; use --accel tcg"
    );
}

#[test]
fn ports_are_refused_by_name() {
    let with = |ports: Vec<PortPublish>| {
        refusal(|s| s.network = Network::User(UserNetwork { publish: ports }))
    };
    let two = |a, b| with(vec![a, b]).to_string();
    let tcp = Protocol::Tcp;
    assert!(
        with(vec![port(None, 0, tcp)])
            .to_string()
            .contains("port of 0")
    );
    assert_eq!(
        two(port(None, 80, tcp), port(Some("127.0.0.1"), 80, tcp)),
        "published ports 80:80/tcp and 127.0.0.1:80:80/tcp want the same port of the host"
    );
    assert!(
        with(vec![port(Some("::1"), 80, tcp)])
            .to_string()
            .contains("published on IPv6")
    );
    let fine = VmSpec {
        network: Network::User(UserNetwork {
            publish: vec![
                port(None, 80, tcp),
                port(None, 80, Protocol::Udp),
                port(Some("127.0.0.1"), 81, tcp),
                port(Some("::"), 82, tcp),
            ],
        }),
        ..spec()
    };
    let can = Capabilities {
        user_network: UserNetworking::Full { ipv6: true },
        ..capabilities()
    };
    fine.check(&can).unwrap();
    // passt counts ports, not addresses.
    let twice = VmSpec {
        network: Network::User(UserNetwork {
            publish: vec![port(Some("127.0.0.1"), 80, tcp), port(Some("::1"), 80, tcp)],
        }),
        ..spec()
    };
    let error = twice.check(&can).unwrap_err();
    assert_eq!(error.kind(), CheckErrorKind::Port);
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:80:80/tcp and [::1]:80:80/tcp: passt takes port 80"),
        "{text}"
    );
}

fn bridge(publish: Vec<PortPublish>) -> BridgeNetwork {
    BridgeNetwork {
        tap: "fb0123456789ab".to_owned(),
        mac: MacAddress([2, 0xfb, 10, 251, 0, 2]),
        netns: None,
        address: None,
        publish,
    }
}

#[test]
fn bridges_are_checked() {
    let tcp = Protocol::Tcp;
    let fine = VmSpec {
        network: Network::Bridge(bridge(vec![
            port(None, 80, tcp),
            port(None, 80, Protocol::Udp),
            port(Some("127.0.0.1"), 81, tcp),
            port(Some("127.0.0.2"), 81, tcp),
        ])),
        ..spec()
    };
    fine.check(&capabilities()).unwrap();
    let with = |change: &dyn Fn(&mut BridgeNetwork)| {
        let mut network = bridge(Vec::new());
        change(&mut network);
        refusal(|s| s.network = Network::Bridge(network)).to_string()
    };
    for name in ["", "..", "a/b", "sixteen-bytes-xx"] {
        let text = with(&|network| network.tap = name.to_owned());
        assert!(text.contains("name of the tap"), "{name}: {text}");
    }
    assert!(with(&|network| network.mac.0[0] = 3).contains("group"));
    assert!(with(&|network| network.netns = Some("x".into())).contains("not absolute"));
    let text = with(&|network| network.publish = vec![port(Some("::1"), 80, tcp)]);
    assert!(text.contains("--network=user"), "{text}");
}

#[test]
fn what_a_network_lacks_is_told() {
    let wanted = VmSpec {
        network: Network::User(UserNetwork::default()),
        ..spec()
    };
    let some = UserNetworking::PublishedOnly {
        reason: "no passt".to_owned(),
    };
    let checked = wanted
        .clone()
        .check(&Capabilities {
            user_network: some,
            ..capabilities()
        })
        .unwrap();
    assert_eq!(checked.notices(), ["no passt"]);
    let udp = UserNetwork {
        publish: vec![port(None, 53, Protocol::Udp)],
    };
    let wants_udp = VmSpec {
        network: Network::User(udp),
        ..spec()
    };
    let some = UserNetworking::PublishedOnly {
        reason: "no passt".to_owned(),
    };
    let error = wants_udp
        .check(&Capabilities {
            user_network: some,
            ..capabilities()
        })
        .unwrap_err();
    assert!(error.to_string().contains("UDP needs passt"), "{error}");
    let none = UserNetworking::Missing {
        reason: "nothing".to_owned(),
    };
    let error = wanted
        .check(&Capabilities {
            user_network: none,
            ..capabilities()
        })
        .unwrap_err();
    assert_eq!(error.kind(), CheckErrorKind::Network);
}

#[test]
fn a_metadata_document_is_an_object() {
    let error = refusal(|s| {
        s.mmds = Some(crate::spec::MmdsSpec {
            version: crate::spec::MmdsVersion::V2,
            imds_compat: false,
            document: serde_json::json!([]),
        });
    });
    assert_eq!(error.kind(), CheckErrorKind::Metadata);
}
