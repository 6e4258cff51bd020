//! `VmSpec`: what machine is wanted. Plain data, no I/O, no VMM.
//!
//! The text form is JSON (`firebuild run --print=spec`), format version [`SPEC_FORMAT`]; unknown fields are refused.
//! The bytes of a [`InitrdPart::Private`] never appear in it: their place holds their length, and such a text cannot
//! be read back.
//!
//! A spec says nothing about how: `VmSpec::check` proves that a backend can run it, and the
//! backend then plans it.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::hardware::{DiskSettings, Hardware};
use firebuild_guest_proto::MacAddress;
pub use firebuild_guest_proto::{ROOT_DISK_SERIAL, SCRATCH_DISK_SERIAL};
pub use firebuild_usernet::publish::{PortPublish, Protocol};

/// Version of the text form of [`VmSpec`].
pub const SPEC_FORMAT: u32 = 1;

/// The machine that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Version of this text form: [`SPEC_FORMAT`].
    pub format: u32,
    /// Name of the machine: 1 to 64 characters of `A-Z a-z 0-9 -` (the limit of Firecracker, which follows).
    pub id: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory of the guest in MiB.
    pub memory_mib: u32,
    /// The kernel to boot.
    pub kernel: Kernel,
    /// Archives that make the initrd, in this order; the kernel unpacks concatenated cpio archives one after the other.
    pub initrd: Vec<InitrdPart>,
    /// Kernel arguments of the caller, one `key` or `key=value` each; merged by key over the defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_args: Vec<String>,
    /// Block devices, in this order.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// How the guest reaches the network.
    #[serde(default)]
    pub network: Network,
    /// Where the serial console of the guest is recorded.
    pub console: ConsoleLog,
    /// Which processor emulation is wanted.
    #[serde(default)]
    pub accel: Accel,
    /// Which machine model is wanted.
    #[serde(default)]
    pub machine: MachineType,
    /// What it has beyond processors, memory and disks.
    #[serde(default, skip_serializing_if = "Hardware::is_plain")]
    pub hardware: Hardware,
    /// The document that the guest finds at 169.254.169.254.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mmds: Option<MmdsSpec>,
}

/// The metadata service of a guest (Firecracker's MMDS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MmdsSpec {
    /// How the guest asks.
    #[serde(default)]
    pub version: MmdsVersion,
    /// Whether every answer is text, as of EC2's service, and never JSON.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imds_compat: bool,
    /// What it finds: a JSON object.
    pub document: serde_json::Value,
}

/// How a guest asks its metadata service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MmdsVersion {
    /// By plain GETs; deprecated by Firecracker.
    V1,
    /// With a token that a PUT gives.
    #[default]
    V2,
}

/// A kernel image on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Path of the image; opened by the launcher, not by the VMM.
    #[serde(serialize_with = "crate::text::path")]
    pub path: PathBuf,
    /// What kind of image it is.
    pub format: KernelFormat,
    /// Whether the guest needs no module of it: everything is built in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub builtin: bool,
}

/// The container format of a kernel image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelFormat {
    /// ELF `vmlinux` with a PVH entry point (note type 18 of the owner `Xen`).
    ElfPvh,
    /// ELF `vmlinux` without one.
    Elf,
    /// The `vmlinuz` that distributions ship (x86 boot protocol).
    BzImage,
}

impl fmt::Display for KernelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KernelFormat::ElfPvh => "an ELF vmlinux with a PVH entry",
            KernelFormat::Elf => "an ELF vmlinux without a PVH entry",
            KernelFormat::BzImage => "a bzImage",
        })
    }
}

/// One archive of the initrd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum InitrdPart {
    /// A file that others may read: the guest init, kernel modules.
    File {
        /// Path on the host.
        #[serde(serialize_with = "crate::text::path")]
        path: PathBuf,
    },
    /// Bytes that hold secrets (the environment of the workload). They live in memory only, never in a file,
    /// and the launcher wipes them once the guest has read them.
    Private {
        /// What it is, for people.
        name: String,
        /// The archive.
        #[serde(rename = "bytes")]
        contents: PrivateBytes,
    },
}

/// Bytes that stay out of every text form: only their number is shown. Copies share them.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateBytes(Arc<[Cow<'static, [u8]>]>);

impl PrivateBytes {
    /// Takes bytes that must not be shown.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::of_pieces(vec![Cow::Owned(bytes)])
    }

    /// Takes such bytes in pieces, which are never put together in memory.
    pub fn of_pieces(pieces: Vec<Cow<'static, [u8]>>) -> Self {
        Self(pieces.into())
    }

    /// The bytes themselves, piece by piece.
    pub fn expose(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|piece| &**piece)
    }

    fn len(&self) -> usize {
        self.expose().map(<[u8]>::len).sum()
    }
}

impl fmt::Debug for PrivateBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} private bytes>", self.len())
    }
}

impl Serialize for PrivateBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.len() as u64)
    }
}

impl<'de> Deserialize<'de> for PrivateBytes {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "private bytes are not part of the text form and cannot be read back",
        ))
    }
}

/// One block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Raw image (or block device) on the host; opened by the launcher, not by the VMM.
    #[serde(serialize_with = "crate::text::path")]
    pub path: PathBuf,
    /// Whether the guest may only read. A read-only image may be shared by any number of machines.
    pub read_only: bool,
    /// What the guest sees in `/sys/block/*/serial`: 1 to 20 characters of `A-Z a-z 0-9 . _ -`. Firecracker shows
    /// numbers of the file in its place: there a guest finds its disks by their order.
    pub serial: String,
    /// How the host does its work.
    #[serde(default, skip_serializing_if = "DiskSettings::is_plain")]
    pub settings: DiskSettings,
}

/// How the guest reaches the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Network {
    /// No network device at all.
    #[default]
    None,
    /// User-mode networking: needs no root and no set-up.
    User(UserNetwork),
    /// A tap on a private bridge of the host, behind NAT: needs root. See `docs/design/0004-bridge-network.md`.
    Bridge(BridgeNetwork),
}

impl Network {
    /// Ports of the host that lead to ports of the guest.
    #[must_use]
    pub fn publish(&self) -> &[PortPublish] {
        match self {
            Network::None => &[],
            Network::User(network) => &network.publish,
            Network::Bridge(network) => &network.publish,
        }
    }
}

/// User-mode networking. See `docs/design/0001-user-network.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserNetwork {
    /// Ports of the host that lead to ports of the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PortPublish>,
}

/// The guest's end of a private bridge. [`net::bridge`](crate::net::bridge) makes the tap, the bridge and their rules
/// before the machine is planned, and takes them away after its end; a backend only opens the tap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeNetwork {
    /// Name of the tap on the host: 1 to 15 characters of `A-Z a-z 0-9 . _ -`. It belongs to the user that the machine
    /// runs as.
    pub tap: String,
    /// Hardware address of the guest's interface.
    pub mac: MacAddress,
    /// Network namespace of the host that the tap is in, by a path as of `ip-netns(8)`; `None` is the one that the
    /// launcher is in.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::text::maybe_path"
    )]
    pub netns: Option<PathBuf>,
    /// The address that the guest is to have; `None` is the first free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Ports of the host that lead to ports of the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PortPublish>,
}

/// Where the serial console is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleLog {
    /// File to write; `None` keeps only the last lines, in memory.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::text::maybe_path"
    )]
    pub path: Option<PathBuf>,
    /// Most bytes that the file may have; what comes later is counted and dropped.
    pub max_bytes: u64,
}

impl Default for ConsoleLog {
    /// Memory only, with a limit of 1 MiB should a path be added.
    fn default() -> Self {
        Self {
            path: None,
            max_bytes: 1 << 20,
        }
    }
}

/// Which processor emulation is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// KVM where it really works, else TCG.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Translation in software; works everywhere.
    Tcg,
}

/// Which machine model is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineType {
    /// The one that the backend prefers for this kernel and processor emulation.
    #[default]
    Auto,
    /// A PC with PCI Express.
    Q35,
    /// QEMU's minimal machine with virtio-mmio.
    Microvm,
}

impl fmt::Display for MachineType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MachineType::Auto => "auto",
            MachineType::Q35 => "q35",
            MachineType::Microvm => "microvm",
        })
    }
}

impl VmSpec {
    /// The text form: indented JSON with a final newline.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("a spec holds only what JSON can say");
        text.push('\n');
        text
    }
}
