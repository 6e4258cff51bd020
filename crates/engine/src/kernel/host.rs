//! The running kernel and its modules, where they are on disk.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::{KernelError, KernelErrorKind, io};
use super::files::{FileSet, Location};
use crate::error::Error;

/// Adds the kernel image and the modules of `release` below `root` (the host's `/`) to `files`.
///
/// Distributions keep the image in `/boot`, or beside the modules (Fedora, Arch, image-based ones).
pub(crate) fn add(root: &Path, release: &str, files: &mut FileSet) -> Result<(), KernelError> {
    let module_dirs = ["lib/modules", "usr/lib/modules"].map(|dir| root.join(dir).join(release));
    let modules = module_dirs.iter().find(|dir| dir.is_dir());
    let candidates = [root.join("boot").join(format!("vmlinuz-{release}"))]
        .into_iter()
        .chain(module_dirs.iter().map(|dir| dir.join("vmlinuz")))
        .chain([root.join("boot/vmlinuz-linux"), root.join("boot/vmlinux")]);
    let image = first_readable(candidates)?.ok_or_else(|| {
        Error::new(
            KernelErrorKind::NotFound,
            format!(
                "the running kernel {release} is not on this disk ({} is missing): \
                 give a kernel package instead, for instance what \
                 'apt-get download linux-image-cloud-amd64' and its dependency fetch",
                root.join("boot")
                    .join(format!("vmlinuz-{release}"))
                    .display()
            ),
        )
    })?;
    files.insert(format!("boot/vmlinuz-{release}"), Location::File(image));
    if let Some(modules) = modules {
        files.add_directory(modules, &format!("lib/modules/{release}"))?;
    }
    Ok(())
}

/// The first of `candidates` that exists. One that exists and cannot be read is an error: the next
/// candidate would be another kernel.
fn first_readable(
    candidates: impl Iterator<Item = PathBuf>,
) -> Result<Option<PathBuf>, KernelError> {
    for candidate in candidates {
        match fs_err::File::open(&candidate) {
            Ok(_) => return Ok(Some(candidate)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(Error::caused(
                    KernelErrorKind::Io,
                    format!(
                        "the running kernel {} may be read by root only: copy it and import the copy",
                        candidate.display()
                    ),
                    error,
                ));
            }
            Err(error) => return Err(io("read", &candidate, error)),
        }
    }
    Ok(None)
}
