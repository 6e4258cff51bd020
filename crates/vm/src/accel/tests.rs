use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{LIMIT, Record, device_group, host_key, probe, remember, remembered, run_guest};
use crate::backend::qemu::{PROGRAM, find_program};
use crate::capability::KvmState;

fn qemu(test: &str) -> Option<PathBuf> {
    let found = find_program(PROGRAM, OsStr::new("/usr/local/bin:/usr/bin"));
    if found.is_none() {
        let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|need| need == "vm"),
            "{PROGRAM} is required"
        );
        eprintln!("SKIP {test}: {PROGRAM} is not installed");
    }
    found
}

#[test]
fn the_guest_comes_through_where_the_processor_is_real() {
    let Some(qemu) = qemu("the_guest_comes_through_where_the_processor_is_real") else {
        return;
    };
    // TCG stands for a processor that does what the manual says.
    run_guest(&qemu, &["-accel", "tcg", "-cpu", "qemu64"], None).unwrap();
}

#[test]
fn the_kernel_among_the_guests_comes_through_too() {
    let Some(qemu) = qemu("the_kernel_among_the_guests_comes_through_too") else {
        return;
    };
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/accel/pvh.elf");
    let output = std::process::Command::new(qemu)
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-m",
            "32",
        ])
        .args([
            "-machine", "q35", "-accel", "tcg", "-cpu", "qemu64", "-serial", "stdio",
        ])
        .arg("-kernel")
        .arg(guest)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "<*>", "{output:?}");
}

#[test]
fn a_firecracker_that_fails_or_lies_is_a_reason() {
    let reason = super::firecracker::run_guest(Path::new("/no/such/vmm"), None).unwrap_err();
    assert!(reason.contains("cannot be started"), "{reason}");
    let dir = tempfile::tempdir().unwrap();
    let fake = |script: &str| {
        let path = dir.path().join("firecracker");
        fs_err::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        super::firecracker::run_guest(&path, None)
    };
    fake("echo '<*>'").unwrap();
    assert_eq!(
        fake("exit 0").unwrap_err(),
        "a test guest crashed on its way to user mode"
    );
    let reason = fake("echo 'no kvm' >&2; exit 1").unwrap_err();
    assert_eq!(
        reason,
        "Firecracker ended with status 1 while it ran a test guest (no kvm)"
    );
    assert!(fake("exec sleep 60").unwrap_err().contains("within 3 s"));
}

#[test]
fn a_vmm_that_fails_or_hangs_is_a_reason() {
    let reason = run_guest(Path::new("/no/such/vmm"), &[], None).unwrap_err();
    assert!(reason.contains("cannot be started"), "{reason}");
    let reason = run_guest(Path::new("/bin/false"), &[], None).unwrap_err();
    assert_eq!(
        reason,
        "the VMM ended with status 1 while it ran a test guest"
    );

    let dir = tempfile::tempdir().unwrap();
    let hangs = dir.path().join("vmm");
    fs_err::write(&hangs, "#!/bin/sh\nexec sleep 60\n").unwrap();
    fs_err::set_permissions(&hangs, std::fs::Permissions::from_mode(0o755)).unwrap();
    let begin = Instant::now();
    let reason = run_guest(&hangs, &[], None).unwrap_err();
    assert!(reason.contains("within 3 s"), "{reason}");
    assert!(begin.elapsed() < LIMIT * 2);
}

#[test]
fn the_probe_gives_an_answer_in_time_and_remembers_it() {
    let Some(qemu) = qemu("the_probe_gives_an_answer_in_time_and_remembers_it") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let first = probe(&qemu, dir.path());
    assert!(begin.elapsed() < LIMIT + LIMIT / 2);
    if let KvmState::Unusable { reason } = &first {
        assert!(!reason.is_empty());
    }
    assert_eq!(probe(&qemu, dir.path()), first);
}

#[test]
fn an_answer_counts_for_its_host_only() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("probe.json");
    let host = host_key(Path::new("/bin/true"));
    assert_ne!(host, host_key(Path::new("/bin/false")));
    assert_eq!(remembered(&file, &host), None);
    for problem in [None, Some("broken".to_owned())] {
        remember(
            &file,
            &Record {
                format: 1,
                host: host.clone(),
                problem: problem.clone(),
            },
        )
        .unwrap();
        assert_eq!(remembered(&file, &host), Some(problem));
        assert_eq!(remembered(&file, "another boot"), None);
    }
    fs_err::write(&file, "{}").unwrap();
    assert_eq!(remembered(&file, &host), None);
}

#[test]
fn the_device_must_be_open_to_machines() {
    let dir = tempfile::tempdir().unwrap();
    let device = dir.path().join("kvm");
    assert!(
        device_group(&device, 0)
            .unwrap_err()
            .contains("there is no")
    );
    fs_err::write(&device, "").unwrap();
    let with_mode =
        |mode| fs_err::set_permissions(&device, std::fs::Permissions::from_mode(mode)).unwrap();
    with_mode(0o666);
    assert_eq!(device_group(&device, 0), Ok(None));
    with_mode(0o660);
    let group = rustix::fs::stat(&device).unwrap().st_gid;
    assert_eq!(device_group(&device, 0), Ok(Some(group)));
    with_mode(0o600);
    assert!(
        device_group(&device, 0)
            .unwrap_err()
            .contains("never run as root")
    );
}
