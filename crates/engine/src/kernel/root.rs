//! Kernels in a directory of the original: plain files, named by their ids, without modules or records.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::catalogue::{Catalogue, check_id};
use super::codec::read_bounded;
use super::error::{KernelError, KernelErrorKind, io};
use super::image::{self, LARGEST_VMLINUX};
use super::import::file_name;
use super::modules;
use super::record::{FORMAT, Kernel, Origin};
use crate::error::Error;
use crate::paths::Paths;

/// The kernel that a VM boots: the file `id` of `root` where there is one, else what the catalogue has.
///
/// # Errors
/// As [`Catalogue::find`]; `NotAKernel`, `Unsupported`, `Corrupt` when the file is there and cannot be booted.
pub fn select(paths: &Paths, root: Option<&Path>, id: Option<&str>) -> Result<Kernel, KernelError> {
    let catalogue = Catalogue::new(paths);
    let (Some(root), Some(id)) = (root, id) else {
        return catalogue.find(id);
    };
    // Before it is joined to a path.
    check_id(id)?;
    let file = root.join(id);
    match fs_err::metadata(&file) {
        Ok(meta) if meta.is_file() => open(id, &file),
        Ok(_) => Err(Error::new(
            KernelErrorKind::NotAKernel,
            format!("{} is not a file", file.display()),
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            catalogue.find(Some(id)).map_err(|error| {
                if error.kind() != KernelErrorKind::NotFound {
                    return error;
                }
                Error::new(
                    KernelErrorKind::NotFound,
                    format!("{} has no kernel {id}; {error}", root.display()),
                )
            })
        }
        Err(error) => Err(io("look at the kernel", &file, error)),
    }
}

/// Checks a file as an import does. It is not copied, so it has to be what a VMM loads.
fn open(id: &str, file: &Path) -> Result<Kernel, KernelError> {
    let what = file.display().to_string();
    let opened = fs_err::File::open(file).map_err(|error| io("read", file, error))?;
    let bytes = read_bounded(opened, LARGEST_VMLINUX, &what)?;
    if !bytes.starts_with(super::elf::MAGIC) {
        return Err(Error::new(
            KernelErrorKind::Unsupported,
            format!(
                "{what} is not an uncompressed vmlinux; 'firebuild kernel import --id {id} {what}' takes \
                 the other forms of kernels"
            ),
        ));
    }
    let image = image::open(bytes, &what)?;
    let absolute = std::path::absolute(file).map_err(|error| io("find", file, error))?;
    let kernel = Kernel {
        format: FORMAT,
        id: id.to_owned(),
        release: image.release.clone(),
        banner: image.banner.clone(),
        pvh: image.facts.pvh,
        size: image.elf.len() as u64,
        // Nobody asks for the digest of a file that is not kept, and hashing it would delay every start.
        sha256: String::new(),
        imported_at: Timestamp::now(),
        origin: Origin {
            files: vec![file_name(file)],
            package: None,
        },
        drivers: modules::guess(&image.elf),
        modules: Vec::new(),
        dir: absolute.parent().map_or_else(PathBuf::new, Path::to_owned),
        elsewhere: Some(absolute),
    };
    match kernel.unfit() {
        None => Ok(kernel),
        Some(why) => Err(Error::new(
            KernelErrorKind::Unsupported,
            format!("the kernel {what} cannot run a VM: {why}"),
        )),
    }
}
