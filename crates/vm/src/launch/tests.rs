use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{LaunchErrorKind, launch};
use crate::agent::ChannelEnd;
use crate::machine::MachineState;
use crate::plan::{
    Access, CHANNEL_HOST, Descriptor, FIRST_FD, InheritedFd, LaunchPlan, PLAN_FORMAT, PlannedFile,
    PlannedProcess, Role, RunAs,
};
use crate::run_dir::RunDir;
use crate::spec::{InitrdPart, PortPublish, PrivateBytes};

/// A plan whose VMM is a shell.
fn plan(script: &str) -> LaunchPlan {
    LaunchPlan {
        format: PLAN_FORMAT,
        backend: "test".to_owned(),
        id: "test".to_owned(),
        processes: vec![process(Role::Vmm, script, &[])],
        ..LaunchPlan::default()
    }
}

fn process(role: Role, script: &str, fds: &[&str]) -> PlannedProcess {
    PlannedProcess {
        role,
        program: "/bin/sh".into(),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        cwd: "/".into(),
        run_as: None,
        bind_low_ports: false,
        fds: (FIRST_FD..)
            .zip(fds)
            .map(|(number, name)| InheritedFd {
                number,
                name: (*name).to_owned(),
            })
            .collect(),
        stdout: None,
        log: None,
        tethered: false,
        ready: None,
    }
}

fn socket_pair(host: &str, child: &str) -> Descriptor {
    Descriptor::SocketPair {
        names: [host.to_owned(), child.to_owned()],
        send_buffer_bytes: None,
    }
}

fn run_dir(base: &Path) -> RunDir {
    RunDir::create(base, "test").unwrap()
}

#[test]
fn a_child_gets_its_descriptors_and_no_others() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("disk");
    fs_err::write(&file, "disk").unwrap();
    let mut plan = plan(
        "cat <&3 >&5; cat <&4 >&5; ls /proc/self/fd | wc -l >&5; pwd >&5; env | grep -c . >&5",
    );
    plan.descriptors = vec![
        Descriptor::Open {
            name: "disk".to_owned(),
            path: file,
            access: Access::Read,
        },
        Descriptor::Memory {
            name: "memory".to_owned(),
            parts: vec![
                InitrdPart::Private {
                    name: "a".to_owned(),
                    contents: PrivateBytes::new(b"one".to_vec()),
                },
                InitrdPart::Private {
                    name: "b".to_owned(),
                    contents: PrivateBytes::new(b"two".to_vec()),
                },
            ],
        },
        socket_pair(CHANNEL_HOST, "channel"),
    ];
    plan.processes = vec![PlannedProcess {
        fds: process(Role::Vmm, "", &["disk", "memory", "channel"]).fds,
        ..plan.processes[0].clone()
    }];
    let mut machine = launch(&plan, run_dir(base.path())).unwrap();
    let mut said = String::new();
    let Some(ChannelEnd::Connected(channel)) = machine.take_channel() else {
        panic!("a channel that is connected");
    };
    let mut channel = std::fs::File::from(channel);
    assert!(machine.take_channel().is_none());
    machine.wait().unwrap();
    channel.read_to_string(&mut said).unwrap();
    // Parts of a memory file begin at multiples of four. `ls` has its own directory open beside 0 to 5.
    assert_eq!(said, "diskone\0two\x007\n/\n2\n");
    let end = machine.finish();
    assert!(end.cleanup.is_empty() && !end.killed, "{end:?}");
}

#[test]
fn the_last_words_of_a_vmm_are_told() {
    let base = tempfile::tempdir().unwrap();
    let mut machine = launch(
        &plan("echo first; echo 'it is broken' >&2; exit 3"),
        run_dir(base.path()),
    )
    .unwrap();
    machine.wait().unwrap();
    assert_eq!(machine.pump(), MachineState::Ended);
    let end = machine.finish();
    assert_eq!(
        end.words(),
        "the VMM ended with status 3\n  vmm: first\n  vmm: it is broken"
    );
    assert_eq!(fs_err::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn a_helper_that_fails_stops_the_launch() {
    let base = tempfile::tempdir().unwrap();
    let mut plan = plan("sleep 60");
    plan.descriptors = vec![Descriptor::Pipe {
        read: "ready.read".to_owned(),
        write: "ready".to_owned(),
    }];
    let helper = process(Role::Network, "echo 'no such port' >&2; exit 1", &["ready"]);
    plan.processes.insert(
        0,
        PlannedProcess {
            ready: Some("ready.read".to_owned()),
            ..helper
        },
    );
    plan.files = vec![PlannedFile {
        path: base.path().join("file"),
        mode: 0o600,
        contents: "text".to_owned(),
    }];
    let error = launch(&plan, run_dir(base.path())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the network process /bin/sh ended with status 1\n  no such port"
    );
    assert_eq!(
        fs_err::read_dir(base.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}

#[test]
fn a_helper_that_is_ready_is_waited_for_and_ends_with_the_vmm() {
    let base = tempfile::tempdir().unwrap();
    let mut plan = plan("exit 0");
    plan.descriptors = vec![Descriptor::Pipe {
        read: "ready.read".to_owned(),
        write: "ready".to_owned(),
    }];
    let helper = process(
        Role::Network,
        "sleep 0.2; echo >&3; exec sleep 60",
        &["ready"],
    );
    plan.processes.insert(
        0,
        PlannedProcess {
            ready: Some("ready.read".to_owned()),
            ..helper
        },
    );
    let begin = Instant::now();
    let mut machine = launch(&plan, run_dir(base.path())).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(200));
    let pids = machine.pids();
    machine.wait().unwrap();
    assert!(!machine.network_lost());
    let end = machine.finish();
    assert!(end.cleanup.is_empty(), "{end:?}");
    assert!(
        pids.iter()
            .all(|(_, pid)| !Path::new(&format!("/proc/{pid}")).exists())
    );
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_machine_that_is_dropped_is_killed() {
    let base = tempfile::tempdir().unwrap();
    let machine = launch(&plan("exec sleep 60"), run_dir(base.path())).unwrap();
    let pid = machine.vmm_pid().unwrap();
    drop(machine);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(fs_err::read_dir(base.path()).unwrap().count(), 0);
}

#[test]
fn a_taken_port_is_told_before_anything_starts() {
    let base = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plan = plan("exit 0");
    plan.processes[0].program = "/no/such/program".into();
    plan.ports = vec![PortPublish {
        host_ip: Some("127.0.0.1".parse().unwrap()),
        host_port: taken.local_addr().unwrap().port(),
        guest_port: 1,
        protocol: crate::spec::Protocol::Tcp,
    }];
    let error = launch(&plan, run_dir(base.path())).unwrap_err();
    assert_eq!(*error.kind(), LaunchErrorKind::Port);
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("is in use")
    );
}

#[test]
fn failures_name_what_failed() {
    let base = tempfile::tempdir().unwrap();
    let mut missing = plan("exit 0");
    missing.processes[0].program = "/no/such/program".into();
    let error = launch(&missing, run_dir(base.path())).unwrap_err();
    assert_eq!(error.to_string(), "cannot start /no/such/program");
    let mut missing = plan("exit 0");
    missing.descriptors = vec![Descriptor::Open {
        name: "disk0".to_owned(),
        path: "/no/such/disk".into(),
        access: Access::ReadWrite,
    }];
    let error = launch(&missing, run_dir(base.path())).unwrap_err();
    assert_eq!(error.to_string(), "cannot open /no/such/disk");
}

#[test]
fn a_kernel_that_the_machines_user_cannot_read_is_told() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP a_kernel_that_the_machines_user_cannot_read_is_told: needs root");
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let kernel = tempfile::NamedTempFile::new().unwrap();
    let mut plan = plan("exit 0");
    plan.processes[0].run_as = Some(RunAs {
        uid: 61_001,
        gid: 61_001,
        groups: Vec::new(),
    });
    plan.descriptors = vec![Descriptor::Open {
        name: "kernel".to_owned(),
        path: kernel.path().to_owned(),
        access: Access::Read,
    }];
    let text = launch(&plan, run_dir(base.path())).unwrap_err().to_string();
    assert!(
        text.ends_with(
            "cannot be read by uid 61001, which the machine runs as; give it the mode 0644"
        ),
        "{text}"
    );
}
