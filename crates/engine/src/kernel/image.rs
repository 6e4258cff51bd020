//! From the bytes of any kernel file to a checked ELF kernel.

use super::codec::{Compression, decompress};
use super::elf::KernelElf;
use super::error::{KernelError, KernelErrorKind};
use super::{bzimage, elf};
use crate::error::Error;

/// The largest `vmlinux` that is taken. With full debug information real ones come near.
pub(crate) const LARGEST_VMLINUX: usize = 1 << 30;
/// The largest compressed image that is taken.
pub(crate) const LARGEST_IMAGE: usize = 1 << 30;

/// A kernel ready to boot.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) elf: Vec<u8>,
    pub(crate) facts: KernelElf,
    pub(crate) banner: String,
    pub(crate) release: String,
}

/// Unpacks and checks a kernel: a bzImage, a compressed `vmlinux`, or the ELF file itself. `what`
/// names it in errors.
pub(crate) fn open(file: Vec<u8>, what: &str) -> Result<Image, KernelError> {
    let elf = if file.starts_with(elf::MAGIC) {
        file
    } else if bzimage::is_bzimage(&file) {
        bzimage::unpack(&file, LARGEST_VMLINUX, what)?
    } else if let Some(compression) = Compression::sniff(&file) {
        decompress(compression, &file, LARGEST_VMLINUX, what)?
    } else {
        return Err(Error::new(
            KernelErrorKind::NotAKernel,
            format!(
                "{what} is not a kernel: neither a Debian package (.deb), nor a vmlinuz (bzImage), \
                 nor an ELF vmlinux, compressed or not"
            ),
        ));
    };
    let facts = elf::check_kernel(&elf, what)?;
    let banner = elf::banner(&elf).ok_or_else(|| {
        Error::new(
            KernelErrorKind::NotAKernel,
            format!("{what} is an ELF file without the text 'Linux version': not a Linux kernel"),
        )
    })?;
    let release = banner
        .split_ascii_whitespace()
        .nth(2)
        .unwrap_or_default()
        .to_owned();
    Ok(Image {
        elf,
        facts,
        banner,
        release,
    })
}
