//! Finding disks: `/sys/block` tells serial numbers, devtmpfs makes the nodes.

use std::path::PathBuf;

use firebuild_guest_proto::{DiskRef, FailureReason};

use crate::error::InitError;
use crate::wait::Devices;

/// The device node of a disk, once it is there.
pub(crate) fn find(disk: &DiskRef, devices: &Devices) -> Result<PathBuf, InitError> {
    let look = || {
        let name = match disk {
            DiskRef::Index(index) => format!("vd{}", char::from(b'a'.checked_add(*index)?)),
            DiskRef::Serial(serial) => by_serial(serial)?,
        };
        let node = PathBuf::from("/dev").join(name);
        node.exists().then_some(node)
    };
    devices.find(look).ok_or_else(|| {
        let text = match disk {
            DiskRef::Serial(serial) => {
                format!("no disk with the serial number {serial} has appeared")
            }
            DiskRef::Index(index) => format!("the virtio disk {index} has not appeared"),
        };
        InitError::new(
            FailureReason::Disk,
            text + " (is its driver among the kernel's modules?)",
        )
    })
}

fn by_serial(serial: &str) -> Option<String> {
    for entry in fs_err::read_dir("/sys/block").ok()?.flatten() {
        let found = fs_err::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if found.trim_end() == serial {
            return entry.file_name().into_string().ok();
        }
    }
    None
}
