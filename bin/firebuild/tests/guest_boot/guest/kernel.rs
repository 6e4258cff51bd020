//! The kernel and its modules, from the distribution's package.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a guest needs, each before what depends on it. Some are built in or missing, depending on the kernel.
const MODULES: [&str; 12] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "overlay",
    "virtio_rng",
];

/// A kernel to boot.
pub(crate) struct Kernel {
    /// The image, a `vmlinuz`.
    pub(crate) image: Vec<u8>,
    /// Name and content, in load order.
    pub(crate) modules: Vec<(String, Vec<u8>)>,
}

impl Kernel {
    /// The kernel of the package that `FIREBUILD_TEST_KERNEL_DEB` names; or why there is none.
    pub(crate) fn of_package() -> Result<Kernel, String> {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let directory = scratch.path();
        let package = std::env::var_os("FIREBUILD_TEST_KERNEL_DEB").filter(|path| !path.is_empty());
        let package = package.ok_or("FIREBUILD_TEST_KERNEL_DEB names no kernel package")?;
        let status = Command::new("dpkg-deb")
            .arg("-x")
            .arg(&package)
            .arg(directory)
            .status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(format!("cannot unpack {}", package.display()));
        }
        let boot = fs_err::read_dir(directory.join("boot")).map_err(|error| error.to_string())?;
        let image = boot
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
            })
            .ok_or("the package has no vmlinuz")?;
        let image = fs_err::read(image).map_err(|error| error.to_string())?;
        let mut files = Vec::new();
        collect(&directory.join("lib/modules"), &mut files);
        let modules = MODULES
            .iter()
            .filter_map(|name| {
                let file = files
                    .iter()
                    .find(|file| file.file_stem().is_some_and(|stem| stem == *name))?;
                Some(((*name).to_owned(), fs_err::read(file).unwrap()))
            })
            .collect();
        Ok(Kernel { image, modules })
    }
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            found.push(path);
        }
    }
}
