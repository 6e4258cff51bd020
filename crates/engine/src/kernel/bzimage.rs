//! The ELF kernel inside a `vmlinuz`.
//!
//! A bzImage is a real-mode setup part, then a decompressor with the compressed ELF in its middle.
//! The setup header says where (Linux `Documentation/arch/x86/boot.rst`, protocol 2.08 and later):
//!
//! ```text
//! 0x1f1 setup_sects (0 means 4)     0x206 version          0x248 payload_offset
//! 0x1fe 0x55 0xaa, 0x202 "HdrS"     0x20e kernel_version   0x24c payload_length
//!
//! protected mode part = (setup_sects + 1) * 512;  payload = that + payload_offset
//! ```
//!
//! The last four bytes of the payload are the uncompressed length: gzip has them by itself, the
//! kernel's build appends them for every other compression.

use super::codec::{Compression, decompress};
use super::elf::{u16_at, u32_at};
use super::error::{KernelError, KernelErrorKind};
use crate::error::Error;

const SECTOR: usize = 512;
const OLDEST_PROTOCOL: u16 = 0x0208;

/// Whether a file starts like a bzImage.
pub(crate) fn is_bzimage(file: &[u8]) -> bool {
    file.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && file.get(0x202..0x206) == Some(b"HdrS")
}

/// The uncompressed kernel in a bzImage, at most `limit` bytes. `what` names it in errors.
pub(crate) fn unpack(file: &[u8], limit: usize, what: &str) -> Result<Vec<u8>, KernelError> {
    let cut = || {
        Error::new(
            KernelErrorKind::Corrupt,
            format!("{what} is a kernel image that breaks off"),
        )
    };
    let version = u16_at(file, 0x206).ok_or_else(cut)?;
    if version < OLDEST_PROTOCOL {
        return Err(Error::new(
            KernelErrorKind::Unsupported,
            format!(
                "{what} speaks boot protocol {}.{:02}, older than 2.08: give the ELF vmlinux",
                version >> 8,
                version & 0xff
            ),
        ));
    }
    let sectors = match file.get(0x1f1).ok_or_else(cut)? {
        0 => 4,
        &sectors => usize::from(sectors),
    };
    let number = |at| {
        u32_at(file, at)
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(cut)
    };
    let (offset, length) = (number(0x248)?, number(0x24c)?);
    let start = (sectors + 1) * SECTOR;
    let payload = start
        .checked_add(offset)
        .and_then(|start| Some(start..start.checked_add(length)?))
        .and_then(|range| file.get(range))
        .filter(|payload| payload.len() > 4)
        .ok_or_else(cut)?;
    if payload.starts_with(super::elf::MAGIC) {
        return Ok(payload.to_vec()); // CONFIG_KERNEL_UNCOMPRESSED
    }
    let Some(compression) = Compression::sniff(payload) else {
        return Err(Error::new(
            KernelErrorKind::Unsupported,
            format!("{what} is a kernel image of an unknown compression: give the ELF vmlinux"),
        ));
    };
    let (body, stated) = payload.split_at(payload.len() - 4);
    let stated = u32_at(stated, 0).ok_or_else(cut)?;
    let body = match compression {
        Compression::Gzip => payload,
        _ => body,
    };
    let kernel = decompress(
        compression,
        body,
        limit,
        &format!("the kernel inside {what}"),
    )?;
    if u32::try_from(kernel.len()) != Ok(stated) {
        return Err(Error::new(
            KernelErrorKind::Corrupt,
            format!(
                "the kernel inside {what} has {} bytes where its image says {stated}",
                kernel.len()
            ),
        ));
    }
    Ok(kernel)
}
