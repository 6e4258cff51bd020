//! What `run` is asked for, and what it gives.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use firebuild_oci::{ImageConfig, Reference};
use firebuild_store::Store;
use firebuild_vm::spec::{Accel, DiskSettings, Hardware, MachineType, PortPublish};

use super::access::Access;
use super::env::Assignment;
use super::health::HealthFlags;
use super::init::Init;
use super::metadata::Mmds;
use super::names::Names;
use crate::error::Cause;
use crate::instance::{InstanceId, RestartPolicy};
use crate::vmm;

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image.
    pub image: Reference,
    /// `--entrypoint`: a program instead of the image's; empty for none.
    pub entrypoint: Option<String>,
    /// What stands after the image.
    pub arguments: Vec<String>,
    /// Variables in their order: those of files first, then those of flags.
    pub env: Vec<Assignment>,
    /// Give login shells the variables of `env`, too.
    pub run_env: bool,
    /// A user instead of the image's.
    pub user: Option<String>,
    /// A working directory instead of the image's.
    pub workdir: Option<String>,
    /// A host name; by default the short id.
    pub hostname: Option<String>,
    /// A name; by default a random one.
    pub name: Option<String>,
    /// Names that the guest resolves.
    pub names: Names,
    /// Who may log in.
    pub access: Access,
    /// Who is process 1 of the guest.
    pub init: Init,
    /// The metadata service of the guest; none without it.
    pub mmds: Option<Mmds>,
    /// Published ports.
    pub publish: Vec<PortPublish>,
    /// How the guest reaches the network.
    pub network: NetworkMode,
    /// Network namespace of the host in which the bridge is, by its path; for [`NetworkMode::Bridge`].
    pub netns: Option<PathBuf>,
    /// The address of the guest; for [`NetworkMode::Bridge`].
    pub ip_address: Option<Ipv4Addr>,
    /// Remove the record at the end.
    pub remove: bool,
    /// Give the application a terminal.
    pub terminal: bool,
    /// Carry standard input.
    pub stdin: bool,
    /// A signal instead of the image's STOPSIGNAL.
    pub stop_signal: Option<String>,
    /// Seconds from the stop signal to SIGKILL; below 0 there is no end.
    pub stop_timeout: Option<i64>,
    /// When it begins again after its end.
    pub restart: RestartPolicy,
    /// How to see whether the application is well.
    pub health: HealthFlags,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Size of the scratch disk in bytes.
    pub disk_bytes: u64,
    /// The id of a kernel; by default the newest that fits.
    pub kernel: Option<String>,
    /// A directory in which the kernel's id is looked for first.
    pub kernel_root: Option<PathBuf>,
    /// Further arguments for the kernel.
    pub kernel_args: Vec<String>,
    /// Which processor emulation.
    pub accel: Accel,
    /// Which machine model.
    pub machine: MachineType,
    /// Which VMM, and how it is held.
    pub vmm: vmm::Wanted,
    /// What the machine has beyond processors, memory and disks.
    pub hardware: Hardware,
    /// How the work of the image's disk is done.
    pub root_disk: DiskSettings,
    /// How the work of the scratch disk is done.
    pub scratch_disk: DiskSettings,
    /// Tell the steps of the guest init too.
    pub verbose: bool,
}

impl Request {
    /// A request with Docker's and the original's defaults.
    pub fn new(image: Reference) -> Self {
        Self {
            image,
            entrypoint: None,
            arguments: Vec::new(),
            env: Vec::new(),
            run_env: true,
            user: None,
            workdir: None,
            hostname: None,
            name: None,
            names: Names::default(),
            access: Access::default(),
            init: Init::Auto,
            mmds: Some(Mmds::default()),
            publish: Vec::new(),
            network: NetworkMode::Auto,
            netns: None,
            ip_address: None,
            remove: false,
            terminal: false,
            stdin: false,
            stop_signal: None,
            stop_timeout: None,
            restart: RestartPolicy::No,
            health: HealthFlags::default(),
            cpus: 1,
            memory_mib: 512,
            disk_bytes: 10 << 30,
            kernel: None,
            kernel_root: None,
            kernel_args: Vec::new(),
            accel: Accel::Auto,
            machine: MachineType::Auto,
            vmm: vmm::Wanted::default(),
            hardware: Hardware::default(),
            root_disk: DiskSettings::default(),
            scratch_disk: DiskSettings::default(),
            verbose: false,
        }
    }
}

/// How a guest reaches the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// User-mode networking where the backend has it, else the bridge.
    #[default]
    Auto,
    /// User-mode networking: no root, no set-up.
    User,
    /// A tap on the host's private bridge; needs root.
    Bridge,
    /// Its loopback only.
    None,
}

/// An image as a disk.
#[derive(Debug, Clone)]
pub struct ImageDisk {
    /// The ext4 file, shared and never written.
    pub path: PathBuf,
    /// How to run it.
    pub config: ImageConfig,
    /// Its name, as people write it.
    pub name: String,
    /// Digest of its manifest.
    pub digest: Option<String>,
    /// Keeps the file from being pruned until the instance's record names it.
    pub held: Option<Arc<Store>>,
}

/// Gives the disk of an image, at least so many bytes large when a size is given.
pub type DiskFor<'a> = &'a mut dyn FnMut(&Reference, Option<u64>) -> Result<ImageDisk, Cause>;

/// How a run in the foreground ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The instance; its record is gone with `--rm`.
    pub id: InstanceId,
    /// The code to end with: the application's own, 125 to 127, 128 + signal.
    pub exit_code: u8,
    /// What went wrong, where it was not the application that failed.
    pub error: Option<String>,
}

/// An instance that runs by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detached {
    /// Its id.
    pub id: InstanceId,
    /// Its name.
    pub name: String,
}
