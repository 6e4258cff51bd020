//! What the tests share.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firebuild_vm::backend::firecracker::{Cgroup, CgroupHost, Firecracker, Jail, version_of};
use firebuild_vm::capability::KvmState;
use firebuild_vm::hardware::{DiskSettings, Hardware};
use firebuild_vm::spec::{
    Accel, ConsoleLog, Disk, InitrdPart, Kernel, KernelFormat, MachineType, Network, PrivateBytes,
    SPEC_FORMAT,
};
use firebuild_vm::{Backend, LaunchPlan, Machine, RunDir, VmSpec, launch};
use fs_err as fs;

/// Nothing that these tests wait for takes longer, whatever else the machine does.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Firecracker, its jailer, and files for machines.
pub(crate) struct Lab {
    pub(crate) firecracker: PathBuf,
    pub(crate) jailer: PathBuf,
    kernel: PathBuf,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn named(test: &str, variable: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).filter(|value| !value.is_empty());
    if named.is_none() {
        eprintln!("SKIP {test}: {variable} names no file");
    }
    named.map(PathBuf::from)
}

impl Lab {
    /// Everything, or a loud skip.
    pub(crate) fn open(test: &str) -> Option<Self> {
        let firecracker = named(test, "FIREBUILD_FIRECRACKER")?;
        let jailer = named(test, "FIREBUILD_JAILER")?;
        let kernel = named(test, "FIREBUILD_FIRECRACKER_KERNEL")?;
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP {test}: needs root");
            return None;
        }
        if !Path::new("/dev/kvm").exists() {
            eprintln!("SKIP {test}: there is no /dev/kvm");
            return None;
        }
        let whole = |path: PathBuf| fs::canonicalize(path).unwrap();
        Some(Self {
            firecracker: whole(firecracker),
            jailer: whole(jailer),
            kernel: whole(kernel),
            dir: tempfile::Builder::new().prefix("fbfc").tempdir().unwrap(),
        })
    }

    /// Firecracker with a jail below the directory of this test.
    pub(crate) fn backend(&self) -> Firecracker {
        Firecracker {
            program: self.firecracker.clone(),
            version: version_of(&self.firecracker).unwrap(),
            jail: Some(Jail {
                program: self.jailer.clone(),
                chroot_base: self.dir.path().join("jails"),
                user: None,
                cgroup: Cgroup {
                    host: CgroupHost::of_mounts(&fs::read_to_string("/proc/mounts").unwrap(), None),
                    ..Cgroup::default()
                },
                max_file_bytes: None,
                max_open_files: None,
            }),
            // What it is good for is not asked here.
            kvm: KvmState::Works { group: None },
        }
    }

    /// A machine with two disks, whose guest has an init that does nothing.
    pub(crate) fn spec(&self) -> VmSpec {
        let disk = |name: &str, read_only| {
            let path = self.dir.path().join(name);
            fs::write(&path, vec![0; 1 << 20]).unwrap();
            Disk {
                path,
                read_only,
                serial: name.to_owned(),
                settings: DiskSettings::default(),
            }
        };
        let more = std::env::var("FIREBUILD_FIRECRACKER_KERNEL_ARGS").unwrap_or_default();
        VmSpec {
            format: SPEC_FORMAT,
            id: format!("{:012x}-test", rustix::process::getpid().as_raw_nonzero()),
            cpus: 1,
            memory_mib: 128,
            kernel: Kernel {
                path: self.kernel.clone(),
                format: KernelFormat::Elf,
                builtin: true,
            },
            initrd: vec![InitrdPart::Private {
                name: "guest".to_owned(),
                contents: PrivateBytes::new(initrd()),
            }],
            kernel_args: more.split_whitespace().map(str::to_owned).collect(),
            disks: vec![disk("image", true), disk("scratch", false)],
            network: Network::None,
            console: ConsoleLog::default(),
            accel: Accel::Auto,
            machine: MachineType::Auto,
            hardware: Hardware::default(),
            mmds: None,
        }
    }

    pub(crate) fn run_dir(&self, id: &str) -> RunDir {
        RunDir::create(&self.dir.path().join("run"), id).unwrap()
    }

    /// The plan of a machine, in a run dir that it has.
    pub(crate) fn plan(&self, spec: VmSpec, backend: &Firecracker) -> (LaunchPlan, RunDir) {
        let checked = spec.check(&backend.capabilities()).unwrap();
        let dir = self.run_dir(&checked.spec().id);
        (backend.plan(&checked, &dir).unwrap(), dir)
    }

    pub(crate) fn start(&self, spec: VmSpec, backend: &Firecracker) -> Machine {
        let (plan, dir) = self.plan(spec, backend);
        launch(&plan, dir).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Proves that nothing is left of any machine.
    pub(crate) fn assert_clean(&self) {
        for (name, most) in [("jails", 0), ("run", 0)] {
            let path = self.dir.path().join(name);
            let left: Vec<_> = fs::read_dir(&path)
                .into_iter()
                .flatten()
                .map(|entry| entry.unwrap().path())
                .collect();
            assert!(left.len() <= most, "left: {left:?}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = self.dir.path().to_str().unwrap();
        assert!(!mounts.contains(ours), "{mounts}");
    }
}

/// The smallest archive that a kernel takes for one with an init.
fn initrd() -> Vec<u8> {
    let mut archive = Vec::new();
    let mut entry = |name: &str, mode: u32, data: &[u8]| {
        let fields = [
            1,
            mode,
            0,
            0,
            1,
            0,
            data.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        archive.extend_from_slice(b"070701");
        for field in fields {
            archive.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        for bytes in [[name.as_bytes(), b"\0"].concat(), data.to_vec()] {
            archive.extend_from_slice(&bytes);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    };
    // An ELF program that asks to end; it does not get to run where user space does not.
    entry("init", 0o100_755, include_bytes!("init.elf"));
    entry("TRAILER!!!", 0, &[]);
    archive
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// Waits for something.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
