//! What the VM tests share: kernel and modules, initrds, and a driver that is an owner's poll loop in small.

use fs_err as fs;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use firebuild_guest_proto::{
    ExitRecord, ExitStatus, GuestMessage, Hello, Incoming, Mux, StreamId, mux,
};
use firebuild_vm::agent::{Agent, AgentError, AgentEvent};
use firebuild_vm::backend::qemu::{PASST, PROGRAM, Qemu, find_program};
use firebuild_vm::capability::KvmState;
use firebuild_vm::net::host::HostNetwork;
use firebuild_vm::spec::{
    Accel, ConsoleLog, Hardware, InitrdPart, Kernel, KernelFormat, MachineType, Network,
    PrivateBytes, SPEC_FORMAT,
};
use firebuild_vm::{Backend, Machine, MachineEnd, MachineState, RunDir, VmSpec, launch};
use rustix::event::{PollFlags, Timespec, poll};

/// No guest of these tests needs longer, whatever else the machine does.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// Modules of Debian's cloud kernel that the tests need, in the order of their dependencies.
const MODULES: [&str; 9] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "drivers/char/virtio_console",
    "net/core/failover",
    "drivers/net/net_failover",
];
const NETWORK_MODULE: &str = "drivers/net/virtio_net";

/// The beginning of every guest: file systems, modules, and the channel on descriptor 3.
const PRELUDE: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for m in /m/*.ko; do insmod $m || echo "no $m"; done
for i in 1 2 3 4 5 6 7 8 9 10; do port=$(grep -l firebuild.channel /sys/class/virtio-ports/*/name 2>/dev/null) && break; sleep 0.1; done
port=/dev/$(basename $(dirname $port))
exec 3<>$port
"#;

/// The end of every guest: waits for the acknowledgement of the exit record, and restarts.
const FINALE: &str = r#"
for i in $(seq 100); do
  case "$(dd bs=4096 count=1 2>/dev/null <&3 | tr -d '\000')" in *exit-ack*) break;; esac
done
reboot -f
"#;

/// What the tests boot.
pub(crate) struct Lab {
    pub(crate) qemu: PathBuf,
    kernel: PathBuf,
    modules: PathBuf,
    pub(crate) busybox: Vec<u8>,
    pub(crate) dir: tempfile::TempDir,
}

fn skip(test: &str, reason: &str) {
    let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|need| need == "vm"),
        "{test} must run: {reason}"
    );
    eprintln!("SKIP {test}: {reason}");
}

/// Says that a test is skipped unless it runs as root.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|need| need == "root"),
            "{test} must run as root"
        );
        eprintln!("SKIP {test}: needs root");
    }
    root
}

impl Lab {
    /// Everything that a machine needs, or a loud skip.
    pub(crate) fn open(test: &str) -> Option<Self> {
        let path = OsStr::new("/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        let Some(qemu) = find_program(PROGRAM, path) else {
            skip(test, "qemu-system-x86_64 is not installed");
            return None;
        };
        let Some(busybox) = find_program("busybox", path).and_then(|file| fs::read(file).ok())
        else {
            skip(test, "busybox is not installed");
            return None;
        };
        let Some(deb) = std::env::var_os("FIREBUILD_TEST_KERNEL_DEB").filter(|deb| !deb.is_empty())
        else {
            skip(test, "FIREBUILD_TEST_KERNEL_DEB names no kernel package");
            return None;
        };
        let unpacked = match unpack(Path::new(&deb)) {
            Ok(unpacked) => unpacked,
            Err(reason) => {
                skip(test, &reason);
                return None;
            }
        };
        let kernel = only_child(&unpacked.join("boot"), "vmlinuz-")?;
        let modules = only_child(&unpacked.join("lib/modules"), "")?.join("kernel");
        let dir = tempfile::Builder::new().prefix("fbvm").tempdir().unwrap();
        Some(Self {
            qemu,
            kernel,
            modules,
            busybox,
            dir,
        })
    }

    /// QEMU on this host, without KVM; with passt if it is wanted and installed.
    pub(crate) fn backend(&self, passt: bool) -> Qemu {
        let passt = passt
            .then(|| find_program(PASST, OsStr::new("/usr/local/bin:/usr/bin")))
            .flatten();
        let kvm = KvmState::Unusable {
            reason: "these tests use tcg".to_owned(),
        };
        Qemu {
            program: self.qemu.clone(),
            passt,
            kvm,
            host: HostNetwork::discover(),
        }
    }

    /// A machine whose guest runs `script` and says `words` to the channel when the script does `say NAME`.
    pub(crate) fn spec(&self, script: &str, words: &[(&str, Vec<u8>)]) -> VmSpec {
        VmSpec {
            format: SPEC_FORMAT,
            id: format!("test-{}", rustix::process::getpid().as_raw_nonzero()),
            cpus: 1,
            memory_mib: 256,
            kernel: Kernel {
                path: self.kernel.clone(),
                format: KernelFormat::BzImage,
                builtin: false,
            },
            initrd: vec![InitrdPart::Private {
                name: "guest".to_owned(),
                contents: PrivateBytes::new(self.initrd(script, words)),
            }],
            kernel_args: Vec::new(),
            disks: Vec::new(),
            network: Network::None,
            console: ConsoleLog::default(),
            accel: Accel::Tcg,
            machine: MachineType::Auto,
            hardware: Hardware::default(),
            mmds: None,
        }
    }

    /// The modules that every guest loads and these, in load order.
    pub(crate) fn modules(&self, more: &[&'static str]) -> Vec<(&'static str, Vec<u8>)> {
        let read = |module| {
            let path = self.modules.join(format!("{module}.ko"));
            (module, fs::read(path).unwrap())
        };
        MODULES
            .into_iter()
            .chain(more.iter().copied())
            .map(read)
            .collect()
    }

    fn initrd(&self, script: &str, words: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut archive = Cpio::default();
        for dir in ["bin", "m", "words"] {
            archive.entry(dir, 0o040_755, &[]);
        }
        archive.entry("bin/busybox", 0o100_755, &self.busybox);
        for (index, (_, bytes)) in self.modules(&[NETWORK_MODULE]).into_iter().enumerate() {
            archive.entry(&format!("m/{index:02}.ko"), 0o100_644, &bytes);
        }
        for (name, bytes) in words {
            archive.entry(&format!("words/{name}"), 0o100_644, bytes);
        }
        let say = "say() { cat /words/$1 >&3; }\n";
        let init = format!("{PRELUDE}{say}{script}\n{FINALE}");
        archive.entry("init", 0o100_755, init.as_bytes());
        archive.finish()
    }

    /// Checks, plans and launches.
    pub(crate) fn start(&self, spec: VmSpec, backend: &Qemu) -> Machine {
        self.try_start(spec, backend)
            .unwrap_or_else(|error| panic!("{}", chain(&*error)))
    }

    /// The same, for a failure that is expected.
    pub(crate) fn try_start(
        &self,
        spec: VmSpec,
        backend: &Qemu,
    ) -> Result<Machine, Box<dyn std::error::Error>> {
        let checked = spec.check(&backend.capabilities())?;
        let dir = RunDir::create(&self.run_base(), &checked.spec().id)?;
        let plan = backend.plan(&checked, &dir)?;
        Ok(launch(&plan, dir)?)
    }

    /// A static program for the guest, built once from this source.
    pub(crate) fn guest_program(&self, name: &str, source: &str) -> Option<Vec<u8>> {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm-guest");
        fs::create_dir_all(&base).unwrap();
        let lock = fs::File::create(base.join("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let (program, text) = (base.join(name), base.join(format!("{name}.rs")));
        if !program.exists() || fs::read_to_string(&text).ok().as_deref() != Some(source) {
            let _ = fs::remove_file(&program);
            fs::write(&text, source).unwrap();
            let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
            let built = Command::new(rustc)
                .args([
                    "--edition=2024",
                    "-O",
                    "-C",
                    "target-feature=+crt-static",
                    "-C",
                    "strip=symbols",
                    "-o",
                ])
                .args([&program, &text])
                .status();
            assert!(
                built.is_ok_and(|status| status.success()),
                "rustc cannot build {name}"
            );
        }
        fs::read(program).ok()
    }

    /// Where run dirs are made.
    pub(crate) fn run_base(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Asserts that a machine which has ended left nothing.
    pub(crate) fn assert_nothing_left(&self, pids: &[i32]) {
        assert_eq!(
            fs::read_dir(self.run_base()).unwrap().count(),
            0,
            "a run dir is left"
        );
        for pid in pids {
            assert!(
                !Path::new(&format!("/proc/{pid}")).exists(),
                "process {pid} is left"
            );
        }
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// Unpacks the kernel package once for all tests.
fn unpack(deb: &Path) -> Result<PathBuf, String> {
    let name = deb.file_stem().ok_or("the kernel package has no name")?;
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm-kernel");
    fs::create_dir_all(&base).map_err(|error| error.to_string())?;
    let lock = fs::File::create(base.join("lock")).map_err(|error| error.to_string())?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| error.to_string())?;
    let place = base.join(name);
    if !place.exists() {
        let aside = base.join("unpacking");
        let _ = fs::remove_dir_all(&aside);
        let status = Command::new("dpkg-deb")
            .arg("-x")
            .arg(deb)
            .arg(&aside)
            .status();
        match status {
            Ok(status) if status.success() => {}
            other => {
                return Err(format!(
                    "dpkg-deb cannot unpack {}: {other:?}",
                    deb.display()
                ));
            }
        }
        fs::rename(&aside, &place).map_err(|error| error.to_string())?;
    }
    Ok(place)
}

fn only_child(dir: &Path, prefix: &str) -> Option<PathBuf> {
    let mut found = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    found.find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    })
}

/// A cpio archive in the format that kernels take (`newc`, `Documentation/driver-api/early-userspace/buffer-format.rst`).
#[derive(Default)]
pub(crate) struct Cpio(Vec<u8>, u32);

impl Cpio {
    pub(crate) fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.1 += 1;
        let (ino, size, name_size) = (self.1, data.len(), name.len() + 1);
        let header = format!(
            "070701{ino:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}",
            0, 1
        );
        self.0.extend(header.as_bytes());
        self.0.extend(name.as_bytes());
        self.0.push(0);
        self.pad();
        self.0.extend(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.0
    }
}

/// What a well-behaved guest says, as bytes: greeting, configuration read, started; then these streams; then its exit.
pub(crate) struct Words(Mux);

impl Words {
    pub(crate) fn new() -> Self {
        Self(Mux::new(mux::Role::Guest, mux::Limits::default()))
    }

    pub(crate) fn message(mut self, message: &GuestMessage) -> Self {
        self.0.send_control(&message.encode().unwrap()).unwrap();
        self
    }

    pub(crate) fn hello(self) -> Self {
        self.message(&GuestMessage::Hello(Hello::new(Vec::new(), None)))
    }

    pub(crate) fn started(self) -> Self {
        self.hello()
            .message(&GuestMessage::ConfigAck)
            .message(&GuestMessage::Started {
                pid: 2,
                unix_ns: 1,
                uptime_ns: 2,
            })
    }

    pub(crate) fn stream(mut self, id: StreamId, bytes: &[u8]) -> Self {
        assert_eq!(self.0.write(id, bytes).unwrap(), bytes.len());
        self.0.end(id);
        self
    }

    /// Everything so far; what is said next comes after it.
    pub(crate) fn flush(mut self) -> (Vec<u8>, Self) {
        let mut bytes = Vec::new();
        while !self.0.output().is_empty() {
            let output = self.0.output().to_vec();
            self.0.written(output.len());
            bytes.extend(output);
        }
        (bytes, self)
    }

    pub(crate) fn exit(self, code: u8) -> Vec<u8> {
        let (mut bytes, rest) = self.flush();
        let record = ExitRecord {
            status: ExitStatus::Exited { code },
            oom_killed: false,
            finished_unix_ns: 3,
        };
        bytes.extend(rest.message(&GuestMessage::Exit(record)).flush().0);
        bytes
    }
}

/// What a machine did until its end.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) events: Vec<AgentEvent>,
    pub(crate) error: Option<AgentError>,
    pub(crate) end: MachineEnd,
    pub(crate) pids: Vec<i32>,
}

impl Run {
    pub(crate) fn exit_code(&self) -> Option<u8> {
        self.events.iter().find_map(|event| match event {
            AgentEvent::Exited(record) => Some(record.exit_code()),
            _ => None,
        })
    }

    pub(crate) fn console(&self) -> String {
        self.end.console.join("\n")
    }
}

/// One turn of an owner's loop. `on_event` may act on the machine.
pub(crate) fn drive(
    machine: Machine,
    on_event: impl FnMut(&AgentEvent, &mut Agent, &mut Machine),
) -> Run {
    drive_at_most(machine, LIMIT, on_event)
}

/// The same with a limit of its own, after which the machine is killed.
pub(crate) fn drive_at_most(
    mut machine: Machine,
    limit: Duration,
    mut on_event: impl FnMut(&AgentEvent, &mut Agent, &mut Machine),
) -> Run {
    let mut agent = Agent::new(machine.take_channel().unwrap()).unwrap();
    let (mut stdout, mut stderr, mut events) = (Vec::new(), Vec::new(), Vec::new());
    let pids: Vec<i32> = machine.pids().into_iter().map(|(_, pid)| pid).collect();
    let mut error = None;
    let deadline = Instant::now() + limit;
    loop {
        let state = machine.pump();
        if error.is_none() {
            error = agent.pump(Some(1)).err();
        }
        let count = take(agent.stdout(), &mut stdout);
        agent.consume_stdout(count);
        let count = take(agent.stderr(), &mut stderr);
        agent.consume_stderr(count);
        while error.is_none() {
            match agent.next_event() {
                Ok(Some(event)) => {
                    match &event {
                        AgentEvent::Configured => machine.wipe_initrd().unwrap(),
                        AgentEvent::Exited(_) => agent.acknowledge_exit().unwrap(),
                        _ => {}
                    }
                    on_event(&event, &mut agent, &mut machine);
                    events.push(event);
                }
                Ok(None) => break,
                Err(broken) => error = Some(broken),
            }
        }
        if state == MachineState::Ended || error.is_some() || Instant::now() > deadline {
            let end = machine.finish();
            return Run {
                stdout,
                stderr,
                events,
                error,
                end,
                pids,
            };
        }
        let mut fds = Vec::new();
        machine.poll_fds(&mut fds);
        fds.extend(agent.poll_fd());
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        let _ = poll(&mut fds, Some(&timeout));
        debug_assert!(fds.iter().all(|fd| !fd.revents().contains(PollFlags::NVAL)));
    }
}

fn take(incoming: Incoming<'_>, into: &mut Vec<u8>) -> usize {
    match incoming {
        Incoming::Bytes(bytes) => {
            into.extend_from_slice(bytes);
            bytes.len()
        }
        Incoming::Pending | Incoming::Ended => 0,
    }
}
