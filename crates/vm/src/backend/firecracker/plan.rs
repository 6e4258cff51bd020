//! A Firecracker, what it sees, and what it is told.
//!
//! | | with the jailer | root without it | an ordinary user |
//! |---|---|---|---|
//! | runs in | the root of its jail | `vmm/` of the run dir | `vmm/` of the run dir |
//! | runs as | a user of its own | a user of its own | the caller |
//! | kernel, disks | seen there | seen there | by their paths |
//! | initrd | a file in memory there | a file in memory there | memory, `/proc/self/fd/N` |
//! | dies with its owner | by its tether | by `PR_SET_PDEATHSIG` | by `PR_SET_PDEATHSIG` |

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::super::PlanError;
use super::api::{
    ActionType, BootSource, Drive, EntropyDevice, InstanceActionInfo, MachineConfiguration,
    MetricsDestination, MmdsConfig, NetworkInterface, SerialDevice, Vsock,
};
use super::jailer::{Layout, MEMORY};
use super::version::Version;
use super::{API_SOCKET, CHANNEL_SOCKET, Firecracker, GUEST_CID, INTERFACE, NAME, VSOCK_SOCKET};
use crate::check::{CheckedAccel, CheckedSpec};
use crate::cmdline;
use crate::hardware::HugePages;
use crate::places::{self, Owner, Place};
use crate::plan::{
    Access, CHANNEL_LISTENER, CONSOLE_HOST, Descriptor, FIRST_FD, INITRD, InheritedFd, LaunchPlan,
    METRICS_HOST, PLAN_FORMAT, PlannedApi, PlannedProcess, PlannedRequest, ProcessLog, Role, RunAs,
    plain_environment,
};
use crate::remainder::Remainder;
use crate::run_dir::{MAX_SOCKET_PATH_BYTES, RunDir};
use crate::spec::{BridgeNetwork, Network, VmSpec};

/// The directory in a run dir in which a Firecracker without a jail runs.
const HOME: &str = "vmm";
/// The named pipe of its log.
const LOG: &str = "log";
/// The named pipe of the guest's console.
const CONSOLE: &str = "console";
/// The named pipe of its metrics.
const METRICS: &str = "metrics";
/// The first version that is told the largest packet, and limits the serial port.
const TOLD_MTU_AND_SERIAL_LIMIT: Version = Version::new(1, 16, 0);
/// What Firecracker's API and its metadata take unless it is told otherwise (`HTTP_MAX_PAYLOAD_SIZE`).
const USUAL_DOCUMENT_BYTES: usize = 51_200;
/// What Firecracker adds to the command line: that there is no PCI bus, and where each device is (`builder.rs`).
const ADDED_ARGS: &str = " pci=off";
const ADDED_BY_DEVICE: &str = " virtio_mmio.device=4K@0xc0001000:10";

pub(super) fn plan(
    firecracker: &Firecracker,
    checked: &CheckedSpec,
    dir: &RunDir,
) -> Result<LaunchPlan, PlanError> {
    let spec = checked.spec();
    let kernel_args = kernel_args(spec)?;
    let mut plan = LaunchPlan {
        format: PLAN_FORMAT,
        backend: NAME.to_owned(),
        id: spec.id.clone(),
        console: spec.console.clone(),
        notices: checked.notices().to_vec(),
        ..LaunchPlan::default()
    };
    let home = Home::new(firecracker, dir)?;
    plan.places.clone_from(&home.places);
    let files = Files::of(spec, &home, &mut plan);
    plan.remainders = places::remainders(&plan.places);
    plan.remainders.extend(home.remainders.iter().cloned());
    let owner = home.owner;
    let at = |name: &str| home.path.join(name);
    plan.descriptors.extend([
        // No socket: Firecracker writes a character at a time without waiting, and some two hundred of them fill a socket's
        // buffer. A pipe holds 65,536.
        Descriptor::NamedPipe {
            read: CONSOLE_HOST.to_owned(),
            write: "console.vmm".to_owned(),
            path: at(CONSOLE),
            owner,
        },
        Descriptor::NamedPipe {
            read: "log.read".to_owned(),
            write: "log".to_owned(),
            path: at(LOG),
            owner,
        },
        Descriptor::Listener {
            name: CHANNEL_LISTENER.to_owned(),
            path: at(CHANNEL_SOCKET),
            owner,
        },
    ]);
    if let Some(metrics) = &spec.hardware.metrics {
        plan.metrics = Some(metrics.metrics_path.clone());
        plan.descriptors.push(Descriptor::NamedPipe {
            read: METRICS_HOST.to_owned(),
            write: "metrics.vmm".to_owned(),
            path: at(METRICS),
            owner,
        });
    }
    let newer = firecracker.version >= TOLD_MTU_AND_SERIAL_LIMIT;
    if !newer {
        plan.console_limit = spec.hardware.serial_limit;
    }
    let mut process = home.process(firecracker, checked, tap(spec))?;
    process.args.extend(firecracker_args(spec));
    process.fds = files.fds.clone();
    plan.processes.push(process);
    plan.api = Some(PlannedApi {
        socket: at(API_SOCKET),
        requests: requests(spec, &files, kernel_args, newer),
    });
    Ok(plan)
}

/// The directory in which Firecracker runs.
struct Home {
    /// As the host sees it.
    path: PathBuf,
    /// Whose it is, if the machine has a user of its own.
    owner: Option<Owner>,
    places: Vec<Place>,
    /// What is left when its mounts are gone.
    remainders: Vec<Remainder>,
    jail: Option<Layout>,
}

impl Home {
    fn new(firecracker: &Firecracker, dir: &RunDir) -> Result<Self, PlanError> {
        let owner = dir.user().map(|(uid, gid)| Owner { uid, gid });
        let Some(jail) = &firecracker.jail else {
            return Self::without_jail(dir, owner);
        };
        let owner = jail.user.or(owner);
        let Some(owner) = owner.filter(|owner| owner.uid != 0 && owner.gid != 0) else {
            return Err(PlanError::Jail(match owner {
                None => "the jailer needs root; run as root, or give --jailer=off".to_owned(),
                Some(_) => {
                    "a machine does not run as root: give --jailer-uid and --jailer-gid other numbers than 0".to_owned()
                }
            }));
        };
        let id = dir.path().file_name().unwrap_or_default().to_string_lossy();
        let layout = Layout::new(jail, &firecracker.program, &id)?;
        Ok(Self {
            path: layout.root.clone(),
            owner: Some(owner),
            places: layout.places(),
            remainders: layout.remainders(jail)?,
            jail: Some(layout),
        })
    }

    fn without_jail(dir: &RunDir, owner: Option<Owner>) -> Result<Self, PlanError> {
        let path = dir.path().join(HOME);
        for name in [API_SOCKET, VSOCK_SOCKET, CHANNEL_SOCKET] {
            let socket = path.join(name);
            let bytes = socket.as_os_str().as_bytes().len();
            if bytes > MAX_SOCKET_PATH_BYTES {
                return Err(PlanError::PathTooLong {
                    what: "socket",
                    path: socket,
                    bytes,
                    most: MAX_SOCKET_PATH_BYTES,
                    remedy: "set XDG_RUNTIME_DIR to a shorter directory".to_owned(),
                });
            }
        }
        let mut places = vec![Place::Directory {
            path: path.clone(),
            mode: 0o700,
            owner,
        }];
        if owner.is_some() {
            places.push(Place::Memory {
                path: path.join(MEMORY),
            });
        }
        Ok(Self {
            path,
            owner,
            places,
            remainders: Vec::new(),
            jail: None,
        })
    }

    fn process(
        &self,
        firecracker: &Firecracker,
        checked: &CheckedSpec,
        tap: Option<&BridgeNetwork>,
    ) -> Result<PlannedProcess, PlanError> {
        let netns = tap.and_then(|tap| tap.netns.as_deref());
        let mut process = PlannedProcess {
            role: Role::Vmm,
            program: firecracker.program.clone(),
            args: Vec::new(),
            env: plain_environment(),
            cwd: PathBuf::from("/"),
            run_as: None,
            bind_low_ports: false,
            fds: Vec::new(),
            stdout: Some("console.vmm".to_owned()),
            log: Some(ProcessLog {
                read: "log.read".to_owned(),
                write: "log".to_owned(),
            }),
            tethered: false,
            ready: None,
        };
        if let (Some(jail), Some(layout), Some(owner)) = (&firecracker.jail, &self.jail, self.owner)
        {
            process.program.clone_from(&jail.program);
            process.args = layout.args(jail, &firecracker.program, owner, netns);
            process.tethered = true;
            return Ok(process);
        }
        if let Some(netns) = netns {
            return Err(PlanError::Jail(format!(
                "only the jailer enters the network namespace {}; leave --jailer=off out",
                netns.display()
            )));
        }
        process.args = vec!["--id".to_owned(), checked.spec().id.clone()];
        process.cwd.clone_from(&self.path);
        let groups = match checked.accel() {
            CheckedAccel::Kvm { group } => group.iter().copied().collect(),
            CheckedAccel::Tcg => Vec::new(),
        };
        process.run_as = self
            .owner
            .map(|Owner { uid, gid }| RunAs { uid, gid, groups });
        Ok(process)
    }
}

/// The kernel, the initrd and the disks, by the names by which Firecracker knows them.
struct Files {
    kernel: String,
    initrd: String,
    disks: Vec<String>,
    fds: Vec<InheritedFd>,
}

impl Files {
    fn of(spec: &VmSpec, home: &Home, plan: &mut LaunchPlan) -> Self {
        let disk_name = |index| format!("disk{index}");
        let Some(owner) = home.owner else {
            plan.descriptors.push(Descriptor::Memory {
                name: INITRD.to_owned(),
                parts: spec.initrd.clone(),
            });
            let shown = |path: &Path| path.display().to_string();
            return Self {
                kernel: shown(&spec.kernel.path),
                initrd: format!("/proc/self/fd/{FIRST_FD}"),
                disks: spec.disks.iter().map(|disk| shown(&disk.path)).collect(),
                fds: vec![InheritedFd {
                    number: FIRST_FD,
                    name: INITRD.to_owned(),
                }],
            };
        };
        let mut see = |name: &str, source: &Path, access| {
            plan.places.push(Place::Seen {
                path: home.path.join(name),
                source: source.to_owned(),
                owner,
                access,
            });
            name.to_owned()
        };
        let kernel = see("kernel", &spec.kernel.path, Access::Read);
        let disks = spec.disks.iter().enumerate().map(|(index, disk)| {
            let access = if disk.read_only {
                Access::Read
            } else {
                Access::ReadWrite
            };
            see(&disk_name(index), &disk.path, access)
        });
        let disks = disks.collect();
        let initrd = format!("{MEMORY}/{INITRD}");
        plan.descriptors.push(Descriptor::File {
            name: INITRD.to_owned(),
            path: home.path.join(&initrd),
            parts: spec.initrd.clone(),
            owner: Some(owner),
        });
        Self {
            kernel,
            initrd,
            disks,
            fds: Vec::new(),
        }
    }
}

fn tap(spec: &VmSpec) -> Option<&BridgeNetwork> {
    match &spec.network {
        Network::Bridge(tap) => Some(tap),
        Network::None | Network::User(_) => None,
    }
}

fn kernel_args(spec: &VmSpec) -> Result<String, PlanError> {
    let mut defaults = vec![
        "console=ttyS0",
        "quiet",
        "panic=-1",
        // The keyboard controller is the only way to end a guest: Firecracker takes it as its own end.
        "reboot=k",
        "random.trust_cpu=on",
        "cryptomgr.notests",
        // There is one serial port, and a keyboard that does nothing else; looking for more takes time.
        "8250.nr_uarts=1",
        "i8042.noaux",
        "i8042.nomux",
        "i8042.dumbkbd",
        "swiotlb=noforce",
    ];
    if spec.kernel.builtin {
        defaults.push("nomodule");
    }
    // Disks, network, vsock, entropy, balloon.
    let devices = spec.disks.len() + 4;
    let added = ADDED_ARGS.len() + devices * ADDED_BY_DEVICE.len();
    cmdline::merge_within(
        &defaults,
        &spec.kernel_args,
        cmdline::MAX_BYTES.saturating_sub(added),
    )
    .map_err(PlanError::Cmdline)
}

/// What the program is told on its command line. Its seccomp filter is never switched off.
fn firecracker_args(spec: &VmSpec) -> Vec<String> {
    let words = [
        "--api-sock",
        API_SOCKET,
        "--log-path",
        LOG,
        "--level",
        "Warning",
        "--show-level",
    ];
    let mut args: Vec<String> = words.map(str::to_owned).into();
    let document = spec
        .mmds
        .as_ref()
        .map(|mmds| mmds.document.to_string().len());
    if let Some(bytes) = document.filter(|bytes| *bytes > USUAL_DOCUMENT_BYTES / 2) {
        // Room for it, and for as much again by `mmds put`.
        let room = (2 * bytes).to_string();
        for name in ["--http-api-max-payload-size", "--mmds-size-limit"] {
            args.extend([name.to_owned(), room.clone()]);
        }
    }
    args
}

/// What it is told. A version that is not `newer` knows no limit of the serial port, which the host keeps then, and tells the
/// guest no MTU, which its init sets in any case.
fn requests(spec: &VmSpec, files: &Files, boot_args: String, newer: bool) -> Vec<PlannedRequest> {
    let hardware = &spec.hardware;
    let mut requests = Requests(Vec::new());
    if let Some(metrics) = &hardware.metrics {
        requests.put(
            "/metrics",
            &MetricsDestination {
                metrics_path: METRICS.to_owned(),
                emit_id: metrics.emit_id,
                properties: metrics.properties.clone(),
            },
        );
    }
    if newer && hardware.serial_limit.is_some() {
        let rate_limiter = hardware.serial_limit;
        requests.put("/serial", &SerialDevice { rate_limiter });
    }
    requests.put(
        "/machine-config",
        &MachineConfiguration {
            vcpu_count: spec.cpus,
            mem_size_mib: spec.memory_mib,
            smt: hardware.smt,
            cpu_template: hardware.cpu_template,
            huge_pages: Some(hardware.huge_pages).filter(|pages| *pages != HugePages::None),
        },
    );
    if let Some(config) = &hardware.cpu_config {
        requests.put("/cpu-config", config);
    }
    requests.put(
        "/boot-source",
        &BootSource {
            kernel_image_path: files.kernel.clone(),
            initrd_path: files.initrd.clone(),
            boot_args,
        },
    );
    for (index, (disk, path)) in spec.disks.iter().zip(&files.disks).enumerate() {
        let drive_id = format!("disk{index}");
        let settings = &disk.settings;
        requests.put(
            &format!("/drives/{drive_id}"),
            &Drive {
                drive_id,
                path_on_host: path.clone(),
                is_root_device: false,
                is_read_only: disk.read_only,
                cache_type: settings.cache,
                io_engine: settings.io_engine,
                rate_limiter: settings.rate_limiter.clone(),
            },
        );
    }
    if let Some(tap) = tap(spec) {
        requests.network(spec, tap, hardware.mtu.filter(|_| newer));
    }
    requests.put(
        "/vsock",
        &Vsock {
            guest_cid: GUEST_CID,
            uds_path: VSOCK_SOCKET.to_owned(),
        },
    );
    requests.put(
        "/entropy",
        &EntropyDevice {
            rate_limiter: hardware.entropy_limit.clone(),
        },
    );
    if let Some(balloon) = &hardware.balloon {
        requests.put("/balloon", balloon);
    }
    requests.put(
        "/actions",
        &InstanceActionInfo {
            action_type: ActionType::InstanceStart,
        },
    );
    requests.0
}

struct Requests(Vec<PlannedRequest>);

impl Requests {
    fn put<T: Serialize>(&mut self, path: &str, value: &T) {
        self.0.push(PlannedRequest {
            method: "PUT".to_owned(),
            path: path.to_owned(),
            body: body(value),
        });
    }

    /// The interface, and the metadata that the guest reaches through it.
    fn network(&mut self, spec: &VmSpec, tap: &BridgeNetwork, mtu: Option<u16>) {
        let limits = &spec.hardware.interface;
        self.put(
            &format!("/network-interfaces/{INTERFACE}"),
            &NetworkInterface {
                iface_id: INTERFACE.to_owned(),
                host_dev_name: tap.tap.clone(),
                guest_mac: tap.mac.to_string(),
                mtu,
                rx_rate_limiter: limits.rx.clone(),
                tx_rate_limiter: limits.tx.clone(),
            },
        );
        if let Some(mmds) = &spec.mmds {
            self.put(
                "/mmds/config",
                &MmdsConfig {
                    version: mmds.version,
                    network_interfaces: vec![INTERFACE.to_owned()],
                    imds_compat: mmds.imds_compat,
                },
            );
            self.put("/mmds", &mmds.document);
        }
    }
}

/// The body of a request.
pub(super) fn body<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("a request holds only what JSON can say")
}
