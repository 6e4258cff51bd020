//! A QEMU command line, and the descriptors it names.
//!
//! Devices are the same on both machine models: virtio over PCI (`docs/design/0002-qemu-machine.md`).
//!
//! | descriptor | reaches QEMU as |
//! |---|---|
//! | kernel | `-kernel /proc/self/fd/N` (QEMU opens it by name only) |
//! | initrd (memory) | `-initrd /proc/self/fd/N` |
//! | disks | `-add-fd`, `/dev/fdset/N` |
//! | channel, control, console | one end of a socket pair, `-chardev socket,fd=N` |
//! | network of passt | one end of a socket pair, `-netdev stream,addr.type=fd` |
//! | tap of a bridge | `-netdev tap,fd=N` |

use std::path::{Path, PathBuf};

use firebuild_guest_proto::{CHANNEL_PORT_NAME, MacAddress};
use firebuild_usernet::guard::FRAME_BUFFER_BYTES;
use firebuild_usernet::guest::{GUEST_MAC, MTU, passt_args};

use super::super::PlanError;
use super::{Qemu, hardware};
use crate::check::{CheckedAccel, CheckedSpec};
use crate::cmdline;
use crate::hardware::Hardware;
use crate::net::slirp;
use crate::plan::{
    Access, CHANNEL_HOST, CONSOLE_HOST, CONTROL_HOST, Descriptor, FIRST_FD, Guard, INITRD,
    InheritedFd, LaunchPlan, PLAN_FORMAT, PlannedMonitor, PlannedProcess, Role, RunAs,
    plain_environment,
};
use crate::spec::{BridgeNetwork, Disk, KernelFormat, MachineType, Network, UserNetwork};

/// Name of the launcher's end of the monitor by which QEMU is told what is no option.
const MONITOR_HOST: &str = "monitor.host";
/// First port that every user may listen on (`ip_unprivileged_port_start`, `ip-sysctl.rst`).
const FIRST_FREE_PORT: u16 = 1024;

pub(super) fn plan(
    qemu: &Qemu,
    checked: &CheckedSpec,
    dir: &crate::run_dir::RunDir,
) -> Result<LaunchPlan, PlanError> {
    let spec = checked.spec();
    let groups = match checked.accel() {
        CheckedAccel::Kvm { group } => group.iter().copied().collect(),
        CheckedAccel::Tcg => Vec::new(),
    };
    let run_as = dir.user().map(|(uid, gid)| RunAs { uid, gid, groups });
    let kernel_args = merged_kernel_args(checked)?;

    let mut vmm = Vmm::default();
    vmm.machine(checked);
    vmm.boot(&spec.kernel.path, spec, &kernel_args);
    vmm.monitor = hardware::commands(spec).map(|commands| PlannedMonitor {
        connection: MONITOR_HOST.to_owned(),
        commands,
    });
    vmm.host_links(spec);
    for (index, disk) in spec.disks.iter().enumerate() {
        vmm.disk(index, disk);
    }
    let mut processes = Vec::new();
    let mut ports = Vec::new();
    let mut low_ports = false;
    if let Network::Bridge(network) = &spec.network {
        vmm.network_by_tap(network, &spec.hardware);
    }
    if let Network::User(network) = &spec.network {
        ports.clone_from(&network.publish);
        low_ports = run_as.is_some() && ports.iter().any(|port| port.host_port < FIRST_FREE_PORT);
        match &qemu.passt {
            Some(passt) => {
                vmm.network_by_passt(&spec.hardware);
                processes.push(passt_process(
                    passt,
                    qemu,
                    network,
                    spec.hardware.mtu,
                    run_as.clone(),
                    low_ports,
                ));
                low_ports = false;
            }
            None => vmm.network_by_slirp(network, spec.hardware.mtu),
        }
    }
    processes.push(PlannedProcess {
        role: Role::Vmm,
        program: qemu.program.clone(),
        args: vmm.args,
        env: plain_environment(),
        cwd: PathBuf::from("/"),
        run_as,
        bind_low_ports: low_ports,
        fds: vmm.fds,
        stdout: None,
        log: None,
        tethered: false,
        ready: None,
    });
    Ok(LaunchPlan {
        format: PLAN_FORMAT,
        backend: "qemu".to_owned(),
        id: spec.id.clone(),
        ports,
        descriptors: vmm.descriptors,
        guards: vmm.guards,
        monitor: vmm.monitor,
        processes,
        console: spec.console.clone(),
        console_limit: spec.hardware.serial_limit,
        notices: checked.notices().to_vec(),
        ..LaunchPlan::default()
    })
}

fn merged_kernel_args(checked: &CheckedSpec) -> Result<String, PlanError> {
    let mut defaults = vec![
        "console=ttyS0",
        "quiet",
        "panic=-1",
        // A restart is how the guest ends (`-no-reboot`); each model has its fastest way to do it.
        if checked.machine() == MachineType::Microvm {
            "reboot=t"
        } else {
            "reboot=k"
        },
        "random.trust_cpu=on",
        "cryptomgr.notests",
    ];
    if checked.spec().kernel.builtin {
        defaults.push("nomodule");
    }
    if *checked.accel() == CheckedAccel::Tcg {
        defaults.push("no_timer_check");
        if checked.machine() == MachineType::Microvm {
            // Nothing on this model lets the kernel calibrate the TSC under TCG: it would wait for ever.
            defaults.extend(["tsc_early_khz=2000000", "lpj=4000000"]);
        }
    }
    cmdline::merge(&defaults, &checked.spec().kernel_args).map_err(PlanError::Cmdline)
}

fn passt_process(
    passt: &Path,
    qemu: &Qemu,
    network: &UserNetwork,
    mtu: Option<u16>,
    run_as: Option<RunAs>,
    bind_low_ports: bool,
) -> PlannedProcess {
    let (socket, ready) = (FIRST_FD, FIRST_FD + 1);
    let fd = |number, name: &str| InheritedFd {
        number,
        name: name.to_owned(),
    };
    PlannedProcess {
        role: Role::Network,
        program: passt.to_owned(),
        args: passt_args(
            &network.publish,
            &qemu.host,
            mtu.map_or(MTU, u32::from),
            socket,
            ready,
        ),
        env: plain_environment(),
        cwd: PathBuf::from("/"),
        run_as: run_as.map(|user| RunAs {
            groups: Vec::new(),
            ..user
        }),
        bind_low_ports,
        fds: vec![fd(socket, "network.passt"), fd(ready, "network.ready")],
        stdout: None,
        log: None,
        tethered: false,
        ready: Some("network.ready.read".to_owned()),
    }
}

/// The command line as it grows, with the descriptors it names.
#[derive(Default)]
struct Vmm {
    args: Vec<String>,
    fds: Vec<InheritedFd>,
    descriptors: Vec<Descriptor>,
    guards: Vec<Guard>,
    monitor: Option<PlannedMonitor>,
}

impl Vmm {
    fn arg(&mut self, words: &[&str]) {
        self.args.extend(words.iter().map(|&word| word.to_owned()));
    }

    /// Gives QEMU a descriptor; the number it gets.
    fn inherit(&mut self, name: &str) -> i32 {
        let taken = i32::try_from(self.fds.len()).expect("a plan has few descriptors");
        let number = FIRST_FD + taken;
        self.fds.push(InheritedFd {
            number,
            name: name.to_owned(),
        });
        number
    }

    fn open(&mut self, name: &str, path: &Path, access: Access) -> i32 {
        self.descriptors.push(Descriptor::Open {
            name: name.to_owned(),
            path: path.to_owned(),
            access,
        });
        self.inherit(name)
    }

    fn pair(&mut self, host: &str, vmm: &str, send_buffer_bytes: Option<usize>) -> i32 {
        let names = [host.to_owned(), vmm.to_owned()];
        self.descriptors.push(Descriptor::SocketPair {
            names,
            send_buffer_bytes,
        });
        self.inherit(vmm)
    }

    fn machine(&mut self, checked: &CheckedSpec) {
        let spec = checked.spec();
        self.arg(&["-name", &format!("guest={},debug-threads=on", spec.id)]);
        self.arg(&["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]);
        self.arg(&[
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ]);
        // What is left out takes the firmware and the kernel time to find.
        let model = match checked.machine() {
            MachineType::Microvm => "microvm,acpi=on,pcie=on,rtc=on,isa-serial=on,usb=off",
            MachineType::Auto | MachineType::Q35 => {
                "q35,graphics=off,hpet=off,sata=off,smbus=off,smm=off,usb=off,vmport=off"
            }
        };
        let memory = hardware::memory(checked);
        let backend = memory.as_ref().map_or("", |(_, option)| *option);
        self.arg(&[
            "-machine",
            &format!("{model},dump-guest-core=off,mem-merge=off{backend}"),
        ]);
        if let Some((object, _)) = &memory {
            self.arg(&["-object", object]);
        }
        let accel = match checked.accel() {
            CheckedAccel::Kvm { .. } => "kvm",
            CheckedAccel::Tcg => "tcg,thread=multi",
        };
        self.arg(&["-accel", accel, "-cpu", hardware::cpu_model(checked)]);
        self.arg(&[
            "-smp",
            &hardware::processors(checked),
            "-m",
            &format!("size={}M", spec.memory_mib),
        ]);
        self.arg(&["-rtc", "base=utc"]);
    }

    fn boot(&mut self, kernel: &Path, spec: &crate::VmSpec, kernel_args: &str) {
        debug_assert_ne!(
            spec.kernel.format,
            KernelFormat::Elf,
            "refused by the check"
        );
        let kernel = self.open("kernel", kernel, Access::Read);
        self.descriptors.push(Descriptor::Memory {
            name: INITRD.to_owned(),
            parts: spec.initrd.clone(),
        });
        let initrd = self.inherit(INITRD);
        self.arg(&[
            "-kernel",
            &format!("/proc/self/fd/{kernel}"),
            "-initrd",
            &format!("/proc/self/fd/{initrd}"),
        ]);
        self.arg(&["-append", kernel_args]);
    }

    /// Channel, control, console, entropy, and a balloon if there is one.
    fn host_links(&mut self, spec: &crate::VmSpec) {
        let console = self.pair(CONSOLE_HOST, "console.vmm", None);
        self.arg(&[
            "-chardev",
            &format!("socket,id=console,fd={console}"),
            "-serial",
            "chardev:console",
        ]);
        let channel = self.pair(CHANNEL_HOST, "channel.vmm", None);
        self.arg(&["-chardev", &format!("socket,id=channel,fd={channel}")]);
        self.arg(&["-device", "virtio-serial-pci,max_ports=2"]);
        self.arg(&[
            "-device",
            &format!("virtserialport,chardev=channel,name={CHANNEL_PORT_NAME}"),
        ]);
        let control = self.pair(CONTROL_HOST, "control.vmm", None);
        self.arg(&[
            "-chardev",
            &format!("socket,id=control,fd={control}"),
            "-mon",
            "chardev=control,mode=control",
        ]);
        self.arg(&[
            "-object",
            "rng-builtin,id=entropy",
            "-device",
            &hardware::entropy(spec.hardware.entropy_limit.as_ref()),
        ]);
        if let Some(balloon) = &spec.hardware.balloon {
            self.arg(&["-device", &hardware::balloon(balloon)]);
        }
        if self.monitor.is_some() {
            let monitor = self.pair(MONITOR_HOST, "monitor.vmm", None);
            self.arg(&[
                "-chardev",
                &format!("socket,id=monitor,fd={monitor}"),
                "-mon",
                "chardev=monitor,mode=control",
            ]);
        }
    }

    fn disk(&mut self, index: usize, disk: &Disk) {
        let access = if disk.read_only {
            Access::Read
        } else {
            Access::ReadWrite
        };
        let fd = self.open(&format!("disk{index}"), &disk.path, access);
        let set = index + 1;
        self.arg(&["-add-fd", &format!("fd={fd},set={set}")]);
        // Locks are for images that somebody writes to: a read-only one is shared by any number of machines.
        let (mode, locking) = if disk.read_only {
            ("on", "off")
        } else {
            ("off", "on")
        };
        let discard = if disk.read_only { "ignore" } else { "unmap" };
        let (file, node) = (
            hardware::file_options(&disk.settings),
            hardware::node_options(&disk.settings),
        );
        self.arg(&[
            "-blockdev",
            &format!(
                "driver=file,node-name=file{index},filename=/dev/fdset/{set},read-only={mode},locking={locking},\
                 discard={discard}{file}{node}"
            ),
            "-blockdev",
            &format!(
                "driver=raw,node-name=disk{index},file=file{index},read-only={mode},discard={discard}{node}"
            ),
        ]);
        let mut drive = format!("disk{index}");
        if let Some(limiter) = &disk.settings.rate_limiter {
            let group = format!("limit{index}");
            let limited = format!("limited{index}");
            self.arg(&["-object", &hardware::throttle_group(&group, limiter)]);
            self.arg(&[
                "-blockdev",
                &format!(
                    "driver=throttle,node-name={limited},throttle-group={group},file={drive},read-only={mode}{node}"
                ),
            ]);
            drive = limited;
        }
        self.arg(&[
            "-device",
            &format!("virtio-blk-pci,drive={drive},serial={}", disk.serial),
        ]);
    }

    fn network_by_passt(&mut self, hardware: &Hardware) {
        let [guest, outside] = ["guard.guest", "guard.network"].map(str::to_owned);
        let network = self.pair(&guest, "network.vmm", Some(FRAME_BUFFER_BYTES));
        let names = [outside.clone(), "network.passt".to_owned()];
        self.descriptors.push(Descriptor::SocketPair {
            names,
            send_buffer_bytes: Some(FRAME_BUFFER_BYTES),
        });
        self.guards.push(Guard {
            guest,
            network: outside,
            tap: false,
            limits: hardware.interface.clone(),
        });
        self.descriptors.push(Descriptor::Pipe {
            read: "network.ready.read".to_owned(),
            write: "network.ready".to_owned(),
        });
        self.arg(&[
            "-netdev",
            &format!("stream,id=network,server=off,addr.type=fd,addr.str={network}"),
        ]);
        self.network_device(GUEST_MAC, hardware.mtu);
    }

    fn network_by_tap(&mut self, network: &BridgeNetwork, hardware: &Hardware) {
        let name = "network.tap";
        let limits = &hardware.interface;
        self.descriptors.push(Descriptor::Tap {
            name: name.to_owned(),
            link: network.tap.clone(),
            netns: network.netns.clone(),
            plain: !limits.is_none(),
        });
        if !limits.is_none() {
            return self.network_by_shaped_tap(network, name, hardware);
        }
        let fd = self.inherit(name);
        // vhost-net would give QEMU's work to the host's kernel; without it the same works everywhere.
        self.arg(&["-netdev", &format!("tap,id=network,fd={fd},vhost=off")]);
        self.network_device(network.mac, hardware.mtu);
    }

    /// QEMU has no limits of its own: what counts the frames stands between it and the tap.
    fn network_by_shaped_tap(&mut self, network: &BridgeNetwork, tap: &str, hardware: &Hardware) {
        let guest = "guard.guest".to_owned();
        let end = self.pair(&guest, "network.vmm", Some(FRAME_BUFFER_BYTES));
        self.guards.push(Guard {
            guest,
            network: tap.to_owned(),
            tap: true,
            limits: hardware.interface.clone(),
        });
        self.arg(&[
            "-netdev",
            &format!("stream,id=network,server=off,addr.type=fd,addr.str={end}"),
        ]);
        self.network_device(network.mac, hardware.mtu);
    }

    fn network_by_slirp(&mut self, network: &UserNetwork, mtu: Option<u16>) {
        self.arg(&[
            "-netdev",
            &format!("user,id=network,{}", slirp::options(network)),
        ]);
        self.network_device(GUEST_MAC, mtu);
    }

    fn network_device(&mut self, mac: MacAddress, mtu: Option<u16>) {
        // No option ROM: nothing boots from the network.
        let mut device = format!("virtio-net-pci,netdev=network,mac={mac},romfile=");
        if let Some(bytes) = mtu {
            device.push_str(&format!(",host_mtu={bytes}"));
        }
        self.arg(&["-device", &device]);
    }
}
