//! The channel by vsock, as under Firecracker: the real guest init dials, and the host's end waits for it.
//!
//! What Firecracker does between the guest's device and the host's sockets, the program `vhost-device-vsock` (a published
//! crate) does for QEMU, with the same names. It and the guest init, which another crate of the workspace builds, are
//! named by `FIREBUILD_VHOST_DEVICE_VSOCK` and `FIREBUILD_VMINIT`; without them this skips loudly.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use firebuild_guest_proto::{
    CHANNEL_VSOCK_PORT, CONFIG_PATH, Channel, ExitStatus, INIT_PATH, MODULES_DIR, RootLayout,
    RunConfig,
};
use firebuild_vm::plan::{CHANNEL_LISTENER, Descriptor};
use firebuild_vm::spec::{InitrdPart, PrivateBytes};
use firebuild_vm::{AgentEvent, Backend, RunDir, launch};
use fs_err as fs;

use crate::harness::{Cpio, Lab, drive, is_root};

/// vsock of Debian's kernel, beside what every guest loads.
const VSOCK_MODULES: [&str; 3] = [
    "net/vmw_vsock/vsock",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common",
    "net/vmw_vsock/vmw_vsock_virtio_transport",
];

fn named(test: &str, variable: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).filter(|value| !value.is_empty());
    if named.is_none() {
        eprintln!("SKIP {test}: {variable} names no file");
    }
    named.map(PathBuf::from)
}

/// The device's other half, ended with the test.
struct Device(Child);

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn vm_guest_init_dials_the_host_by_vsock() {
    let test = "vm_guest_init_dials_the_host_by_vsock";
    let Some(program) = named(test, "FIREBUILD_VHOST_DEVICE_VSOCK") else {
        return;
    };
    let Some(vminit) = named(test, "FIREBUILD_VMINIT") else {
        return;
    };
    let Some(lab) = Lab::open(test).filter(|_| is_root(test)) else {
        return;
    };
    let at = |name: &str| lab.dir.path().join(name);
    let (socket, vsock) = (at("vhost.sock"), at("v.sock"));
    let device = format!(
        "guest-cid=3,socket={},uds-path={}",
        socket.display(),
        vsock.display()
    );
    let _device = Device(
        Command::new(program)
            .args(["--vm", &device])
            .spawn()
            .unwrap(),
    );
    let begun = Instant::now();
    while !socket.exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "no device");
        std::thread::sleep(Duration::from_millis(10));
    }

    let argv = ["/bin/busybox", "echo", "by vsock"].map(str::to_owned);
    let channel = Channel::Vsock {
        port: CHANNEL_VSOCK_PORT,
    };
    let mut config = RunConfig::new(argv.into(), "guest".to_owned(), RootLayout::Initrd, channel);
    config.cwd = "/".to_owned();
    let mut archive = Cpio::default();
    for dir in ["bin", "dev", "firebuild", "firebuild/modules"] {
        archive.entry(dir, 0o040_755, &[]);
    }
    archive.entry("bin/busybox", 0o100_755, &lab.busybox);
    for (index, (_, bytes)) in lab.modules(&VSOCK_MODULES).into_iter().enumerate() {
        let path = format!("{MODULES_DIR}/{index:02}.ko");
        archive.entry(path.trim_start_matches('/'), 0o100_644, &bytes);
        config.modules.push(path);
    }
    let inside = |path: &str| path.trim_start_matches('/').to_owned();
    archive.entry(&inside(INIT_PATH), 0o100_755, &fs::read(vminit).unwrap());
    archive.entry(&inside(CONFIG_PATH), 0o100_600, &config.to_json().unwrap());

    let backend = lab.backend(false);
    let mut spec = lab.spec("", &[]);
    spec.initrd = vec![InitrdPart::Private {
        name: "guest".to_owned(),
        contents: PrivateBytes::new(archive.finish()),
    }];
    let checked = spec.check(&backend.capabilities()).unwrap();
    let dir = RunDir::create(&lab.run_base(), &checked.spec().id).unwrap();
    let mut plan = backend.plan(&checked, &dir).unwrap();
    plan.descriptors.push(Descriptor::Listener {
        name: CHANNEL_LISTENER.to_owned(),
        path: at(&format!("v.sock_{CHANNEL_VSOCK_PORT}")),
        owner: None,
    });
    let process = &mut plan.processes[0];
    // The other half of the device belongs to this test's user.
    process.run_as = None;
    for word in &mut process.args {
        if word.starts_with("q35,") {
            word.push_str(",memory-backend=shared");
        }
    }
    let more = [
        "-object".to_owned(),
        "memory-backend-memfd,id=shared,size=256M,share=on".to_owned(),
        "-chardev".to_owned(),
        format!("socket,id=vsock,path={}", socket.display()),
        "-device".to_owned(),
        "vhost-user-vsock-pci,chardev=vsock".to_owned(),
    ];
    process.args.extend(more);
    let mut exit = None;
    let run = drive(launch(&plan, dir).unwrap(), |event, _, _| {
        if let AgentEvent::Exited(record) = event {
            exit = Some(record.status.clone());
        }
    });
    assert_eq!(exit, Some(ExitStatus::Exited { code: 0 }), "{run:?}");
    assert_eq!(String::from_utf8_lossy(&run.stdout), "by vsock\n");
    lab.assert_nothing_left(&run.pids);
}
