//! `kernel.json`: what the catalogue knows about a kernel.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::drivers::{Purpose, principal};

/// The version of the format that this program writes and reads.
pub(crate) const FORMAT: u32 = 1;

/// A kernel of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kernel {
    /// The version of this format.
    pub format: u32,
    /// The name in the catalogue.
    pub id: String,
    /// The kernel's release, `uname -r` in the guest.
    pub release: String,
    /// The whole version line found in the image.
    pub banner: String,
    /// Whether the ELF has the PVH entry point, which QEMU needs to boot it directly.
    pub pvh: bool,
    /// Size of `vmlinux` in bytes.
    pub size: u64,
    /// SHA-256 of `vmlinux`, in hexadecimal.
    pub sha256: String,
    /// When it was imported.
    pub imported_at: Timestamp,
    /// Where it came from.
    pub origin: Origin,
    /// How each wanted driver is there, by module name.
    pub drivers: BTreeMap<String, Presence>,
    /// The modules beside the kernel, in load order.
    pub modules: Vec<Module>,
    /// The directory that holds it. Not part of the record: a catalogue may move.
    #[serde(skip)]
    pub(crate) dir: PathBuf,
    /// The ELF file where it is not in that directory: a kernel of the original's storage root.
    #[serde(skip)]
    pub(crate) elsewhere: Option<PathBuf>,
}

/// Where a kernel came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The file names given, or `host`.
    pub files: Vec<String>,
    /// The distribution's package and its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

/// How a driver is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// In the kernel itself.
    Builtin,
    /// As a module beside it.
    Module,
    /// Not there.
    Missing,
    /// Nobody knows: the kernel came without its package and shows no trace of the driver.
    Unknown,
}

/// A module to be loaded in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Module {
    /// The name, with underscores.
    pub name: String,
    /// The file in `modules/`; the number in front is the place in the load order.
    pub file: String,
    /// What needs it.
    pub purposes: Vec<Purpose>,
}

impl Kernel {
    /// The directory of this kernel.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The ELF file.
    pub fn vmlinux(&self) -> PathBuf {
        self.elsewhere
            .clone()
            .unwrap_or_else(|| self.dir.join("vmlinux"))
    }

    /// The modules that a VM with these purposes loads, in load order, with their files.
    pub fn modules_for(&self, purposes: &[Purpose]) -> Vec<(&Module, PathBuf)> {
        self.modules
            .iter()
            .filter(|module| module.purposes.iter().any(|p| purposes.contains(p)))
            .map(|module| (module, self.dir.join("modules").join(&module.file)))
            .collect()
    }

    /// How the driver is there which a purpose stands or falls with.
    pub fn presence(&self, purpose: Purpose) -> Presence {
        principal(purpose)
            .and_then(|driver| self.drivers.get(driver.name))
            .copied()
            .unwrap_or(Presence::Unknown)
    }

    /// Why this kernel cannot run a VM, if it cannot.
    pub fn unfit(&self) -> Option<String> {
        let missing = |purpose| self.presence(purpose) == Presence::Missing;
        if missing(Purpose::Pci) && missing(Purpose::Mmio) {
            return Some("it has neither virtio_pci nor virtio_mmio".to_owned());
        }
        // QEMU and Firecracker want different things; which of them it is for is not known here.
        let qemu = self.pvh && !missing(Purpose::Pci) && !missing(Purpose::Channel);
        let proven =
            |purpose| matches!(self.presence(purpose), Presence::Builtin | Presence::Module);
        let firecracker = proven(Purpose::Mmio) && proven(Purpose::Vsock);
        if !qemu && !firecracker {
            return Some(if self.pvh {
                "it has neither virtio_console beside virtio_pci (QEMU) nor vmw_vsock_virtio_transport beside virtio_mmio \
                 (Firecracker)"
                    .to_owned()
            } else {
                "it has no PVH entry point (CONFIG_PVH)".to_owned()
            });
        }
        [Purpose::Disk, Purpose::Filesystem]
            .into_iter()
            .find(|&purpose| missing(purpose))
            .and_then(principal)
            .map(|driver| format!("it has no {}", driver.name))
    }
}

/// Compares two releases as people read them: `6.1.0-9` is older than `6.1.0-56`.
pub(crate) fn compare_releases(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left, right);
    loop {
        let (l, l_rest) = run(left);
        let (r, r_rest) = run(right);
        let order = match (number(l), number(r)) {
            (Some(l), Some(r)) => l.cmp(&r),
            _ => l.cmp(r),
        };
        if order != Ordering::Equal || (l_rest.is_empty() && r_rest.is_empty()) {
            return order;
        }
        (left, right) = (l_rest, r_rest);
    }
}

/// The leading run of digits, or of anything else, and the rest.
fn run(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    text.split_at(end)
}

fn number(run: &str) -> Option<u128> {
    run.parse().ok()
}
