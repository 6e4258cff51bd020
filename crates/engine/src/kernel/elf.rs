//! The little that must be known about ELF files: is it an x86-64 kernel, does it have the PVH entry
//! point, where are its sections.
//!
//! Formats: `elf(5)`; the PVH note is `XEN_ELFNOTE_PHYS32_ENTRY` of
//! `include/xen/interface/elfnote.h` in Linux. Every offset is checked; a file may lie.

use super::error::{KernelError, KernelErrorKind};
use crate::error::Error;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const SECTION_HEADER: usize = 64;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u16 = 62;
const TYPE_EXEC: u16 = 2;
const TYPE_DYN: u16 = 3;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;
const SECTION_NOBITS: u32 = 8;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: a 32-bit entry point that QEMU and Firecracker jump to directly.
const NOTE_PHYS32_ENTRY: u32 = 18;

/// The first bytes of every ELF file.
pub(crate) const MAGIC: &[u8] = b"\x7fELF";

/// What an ELF kernel tells about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelElf {
    /// The PVH note is there: QEMU can boot this file directly.
    pub(crate) pvh: bool,
}

/// Checks that `file` is a whole ELF kernel for x86-64. `what` names it in errors.
pub(crate) fn check_kernel(file: &[u8], what: &str) -> Result<KernelElf, KernelError> {
    let not = |why: &str| {
        Error::new(
            KernelErrorKind::NotAKernel,
            format!("{what} is not a Linux kernel: {why}"),
        )
    };
    let unsupported = |why: &str| {
        Error::new(
            KernelErrorKind::Unsupported,
            format!("{what} cannot be used: {why}"),
        )
    };
    let cut = || {
        Error::new(
            KernelErrorKind::Corrupt,
            format!("{what} is an ELF file that breaks off"),
        )
    };
    if !file.starts_with(MAGIC) {
        return Err(not("no ELF file"));
    }
    if file.len() < HEADER {
        return Err(cut());
    }
    if file[4] != CLASS_64 || file[5] != LITTLE_ENDIAN {
        return Err(unsupported("a 64-bit little-endian kernel is needed"));
    }
    if u16_at(file, 18) != Some(MACHINE_X86_64) {
        return Err(unsupported("it was built for another machine than x86-64"));
    }
    if !matches!(u16_at(file, 16), Some(TYPE_EXEC | TYPE_DYN)) {
        return Err(not(
            "an object file or a module, and no executable (the kernel itself is named vmlinux)",
        ));
    }
    let mut loads = 0_u32;
    let mut pvh = false;
    for header in program_headers(file).ok_or_else(cut)? {
        let kind = u32_at(header, 0).ok_or_else(cut)?;
        let body = slice(file, u64_at(header, 8), u64_at(header, 32));
        match kind {
            SEGMENT_LOAD => {
                body.ok_or_else(cut)?;
                loads += 1;
            }
            SEGMENT_NOTE => pvh |= has_pvh_note(body.ok_or_else(cut)?),
            _ => {}
        }
    }
    if loads == 0 {
        return Err(not("it has nothing to load"));
    }
    Ok(KernelElf { pvh })
}

/// The content of the section called `name`, where the file has one.
pub(crate) fn section<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    if !file.starts_with(MAGIC) || file.get(4) != Some(&CLASS_64) {
        return None;
    }
    let table = usize::try_from(u64_at(file, 40)?).ok()?;
    if usize::from(u16_at(file, 58)?) != SECTION_HEADER {
        return None;
    }
    let count = usize::from(u16_at(file, 60)?);
    let header = |index: usize| {
        let start = table.checked_add(index.checked_mul(SECTION_HEADER)?)?;
        file.get(start..start.checked_add(SECTION_HEADER)?)
    };
    let body = |header: &[u8]| slice(file, u64_at(header, 24), u64_at(header, 32));
    let names = body(header(usize::from(u16_at(file, 62)?))?)?;
    (0..count).filter_map(header).find_map(|header| {
        let at = usize::try_from(u32_at(header, 0)?).ok()?;
        let found = names.get(at..)?.split(|&byte| byte == 0).next()?;
        let has_content = u32_at(header, 4)? != SECTION_NOBITS;
        (found == name.as_bytes() && has_content).then(|| body(header))?
    })
}

/// The kernel's own banner, "Linux version 6.1.0 (builder) (compiler) #1 SMP …", as one line.
pub(crate) fn banner(file: &[u8]) -> Option<String> {
    const START: &[u8] = b"Linux version ";
    const LONGEST: usize = 512;
    let mut from = 0;
    while let Some(found) = find(&file[from..], START) {
        let at = from + found;
        let rest = &file[at..file.len().min(at + LONGEST)];
        // The format string "Linux version %s" is no banner.
        if rest.get(START.len()).is_some_and(u8::is_ascii_digit) {
            let end = rest
                .iter()
                .position(|&byte| byte == 0 || byte == b'\n')
                .unwrap_or(rest.len());
            return Some(String::from_utf8_lossy(&rest[..end]).into_owned());
        }
        from = at + START.len();
    }
    None
}

/// Where `needle` first stands in `hay`.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    // Looking for the first byte alone keeps this quick over tens of megabytes.
    while let Some(found) = hay.get(from..)?.iter().position(|&byte| byte == first) {
        let at = from + found;
        if hay[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

fn program_headers(file: &[u8]) -> Option<std::slice::ChunksExact<'_, u8>> {
    let table = u64_at(file, 32)?;
    if usize::from(u16_at(file, 54)?) != PROGRAM_HEADER {
        return None;
    }
    let size = u64::from(u16_at(file, 56)?).checked_mul(PROGRAM_HEADER as u64)?;
    Some(slice(file, Some(table), Some(size))?.chunks_exact(PROGRAM_HEADER))
}

/// Walks a note segment: `u32 name length, u32 content length, u32 type, name, content`, each part
/// padded to four bytes.
fn has_pvh_note(mut notes: &[u8]) -> bool {
    loop {
        let (Some(name_length), Some(length), Some(kind)) =
            (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8))
        else {
            return false;
        };
        let (Some(name), Some(content)) = (padded(name_length), padded(length)) else {
            return false;
        };
        if kind == NOTE_PHYS32_ENTRY
            && notes.get(12..16) == Some(b"Xen\0".as_slice())
            && name_length == 4
        {
            return true;
        }
        let next = 12_usize
            .checked_add(name)
            .and_then(|at| at.checked_add(content));
        match next.and_then(|next| notes.get(next..)) {
            Some(rest) if !rest.is_empty() => notes = rest,
            _ => return false,
        }
    }
}

fn padded(length: u32) -> Option<usize> {
    usize::try_from(length).ok()?.checked_next_multiple_of(4)
}

fn slice(file: &[u8], offset: Option<u64>, size: Option<u64>) -> Option<&[u8]> {
    let start = usize::try_from(offset?).ok()?;
    let end = start.checked_add(usize::try_from(size?).ok()?)?;
    file.get(start..end)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A little-endian number in a buffer.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

/// A little-endian number in a buffer.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}
