//! From a spec to an exit record, on every machine model, with nothing left behind.

use fs_err as fs;
use std::path::Path;

use firebuild_guest_proto::StreamId;
use firebuild_sys::process::Exit;
use firebuild_vm::Backend;
use firebuild_vm::agent::AgentEvent;
use firebuild_vm::plan::Role;
use firebuild_vm::spec::{
    ConsoleLog, Disk, DiskSettings, MachineType, ROOT_DISK_SERIAL, SCRATCH_DISK_SERIAL,
};

use crate::harness::{Lab, Words, drive};

fn words() -> Vec<u8> {
    Words::new()
        .started()
        .stream(StreamId::STDOUT, b"out\n")
        .stream(StreamId::STDERR, b"err\n")
        .exit(7)
}

#[test]
fn vm_gives_streams_exit_code_and_console() {
    let Some(lab) = Lab::open("vm_gives_streams_exit_code_and_console") else {
        return;
    };
    let log = lab.dir.path().join("console.log");
    let mut spec = lab.spec("echo from-the-console; say all", &[("all", words())]);
    spec.console = ConsoleLog {
        path: Some(log.clone()),
        max_bytes: 1 << 20,
    };
    let machine = lab.start(spec, &lab.backend(false));
    let run = drive(machine, |_, _, _| {});
    assert!(run.error.is_none(), "{run:?}");
    assert_eq!(
        (run.stdout.as_slice(), run.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..]),
        "{run:?}"
    );
    assert_eq!(run.exit_code(), Some(7));
    assert!(
        matches!(run.events[0], AgentEvent::Greeted { version: 1 }),
        "{run:?}"
    );
    assert_eq!(run.events.last(), Some(&AgentEvent::Closed));
    assert_eq!(
        run.end.exit,
        Some(Exit::Code(0)),
        "a restart of the guest is an ordinary end: {run:?}"
    );
    assert!(!run.end.killed && run.end.cleanup.is_empty(), "{run:?}");
    assert!(
        fs::read_to_string(log)
            .unwrap()
            .contains("from-the-console")
    );
    lab.assert_nothing_left(&run.pids);
}

#[test]
fn vm_boots_as_microvm_too() {
    let Some(lab) = Lab::open("vm_boots_as_microvm_too") else {
        return;
    };
    let mut spec = lab.spec("say all", &[("all", words())]);
    spec.machine = MachineType::Microvm;
    let run = drive(lab.start(spec, &lab.backend(false)), |_, _, _| {});
    assert_eq!(run.exit_code(), Some(7), "{run:?}");
    assert_eq!(run.end.exit, Some(Exit::Code(0)), "{run:?}");
}

#[test]
fn vm_shares_read_only_disks_and_writes_to_its_own() {
    let Some(lab) = Lab::open("vm_shares_read_only_disks_and_writes_to_its_own") else {
        return;
    };
    let image = lab.dir.path().join("root.img");
    let scratch = lab.dir.path().join("scratch.raw");
    let mut bytes = vec![0; 1 << 20];
    bytes[..6].copy_from_slice(b"shared");
    fs::write(&image, &bytes).unwrap();
    fs::write(&scratch, vec![b'x'; 4 << 20]).unwrap();
    let script = "sleep 0.2; cd /sys/block\n\
        for d in vd*; do echo disk $(cat $d/serial) ro=$(cat $d/ro) $(head -c 6 /dev/$d); done\n\
        echo refused $(echo bad | dd of=/dev/vda conv=notrunc 2>&1 | grep -ci 'not permitted\\|read-only')\n\
        printf hello | dd of=/dev/vdb conv=notrunc,fsync 2>/dev/null\nblkdiscard -o 1048576 /dev/vdb\nsync; say all";
    let mut spec = lab.spec(script, &[("all", words())]);
    spec.disks = vec![
        Disk {
            path: image.clone(),
            read_only: true,
            serial: ROOT_DISK_SERIAL.to_owned(),
            settings: DiskSettings::default(),
        },
        Disk {
            path: scratch.clone(),
            read_only: false,
            serial: SCRATCH_DISK_SERIAL.to_owned(),
            settings: DiskSettings::default(),
        },
    ];
    // Another machine of the same image, at the same time.
    let mut other = lab.spec("say all", &[("all", words())]);
    other.id.push_str("-other");
    other.id = other.id.chars().rev().collect();
    other.disks = vec![spec.disks[0].clone()];
    let backend = lab.backend(false);
    let other = lab.start(other, &backend);
    let run = drive(lab.start(spec, &backend), |_, _, _| {});
    assert_eq!(run.exit_code(), Some(7), "{run:?}");
    let console = run.console();
    assert!(
        console.contains("disk firebuild-root ro=1 shared"),
        "{console}"
    );
    assert!(
        console.contains("disk firebuild-scratch ro=0 xxxxxx"),
        "{console}"
    );
    assert_eq!(
        fs::read(&image).unwrap(),
        bytes,
        "the shared image has changed"
    );
    let written = fs::read(&scratch).unwrap();
    assert_eq!(&written[..6], b"hellox");
    let other = drive(other, |_, _, _| {});
    assert_eq!(other.exit_code(), Some(7), "{other:?}");
    lab.assert_nothing_left(&run.pids);
}

#[test]
fn vm_process_has_no_privileges() {
    let Some(lab) = Lab::open("vm_process_has_no_privileges") else {
        return;
    };
    let machine = lab.start(
        lab.spec("say all", &[("all", words())]),
        &lab.backend(false),
    );
    let (role, pid) = machine.pids()[0];
    assert_eq!(role, Role::Vmm);
    let expected = machine.run_dir().unwrap().user();
    let mut seen = false;
    let run = drive(machine, |event, _, _| {
        if !matches!(event, AgentEvent::Greeted { .. }) {
            return;
        }
        seen = true;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.trim_start_matches(':')
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        if let Some((uid, gid)) = expected {
            assert!(uid > 1000);
            assert_eq!(field("Uid"), vec![uid.to_string(); 4]);
            assert_eq!(field("Gid"), vec![gid.to_string(); 4]);
            assert!(field("Groups").is_empty());
        }
        assert_ne!(field("Uid")[0], "0");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&field(set)[0], 16).unwrap(), 0, "{set}");
        }
        assert_eq!(field("Seccomp"), ["2"]);
        assert_eq!(field("NoNewPrivs"), ["1"]);
        let opened: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .filter(|target| target.starts_with("/") && !target.starts_with("/dev/null"))
            .filter(|target| !target.to_string_lossy().starts_with("/memfd:"))
            .collect();
        assert!(
            opened.iter().all(|target| target
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("vmlinuz")),
            "{opened:?}"
        );
    });
    assert!(seen, "{run:?}");
    lab.assert_nothing_left(&run.pids);
}

#[test]
fn vm_can_be_paused_and_quit() {
    let Some(lab) = Lab::open("vm_can_be_paused_and_quit") else {
        return;
    };
    let backend = lab.backend(false);
    let greeting = Words::new().started().flush().0;
    let mut machine = lab.start(
        lab.spec("say all\nsleep 600", &[("all", greeting)]),
        &backend,
    );
    let mut control = backend.control(machine.take_control().unwrap()).unwrap();
    control.pause().unwrap();
    control.resume().unwrap();
    let run = drive(machine, |event, _, _| {
        if matches!(event, AgentEvent::Started { .. }) {
            control.quit().unwrap();
        }
    });
    assert_eq!(run.end.exit, Some(Exit::Code(0)), "{run:?}");
    assert_eq!(run.events.last(), Some(&AgentEvent::Closed), "{run:?}");
    assert!(control.resume().is_err());
    lab.assert_nothing_left(&run.pids);
}

#[test]
fn vm_that_cannot_start_says_why() {
    let Some(lab) = Lab::open("vm_that_cannot_start_says_why") else {
        return;
    };
    let backend = lab.backend(false);
    let junk = lab.dir.path().join("junk");
    fs::write(&junk, "this is no kernel").unwrap();
    let mut spec = lab.spec("", &[]);
    spec.kernel.path = junk;
    let run = drive(lab.start(spec, &backend), |_, _, _| {});
    let words = run.end.words();
    assert!(words.starts_with("the VMM ended with status 1"), "{words}");
    assert!(words.to_lowercase().contains("kernel"), "{words}");
    lab.assert_nothing_left(&run.pids);

    let mut spec = lab.spec("", &[]);
    spec.disks = vec![Disk {
        path: "/no/such/disk".into(),
        read_only: true,
        serial: "x".to_owned(),
        settings: DiskSettings::default(),
    }];
    let error = lab.try_start(spec, &backend).unwrap_err().to_string();
    assert_eq!(error, "cannot open /no/such/disk");
    assert!(!Path::new(&lab.run_base()).join("test").exists());
    lab.assert_nothing_left(&[]);
}

#[test]
fn vm_initrd_is_wiped_once_it_is_read() {
    let Some(lab) = Lab::open("vm_initrd_is_wiped_once_it_is_read") else {
        return;
    };
    let backend = lab.backend(false);
    let machine = lab.start(lab.spec("say all", &[("all", words())]), &backend);
    let pid = machine.vmm_pid().unwrap();
    let secret = b"070701".to_vec();
    let initrd = format!("/proc/{pid}/fd/4");
    let before = fs::read(&initrd).unwrap();
    assert_eq!(before[..6], secret);
    let mut checked = false;
    let run = drive(machine, |event, _, _| {
        if matches!(event, AgentEvent::Configured) {
            let after = fs::read(&initrd).unwrap();
            assert_eq!(after.len(), before.len());
            assert!(after.iter().all(|&byte| byte == 0));
            checked = true;
        }
    });
    assert!(checked, "{run:?}");
    assert_eq!(run.exit_code(), Some(7), "{run:?}");
}
