//! What Firecracker's API has and a machine configuration has not, and why: it is firebuild's own business, or it is
//! nothing for a machine of firebuild's.

use serde_json::Value;

/// Sections and fields, and what there is instead.
const REFUSED: &[(&str, &str)] = &[
    (
        "boot-source.kernel_image_path",
        "the kernel is that of --vmlinux-id",
    ),
    (
        "boot-source.initrd_path",
        "the initrd is firebuild's: its guest init is in it",
    ),
    (
        "cpu-config.reg_modifiers",
        "they are of ARM, and the guests are of x86-64",
    ),
    (
        "cpu-config.vcpu_features",
        "they are of ARM, and the guests are of x86-64",
    ),
    (
        "drives.path_on_host",
        "'root' is the image, and 'scratch' a disk of the VM's own (--disk-size)",
    ),
    (
        "drives.is_root_device",
        "the guest init mounts the disks, whichever the kernel calls its root",
    ),
    (
        "drives.is_read_only",
        "the image is read-only, and the scratch disk is not",
    ),
    (
        "drives.partuuid",
        "the guest init mounts the disks, whole and by their names",
    ),
    (
        "drives.socket",
        "there are no disks of vhost-user: the image is shared as a file",
    ),
    (
        "logger",
        "the VMM's log is firebuild's: its warnings stand below the error of a machine that fails",
    ),
    (
        "machine-config.track_dirty_pages",
        "it is for snapshots, and firebuild makes none",
    ),
    (
        "memory-hotplug",
        "memory comes and goes by the balloon, within mem_size_mib",
    ),
    ("mmds-config.version", "it is --mmds-version"),
    (
        "mmds-config.network_interfaces",
        "the guest has one interface, and --no-mmds for none",
    ),
    (
        "mmds-config.ipv4_address",
        "the address is 169.254.169.254 under every backend, where clients look for it",
    ),
    (
        "network-interfaces.guest_mac",
        "it is made of the address (--ip)",
    ),
    (
        "network-interfaces.host_dev_name",
        "the tap is firebuild's, on the network of --network",
    ),
    (
        "pmem",
        "the image is a disk: one file for all VMs of it, and nothing of it in the guest's memory",
    ),
    (
        "serial.serial_out_path",
        "firebuild reads the serial port, and 'firebuild logs --console' shows it",
    ),
    ("vsock", "it is the channel between firebuild and its guest"),
];

/// The first of these that a file has, and why not; for a file that was not understood.
pub(super) fn reason(file: &Value) -> Option<String> {
    REFUSED.iter().find_map(|(path, why)| {
        let (section, field) = match path.split_once('.') {
            Some((section, field)) => (section, Some(field)),
            None => (*path, None),
        };
        let found = file.get(section)?;
        let is_there = match (field, found) {
            (None, _) => true,
            (Some(field), Value::Array(entries)) => {
                entries.iter().any(|entry| entry.get(field).is_some())
            }
            (Some(field), found) => found.get(field).is_some(),
        };
        is_there.then(|| format!("it cannot say {path}: {why}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::reason;

    #[test]
    fn what_is_refused_is_found_wherever_it_stands() {
        let file = json!({"drives": [{"drive_id": "root"}, {"socket": "/s"}]});
        assert!(reason(&file).unwrap().contains("drives.socket: "));
        let file = json!({"logger": {}});
        assert!(reason(&file).unwrap().contains("logger: "));
        assert_eq!(reason(&json!({"drives": [{"drive_id": "root"}]})), None);
        assert_eq!(reason(&json!({"metrics": {"metrics_path": "x"}})), None);
    }
}
