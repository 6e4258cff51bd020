use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use firebuild_vm::spec::{Accel, MachineType};

use super::{Choice, Chosen, Wanted, choose};
use crate::run::{NetworkMode, RunError};

/// Stand-ins for Firecracker: the real one cannot be where these tests run. It tells its version, and as a VMM of the
/// KVM probe it says what a guest would.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs_err::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn wanted(&self, version: &str, probe: &str) -> Wanted {
        let script =
            format!("case $1 in --version) echo 'Firecracker v{version}';; *) {probe};; esac");
        Wanted {
            firecracker: Some(self.program("firecracker", &script)),
            jailer: Some(self.program("jailer", "exit 1")),
            jailed: Some(rustix::process::geteuid().is_root()),
            ..Wanted::default()
        }
    }

    fn choose(&self, wanted: &Wanted, network: NetworkMode) -> Result<Chosen, RunError> {
        choose(
            wanted,
            Accel::Auto,
            MachineType::Auto,
            network,
            self.dir.path(),
        )
    }
}

fn is_firecracker(chosen: &Chosen) -> bool {
    matches!(chosen, Chosen::Firecracker(_))
}

#[test]
fn firecracker_is_chosen_where_kvm_works() {
    if !Path::new("/dev/kvm").exists() {
        eprintln!("SKIP firecracker_is_chosen_where_kvm_works: there is no /dev/kvm");
        return;
    }
    let lab = Lab::new();
    let fine = lab.wanted("1.12.0", "echo '<*>'");
    let chosen = lab.choose(&fine, NetworkMode::None).unwrap();
    if !is_firecracker(&chosen) {
        assert!(
            !rustix::process::geteuid().is_root(),
            "root can open /dev/kvm"
        );
        eprintln!("SKIP firecracker_is_chosen_where_kvm_works: /dev/kvm may not be opened");
        return;
    }
    let user = lab.choose(&fine, NetworkMode::User).unwrap();
    assert!(!is_firecracker(&user), "user-mode networking is QEMU's");
    let other =
        |accel, machine| choose(&fine, accel, machine, NetworkMode::None, lab.dir.path()).unwrap();
    assert!(!is_firecracker(&other(Accel::Tcg, MachineType::Auto)));
    assert!(!is_firecracker(&other(Accel::Auto, MachineType::Q35)));
    let qemu = Wanted {
        choice: Choice::Qemu,
        ..fine
    };
    assert!(!is_firecracker(
        &lab.choose(&qemu, NetworkMode::None).unwrap()
    ));
}

#[test]
fn qemu_is_chosen_where_kvm_does_not_work() {
    let lab = Lab::new();
    let broken = lab.wanted("1.12.0", "exit 0");
    assert!(!is_firecracker(
        &lab.choose(&broken, NetworkMode::None).unwrap()
    ));
    let old = lab.wanted("1.9.0", "echo '<*>'");
    assert!(!is_firecracker(
        &lab.choose(&old, NetworkMode::None).unwrap()
    ));
    let missing = Wanted {
        firecracker: Some("/no/such/firecracker".into()),
        ..Wanted::default()
    };
    assert!(!is_firecracker(
        &lab.choose(&missing, NetworkMode::None).unwrap()
    ));
}

#[test]
fn who_asks_for_firecracker_is_told_what_is_missing() {
    let lab = Lab::new();
    let told = |change: &dyn Fn(&mut Wanted)| {
        let mut wanted = lab.wanted("1.12.0", "exit 0");
        wanted.choice = Choice::Firecracker;
        change(&mut wanted);
        let error = lab.choose(&wanted, NetworkMode::None).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    };
    let text = told(&|wanted| wanted.firecracker = Some("/no/such/program".into()));
    assert!(
        text.contains("--binary-firecracker /no/such/program"),
        "{text}"
    );
    let text = told(&|wanted| {
        wanted.firecracker = Some(lab.program("old", "echo 'Firecracker v0.25.2'"));
    });
    assert!(text.contains("1.10.0 is the oldest"), "{text}");
    if !rustix::process::geteuid().is_root() {
        let text = told(&|wanted| wanted.jailed = None);
        assert!(text.contains("--jailer=off"), "{text}");
        return;
    }
    let text = told(&|wanted| wanted.jailer = Some("/no/such/program".into()));
    assert!(text.contains("--binary-jailer"), "{text}");
    let text = told(&|wanted| wanted.user = Some(0));
    assert!(text.contains("does not run as root"), "{text}");
    let text = told(&|wanted| wanted.group = Some(5));
    assert!(text.contains("--jailer-uid"), "{text}");
    let text = told(&|wanted| wanted.numa_node = Some(4000));
    assert!(text.contains("no node 4000"), "{text}");
}
