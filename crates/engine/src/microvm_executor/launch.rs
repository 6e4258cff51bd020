//! From options to a machine that boots.

use std::path::{Path, PathBuf};

use firebuild_build::exec::{ExecError, ExecErrorKind};
use firebuild_guest_proto::config::DiskRef;
use firebuild_guest_proto::{Channel, MODULES_DIR, RootLayout, RunConfig};
use firebuild_rootfs::ext4;
use firebuild_vm::net::guest::{self, guest_network};
use firebuild_vm::net::host::{self as host_network, HostNetwork};
use firebuild_vm::run_dir::{quiesce, reclaim};
use firebuild_vm::spec::{
    ConsoleLog, Disk, DiskSettings, Hardware, Kernel as SpecKernel, KernelFormat, Network,
    ROOT_DISK_SERIAL, SCRATCH_DISK_SERIAL, SPEC_FORMAT, UserNetwork, VmSpec,
};
use firebuild_vm::{Agent, Machine, RunDir, launch};

use super::{MicroVmOptions, host};
use crate::instance::InstanceId;
use crate::kernel::{self, Presence, Purpose};
use crate::monitor::launch::{plan, qemu, refreshed};
use crate::monitor::{initrd, order::ModuleFile};
use crate::paths::Paths;
use crate::sparse;

/// Run dirs of build VMs are apart from those of instances, so that either is cleaned up by whom it concerns.
pub(crate) const BUILD_RUN_DIRS: &str = "build";
/// The host name of the guest itself; each step has its own.
const HOSTNAME: &str = "build";

/// A machine to be launched.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) paths: Paths,
    pub(super) options: MicroVmOptions,
    /// The ext4 image that is attached read-only.
    pub(super) image: Option<PathBuf>,
    /// Where its scratch disk is made; the name is gone once the machine has it.
    pub(super) scratch: PathBuf,
    /// Whether it has a network.
    pub(super) network: bool,
}

/// A machine that boots, and the channel to it.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) machine: Machine,
    pub(super) agent: Agent,
    pub(super) notices: Vec<String>,
}

impl Wanted {
    /// Launches; to be called by the thread that lives as long as the machine.
    pub(super) fn launch(&self) -> Result<Launched, ExecError> {
        let failed = |error| host("cannot start a VM for the build", error);
        let options = &self.options;
        let kernel = kernel::select(
            &self.paths,
            options.kernel_root.as_deref(),
            options.kernel.as_deref(),
        )
        .map_err(|error| {
            host("no kernel for the build's VM", error).with_hint(
                "import one with 'firebuild kernel import', or build without --isolation=microvm",
            )
        })?;
        if kernel.presence(Purpose::Overlay) == Presence::Missing {
            let text = format!(
                "the kernel {} has no overlayfs, which steps in a VM need",
                kernel.id
            );
            return Err(ExecError::new(ExecErrorKind::Host, text)
                .with_hint("name another with --vmlinux-id"));
        }
        let mut purposes = vec![
            Purpose::Pci,
            Purpose::Disk,
            Purpose::Filesystem,
            Purpose::Console,
            Purpose::Channel,
            Purpose::Overlay,
        ];
        if self.network {
            purposes.push(Purpose::Network);
        }
        let modules: Vec<ModuleFile> = kernel
            .modules_for(&purposes)
            .into_iter()
            .map(|(module, path)| ModuleFile {
                name: module.file.clone(),
                path,
            })
            .collect();
        let guest = refreshed(&self.guest(&modules)).map_err(failed)?;
        let id = InstanceId::random().map_err(|error| host("cannot name a VM", error))?;
        let mut spec = self.spec(&kernel, &id);
        spec.initrd = initrd::parts(options.vminit, &modules, &guest).map_err(failed)?;

        let backend = qemu(options.accel, self.paths.state()).map_err(failed)?;
        let base = self.paths.runtime().join(BUILD_RUN_DIRS);
        sweep(&base);
        let dir = RunDir::create(&base, id.as_str())
            .map_err(|error| host("cannot make the run dir of a VM", error))?;
        let place = dir.path().to_owned();
        let (checked, plan) = plan(&backend, spec, &dir).map_err(failed)?;
        let launched = self
            .make_scratch(&id)
            .and_then(|()| launch(&plan, dir).map_err(failed_launch));
        // The machine has it open; nobody else needs it, and whatever ends the machine frees it.
        let _ = fs_err::remove_file(&self.scratch);
        let mut machine = match launched {
            Ok(machine) => machine,
            Err(error) => {
                let _ = reclaim(&place);
                return Err(error);
            }
        };
        let channel = machine
            .take_channel()
            .ok_or_else(|| std::io::ErrorKind::NotConnected.into());
        let agent = channel
            .and_then(Agent::new)
            .map_err(|error| host("cannot open the channel to the build's VM", error))?;
        let mut notices = plan.notices.clone();
        notices.extend(checked.notices().iter().cloned());
        notices.dedup();
        Ok(Launched {
            machine,
            agent,
            notices,
        })
    }

    fn guest(&self, modules: &[ModuleFile]) -> RunConfig {
        let serial = |name: &str| DiskRef::Serial(name.to_owned());
        let root = RootLayout::Steps {
            image: self.image.as_ref().map(|_| serial(ROOT_DISK_SERIAL)),
            scratch: serial(SCRATCH_DISK_SERIAL),
        };
        let argv = vec!["steps".to_owned()];
        let mut config = RunConfig::new(argv, HOSTNAME.to_owned(), root, Channel::virtio_serial());
        if self.network {
            config.interfaces = vec![guest_network(&HostNetwork::discover()).interface];
        }
        config.modules = modules
            .iter()
            .map(|module| format!("{MODULES_DIR}/{}", module.name))
            .collect();
        config
    }

    fn spec(&self, kernel: &kernel::Kernel, id: &InstanceId) -> VmSpec {
        let disk = |path: &Path, serial: &str, read_only| Disk {
            path: path.to_owned(),
            read_only,
            serial: serial.to_owned(),
            settings: DiskSettings::default(),
        };
        let mut disks = Vec::new();
        if let Some(image) = &self.image {
            disks.push(disk(image, ROOT_DISK_SERIAL, true));
        }
        disks.push(disk(&self.scratch, SCRATCH_DISK_SERIAL, false));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        VmSpec {
            format: SPEC_FORMAT,
            id: id.as_str().to_owned(),
            cpus: self
                .options
                .cpus
                .unwrap_or_else(|| u32::try_from(processors).unwrap_or(1)),
            memory_mib: self.options.memory_mib,
            kernel: SpecKernel {
                path: kernel.vmlinux(),
                format: if kernel.pvh {
                    KernelFormat::ElfPvh
                } else {
                    KernelFormat::Elf
                },
                builtin: false,
            },
            initrd: Vec::new(),
            kernel_args: self.options.kernel_args.clone(),
            disks,
            network: if self.network {
                Network::User(UserNetwork {
                    publish: Vec::new(),
                })
            } else {
                Network::None
            },
            console: ConsoleLog::default(),
            accel: self.options.accel,
            machine: firebuild_vm::spec::MachineType::Auto,
            hardware: Hardware::default(),
            mmds: None,
        }
    }

    fn make_scratch(&self, id: &InstanceId) -> Result<(), ExecError> {
        let failed = "cannot make the scratch disk of a VM";
        let file = sparse::create(&self.scratch).map_err(|error| host(failed, error))?;
        ext4::write_empty(
            &file,
            self.options.disk_bytes,
            "firebuild-build",
            id.as_str().as_bytes(),
        )
        .map(drop)
        .map_err(|error| host(failed, error))
    }
}

fn failed_launch(error: firebuild_vm::launch::LaunchError) -> ExecError {
    host("cannot start a VM for the build", error)
}

/// What `/etc/resolv.conf` of a step says: the resolver that a guest reaches.
pub(super) fn resolv_conf() -> Vec<u8> {
    let network = guest_network(&HostNetwork::discover());
    guest::resolv_conf(&network, &host_network::resolv_conf())
}

/// Removes the run dirs of builds that have died; their machines died with them.
fn sweep(base: &Path) {
    let Ok(_nobody_makes_one) = quiesce(base) else {
        return; // no build has had a VM since the boot
    };
    let Ok(entries) = fs_err::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        // One that lives is in use, which is an error, and stays.
        let _ = reclaim(&entry.path());
    }
}
