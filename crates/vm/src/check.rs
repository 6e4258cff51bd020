//! From a wanted machine to a possible one.
//!
//! [`VmSpec::check`] refuses everything that can be refused without touching the host, with the name of the field. Only
//! what it gives can be planned.

mod hardware;
mod network;

use std::fmt;

use crate::capability::{Capabilities, KvmState};
use crate::cmdline::{self, CmdlineError};
use crate::spec::{Accel, Disk, InitrdPart, MachineType, SPEC_FORMAT, VmSpec};

/// Longest machine name in bytes (the limit of Firecracker's `--id`).
pub const MAX_ID_BYTES: usize = 64;
/// Longest serial number of a disk in bytes: `VIRTIO_BLK_ID_BYTES` of `linux/virtio_blk.h`.
pub const MAX_SERIAL_BYTES: usize = 20;
/// Most published ports of one machine.
pub const MAX_PORTS: usize = 1024;
/// Most archives of one initrd.
pub const MAX_INITRD_PARTS: usize = 64;

/// A spec that a backend can run, with every choice made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedSpec {
    spec: VmSpec,
    accel: CheckedAccel,
    machine: MachineType,
    notices: Vec<String>,
}

/// The processor emulation that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckedAccel {
    /// KVM.
    Kvm {
        /// See [`KvmState::Works`].
        group: Option<u32>,
    },
    /// TCG.
    Tcg,
}

impl CheckedSpec {
    /// What was wanted.
    #[must_use]
    pub fn spec(&self) -> &VmSpec {
        &self.spec
    }

    /// The processor emulation that was chosen.
    #[must_use]
    pub fn accel(&self) -> &CheckedAccel {
        &self.accel
    }

    /// The machine model that was chosen; never [`MachineType::Auto`].
    #[must_use]
    pub fn machine(&self) -> MachineType {
        self.machine
    }

    /// Things that people should be told once: choices that cost something.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }
}

/// What is wrong with a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckErrorKind {
    /// Not a version of the text form that this build knows.
    Format,
    /// The name of the machine.
    Id,
    /// The number of processors.
    Cpus,
    /// The size of the memory.
    Memory,
    /// The kernel.
    Kernel,
    /// The initrd.
    Initrd,
    /// An argument of the kernel.
    KernelArgument,
    /// A disk.
    Disk,
    /// The network as a whole.
    Network,
    /// A published port.
    Port,
    /// The processor emulation.
    Accel,
    /// The machine model.
    Machine,
    /// Something beyond processors, memory and disks.
    Hardware,
    /// The metadata document.
    Metadata,
}

/// A spec that cannot run here.
#[derive(Debug)]
pub struct CheckError {
    kind: CheckErrorKind,
    message: String,
    source: Option<CmdlineError>,
}

impl CheckError {
    fn new(kind: CheckErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// What to match on.
    #[must_use]
    pub fn kind(&self) -> CheckErrorKind {
        self.kind
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CheckError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

type Check = Result<(), CheckError>;

impl VmSpec {
    /// Proves that a backend can run this machine, and makes the choices that the spec leaves open.
    ///
    /// # Errors
    /// The first thing that cannot be, by name and with what would help.
    pub fn check(self, can: &Capabilities) -> Result<CheckedSpec, CheckError> {
        if self.format != SPEC_FORMAT {
            let found = self.format;
            return Err(CheckError::new(
                CheckErrorKind::Format,
                format!("VM spec has format {found}, this build knows format {SPEC_FORMAT}"),
            ));
        }
        check_id(&self.id)?;
        self.check_size(can)?;
        self.check_boot(can)?;
        self.check_disks(can)?;
        let mut notices = Vec::new();
        network::check(&self.network, can, &mut notices)?;
        hardware::check(&self, can, &mut notices)?;
        self.check_mmds()?;
        let accel = self.choose_accel(can, &mut notices)?;
        let machine = self.choose_machine(can)?;
        Ok(CheckedSpec {
            spec: self,
            accel,
            machine,
            notices,
        })
    }

    fn check_size(&self, can: &Capabilities) -> Check {
        let (backend, cpus, memory) = (can.backend, self.cpus, self.memory_mib);
        if !(1..=can.max_cpus).contains(&cpus) {
            let message = format!(
                "{cpus} processors are not possible, {backend} takes 1 to {}",
                can.max_cpus
            );
            return Err(CheckError::new(CheckErrorKind::Cpus, message));
        }
        let (least, most) = (can.memory_mib.start(), can.memory_mib.end());
        if !can.memory_mib.contains(&memory) {
            let message = format!(
                "{memory} MiB of memory are not possible, {backend} takes {least} to {most} MiB"
            );
            return Err(CheckError::new(CheckErrorKind::Memory, message));
        }
        Ok(())
    }

    fn check_boot(&self, can: &Capabilities) -> Check {
        let kernel = &self.kernel;
        if !kernel.path.is_absolute() {
            let message = format!(
                "path of the kernel {} is not absolute",
                kernel.path.display()
            );
            return Err(CheckError::new(CheckErrorKind::Kernel, message));
        }
        if !can.kernel_formats.contains(&kernel.format) {
            let message = format!(
                "kernel {} is {}, which {} does not boot; import it again with `firebuild kernel import`",
                kernel.path.display(),
                kernel.format,
                can.backend
            );
            return Err(CheckError::new(CheckErrorKind::Kernel, message));
        }
        if self.initrd.is_empty() || self.initrd.len() > MAX_INITRD_PARTS {
            let message = format!(
                "initrd has {} parts, it takes 1 to {MAX_INITRD_PARTS}",
                self.initrd.len()
            );
            return Err(CheckError::new(CheckErrorKind::Initrd, message));
        }
        for part in &self.initrd {
            if let InitrdPart::File { path } = part
                && !path.is_absolute()
            {
                let message = format!("path of the initrd part {} is not absolute", path.display());
                return Err(CheckError::new(CheckErrorKind::Initrd, message));
            }
        }
        for argument in &self.kernel_args {
            cmdline::check_argument(argument).map_err(|source| CheckError {
                kind: CheckErrorKind::KernelArgument,
                message: "the kernel command line cannot be made".to_owned(),
                source: Some(source),
            })?;
        }
        Ok(())
    }

    fn check_disks(&self, can: &Capabilities) -> Check {
        let fail = |message| Err(CheckError::new(CheckErrorKind::Disk, message));
        if self.disks.len() > can.max_disks {
            return fail(format!(
                "{} disks are too many, {} takes {}",
                self.disks.len(),
                can.backend,
                can.max_disks
            ));
        }
        for (index, Disk { path, serial, .. }) in self.disks.iter().enumerate() {
            let shown = path.display();
            let plain =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            if !path.is_absolute() {
                return fail(format!("path of the disk {shown} is not absolute"));
            }
            if serial.is_empty() || serial.len() > MAX_SERIAL_BYTES || !serial.bytes().all(plain) {
                return fail(format!(
                    "serial number {serial:?} of the disk {shown} is not 1 to {MAX_SERIAL_BYTES} of A-Z a-z 0-9 . _ -"
                ));
            }
            if self.disks[..index]
                .iter()
                .any(|other| other.serial == *serial)
            {
                return fail(format!(
                    "serial number {serial:?} of the disk {shown} is given twice"
                ));
            }
        }
        Ok(())
    }

    fn check_mmds(&self) -> Check {
        match &self.mmds {
            Some(mmds) if !mmds.document.is_object() => Err(CheckError::new(
                CheckErrorKind::Metadata,
                "the metadata document is not a JSON object",
            )),
            _ => Ok(()),
        }
    }

    fn choose_accel(
        &self,
        can: &Capabilities,
        notices: &mut Vec<String>,
    ) -> Result<CheckedAccel, CheckError> {
        let backend = can.backend;
        match (self.accel, &can.kvm) {
            (Accel::Auto | Accel::Kvm, KvmState::Works { group }) => {
                Ok(CheckedAccel::Kvm { group: *group })
            }
            (Accel::Kvm, KvmState::Doubtful { group, reason }) => {
                notices.push(format!(
                    "kvm is used because --accel kvm asks for it; it does not seem to work here: {reason}"
                ));
                Ok(CheckedAccel::Kvm { group: *group })
            }
            (Accel::Auto | Accel::Tcg, _) if can.tcg => Ok(CheckedAccel::Tcg),
            (Accel::Tcg, _) => Err(CheckError::new(
                CheckErrorKind::Accel,
                format!("{backend} has no software emulation (tcg)"),
            )),
            (
                Accel::Auto | Accel::Kvm,
                KvmState::Doubtful { reason, .. } | KvmState::Unusable { reason },
            ) => {
                let help = match (&can.kvm, can.tcg) {
                    (_, true) => "; use --accel tcg",
                    (KvmState::Doubtful { .. }, false) => "; --accel kvm tries nevertheless",
                    (_, false) => "",
                };
                Err(CheckError::new(
                    CheckErrorKind::Accel,
                    format!("kvm cannot be used: {reason}{help}"),
                ))
            }
        }
    }

    fn choose_machine(&self, can: &Capabilities) -> Result<MachineType, CheckError> {
        if self.machine == MachineType::Auto {
            return Ok(*can
                .machines
                .first()
                .expect("a backend has at least one machine model"));
        }
        if can.machines.contains(&self.machine) {
            return Ok(self.machine);
        }
        let message = format!("{} has no machine model {}", can.backend, self.machine);
        Err(CheckError::new(CheckErrorKind::Machine, message))
    }
}

fn check_id(id: &str) -> Check {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(plain) {
        let message = format!("machine name {id:?} is not 1 to {MAX_ID_BYTES} of A-Z a-z 0-9 -");
        return Err(CheckError::new(CheckErrorKind::Id, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
