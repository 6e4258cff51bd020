//! The two archives of a guest's initrd: the init with its modules, and the configuration.
//!
//! ```text
//! init.cpio    /init  /dev/console /dev/null  /firebuild/modules/NN-name.ko
//! config.cpio  /firebuild/config.json
//! ```

use std::borrow::Cow;
use std::io::{self, Write};

use firebuild_guest_proto::{CONFIG_PATH, INIT_PATH, INITRD_DEVICES, MODULES_DIR, RunConfig};
use firebuild_rootfs::cpio::{CpioError, Writer};
use firebuild_rootfs::tree::{Content, Contents, Device, Inode, Kind, Meta, Opened};
use firebuild_vm::spec::{InitrdPart, PrivateBytes};

use super::order::ModuleFile;
use crate::error::{Cause, Error};
use crate::run::{RunError, RunErrorKind};

/// Both archives, in the order in which the kernel unpacks them.
pub(crate) fn parts(
    vminit: &'static [u8],
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
    let init = init_archive(vminit, loaded).map_err(|error| failed(error.into()))?;
    let json = guest.to_json().map_err(|error| failed(error.into()))?;
    let config = config_archive(&json).map_err(|error| failed(error.into()))?;
    let part = |name: &str, contents| InitrdPart::Private {
        name: name.to_owned(),
        contents,
    };
    Ok(vec![
        part("init and modules", PrivateBytes::of_pieces(init.0)),
        part("configuration", PrivateBytes::new(config)),
    ])
}

/// An archive in pieces. Some 3 MiB at each start: the init stays where it is in this program, and nothing is moved together.
#[derive(Default)]
struct Pieces(Vec<Cow<'static, [u8]>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What lies between the large pieces is small: headers, padding.
        match self.0.last_mut() {
            Some(Cow::Owned(last)) if last.len() < SMALL => last.extend_from_slice(bytes),
            _ => self.0.push(Cow::Owned(bytes.to_vec())),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A piece of so many bytes is not added to.
const SMALL: usize = 4096;

fn init_archive(vminit: &'static [u8], modules: Vec<(&str, Vec<u8>)>) -> Result<Pieces, CpioError> {
    let mut archive = Writer::new(Pieces::default());
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
    let mut large = |path: &str, mode, bytes: Cow<'static, [u8]>| {
        archive.file_by(inside(path), mode, bytes.len(), |pieces| {
            pieces.0.push(bytes);
            Ok(())
        })
    };
    large(INIT_PATH, 0o755, Cow::Borrowed(vminit))?;
    for (name, bytes) in modules {
        large(&format!("{MODULES_DIR}/{name}"), 0o644, Cow::Owned(bytes))?;
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
        let modules = vec![
            ("00-virtio.ko", b"KO".to_vec()),
            ("01-large.ko", vec![7; 9001]),
        ];
        let init = init_archive(b"ELF", modules).unwrap().0.concat();
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
                "firebuild/modules/00-virtio.ko",
                "firebuild/modules/01-large.ko"
            ]
        );
        assert!(listing.contains("-rwxr-xr-x"), "{listing}");
        let config = config_archive(b"{}").unwrap();
        let listing = String::from_utf8(filter("cpio", &["-tv", "--quiet"], &config)).unwrap();
        assert!(listing.starts_with("-rw-------"), "{listing}");
        assert!(listing.trim_end().ends_with("firebuild/config.json"));
    }
}
