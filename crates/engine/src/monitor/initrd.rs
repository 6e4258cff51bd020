//! The two archives of a guest's initrd: the init with its modules, and the configuration.
//!
//! ```text
//! init.cpio    /init  /dev/console /dev/null  /firebuild/modules/NN-name.ko
//! config.cpio  /firebuild/config.json
//! ```

use firebuild_guest_proto::{CONFIG_PATH, INIT_PATH, INITRD_DEVICES, MODULES_DIR, RunConfig};
use firebuild_rootfs::cpio::{CpioError, Writer};
use firebuild_rootfs::tree::{Content, Contents, Device, Inode, Kind, Meta, Opened};
use firebuild_vm::spec::{InitrdPart, PrivateBytes};

use super::order::ModuleFile;
use crate::error::{Cause, Error};
use crate::run::{RunError, RunErrorKind};

/// Both archives, in the order in which the kernel unpacks them.
pub(crate) fn parts(
    vminit: &[u8],
    modules: &[ModuleFile],
    guest: &RunConfig,
) -> Result<Vec<InitrdPart>, RunError> {
    let failed = |cause: Cause| {
        Error::caused(
            RunErrorKind::Launch,
            "cannot make the initrd of the guest",
            cause,
        )
    };
    let mut loaded = Vec::with_capacity(modules.len());
    for module in modules {
        let bytes = fs_err::read(&module.path).map_err(|error| failed(error.into()))?;
        loaded.push((module.name.as_str(), bytes));
    }
    let init = init_archive(vminit, &loaded).map_err(|error| failed(error.into()))?;
    let json = guest.to_json().map_err(|error| failed(error.into()))?;
    let config = config_archive(&json).map_err(|error| failed(error.into()))?;
    let part = |name: &str, bytes| InitrdPart::Private {
        name: name.to_owned(),
        contents: PrivateBytes::new(bytes),
    };
    Ok(vec![
        part("init and modules", init),
        part("configuration", config),
    ])
}

fn init_archive(vminit: &[u8], modules: &[(&str, Vec<u8>)]) -> Result<Vec<u8>, CpioError> {
    let mut archive = Writer::new(Vec::new());
    for dir in [&b"dev"[..], b"firebuild", inside(MODULES_DIR)] {
        archive.dir(dir, 0o755)?;
    }
    for device in INITRD_DEVICES {
        let meta = Meta {
            mode: u16::try_from(device.mode).expect("permission bits fit"),
            ..Meta::default()
        };
        let node = Kind::CharDevice(Device {
            major: device.major,
            minor: device.minor,
        });
        archive.add(inside(device.path), &Inode::new(meta, node), &Nothing)?;
    }
    archive.file(inside(INIT_PATH), 0o755, vminit)?;
    for (name, bytes) in modules {
        let path = format!("{MODULES_DIR}/{name}");
        archive.file(inside(&path), 0o644, bytes)?;
    }
    Ok(archive.finish()?.0)
}

fn config_archive(json: &[u8]) -> Result<Vec<u8>, CpioError> {
    let mut archive = Writer::new(Vec::new());
    archive.file(inside(CONFIG_PATH), 0o600, json)?;
    Ok(archive.finish()?.0)
}

/// A path of the guest as archives name it.
fn inside(path: &str) -> &[u8] {
    path.trim_start_matches('/').as_bytes()
}

/// Devices have no content.
struct Nothing;

impl Contents for Nothing {
    fn open(&self, _: &Content) -> std::io::Result<Opened> {
        Err(std::io::Error::other("a device has no content"))
    }
}

#[cfg(test)]
mod tests {
    use super::{config_archive, init_archive};
    use crate::testing::{filter, have_tool};

    #[test]
    fn the_archives_hold_what_a_guest_needs() {
        let test = "the_archives_hold_what_a_guest_needs";
        if !have_tool(test, "cpio") {
            return;
        }
        let init = init_archive(b"ELF", &[("00-virtio.ko", b"KO".to_vec())]).unwrap();
        let listing = String::from_utf8(filter("cpio", &["-tv", "--quiet"], &init)).unwrap();
        let names: Vec<&str> = listing
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().last())
            .collect();
        assert_eq!(
            names,
            [
                "dev",
                "firebuild",
                "firebuild/modules",
                "dev/console",
                "dev/null",
                "init",
                "firebuild/modules/00-virtio.ko"
            ]
        );
        assert!(listing.contains("-rwxr-xr-x"), "{listing}");
        let config = config_archive(b"{}").unwrap();
        let listing = String::from_utf8(filter("cpio", &["-tv", "--quiet"], &config)).unwrap();
        assert!(listing.starts_with("-rw-------"), "{listing}");
        assert!(listing.trim_end().ends_with("firebuild/config.json"));
    }
}
