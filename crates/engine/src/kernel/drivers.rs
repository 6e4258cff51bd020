//! The drivers a guest wants from its kernel, and what for.

use serde::{Deserialize, Serialize};

/// What a module is for. A VM loads only the modules of the purposes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// virtio devices on a PCI bus: QEMU's `q35` and `pc`.
    Pci,
    /// virtio devices in memory: QEMU's `microvm`, Firecracker.
    Mmio,
    /// Block devices.
    Disk,
    /// The filesystem of disks: ext4.
    Filesystem,
    /// The writable half over a shared disk.
    Overlay,
    /// Network devices and protocols.
    Network,
    /// The serial console.
    Console,
    /// The channel between host and guest over a virtio-serial port.
    Channel,
    /// The channel between host and guest over vsock.
    Vsock,
    /// Randomness from the host.
    Random,
    /// Memory that the guest gives back.
    Balloon,
    /// The metadata service of the guest init where the kernel cannot steer connections: a link to a network of its own.
    Metadata,
    /// Good to have for what runs in the guest.
    Extra,
}

/// A driver that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driver {
    /// The module's name, with underscores.
    pub name: &'static str,
    /// What it is for.
    pub purpose: Purpose,
    /// Text that only a kernel with this driver built in contains. Used where no package tells what
    /// is built in; it can prove presence, never absence.
    pub(crate) marker: &'static str,
}

const fn driver(name: &'static str, purpose: Purpose, marker: &'static str) -> Driver {
    Driver {
        name,
        purpose,
        marker,
    }
}

/// Every wanted driver. The first of a purpose is the one the purpose stands or falls with.
///
/// Markers are the name under which a driver registers itself, or the prefix of its messages.
pub const DRIVERS: &[Driver] = &[
    driver("virtio_pci", Purpose::Pci, "virtio-pci\0"),
    driver("virtio_mmio", Purpose::Mmio, "virtio-mmio\0"),
    driver("virtio_blk", Purpose::Disk, "virtio_blk\0"),
    driver("ext4", Purpose::Filesystem, "EXT4-fs "),
    driver("overlay", Purpose::Overlay, "overlayfs: "),
    driver("virtio_net", Purpose::Network, "virtio_net\0"),
    driver("ipv6", Purpose::Network, "IPv6: "),
    driver("af_packet", Purpose::Network, "PACKET\0"),
    driver("8250", Purpose::Console, "serial8250\0"),
    driver("virtio_console", Purpose::Channel, "virtio_console\0"),
    driver(
        "vmw_vsock_virtio_transport",
        Purpose::Vsock,
        "vmw_vsock_virtio_transport\0",
    ),
    driver("virtio_rng", Purpose::Random, "virtio_rng.%d\0"),
    driver("virtio_balloon", Purpose::Balloon, "virtio_balloon\0"),
    driver("veth", Purpose::Metadata, "peer_ifindex\0"),
    driver("erofs", Purpose::Extra, "erofs: "),
    driver("fuse", Purpose::Extra, "fuse: "),
];

/// The driver that a purpose stands or falls with.
pub(crate) fn principal(purpose: Purpose) -> Option<&'static Driver> {
    DRIVERS.iter().find(|driver| driver.purpose == purpose)
}

/// A module name as the kernel writes it: `virtio-rng.ko` is `virtio_rng`.
pub(crate) fn normalise(name: &str) -> String {
    name.replace('-', "_")
}
