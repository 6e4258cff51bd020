//! The files in a Debian package, `deb(5)`: an `ar` archive of `debian-binary`, `control.tar.*` and
//! `data.tar.*`, in this order.
//!
//! The data archive is decompressed once into an unnamed temporary file; its members are then read
//! where they lie.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;

use super::codec::{Compression, read_bounded};
use super::error::{KernelError, KernelErrorKind, io};
use super::files::{FileSet, Location};
use crate::error::Error;

/// First bytes of every `ar` archive, and so of every Debian package.
pub(crate) const MAGIC: &[u8] = b"!<arch>\n";

const MEMBER_HEADER: usize = 60;
/// A generic distribution kernel unpacks to about 0.5 GiB; with debug symbols to several.
const LARGEST_DATA: u64 = 8 << 30;
const LARGEST_CONTROL: usize = 64 << 20;

/// The fields of a package's control file that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) package: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    pub(crate) depends: String,
}

/// Reads a package: its control fields come back, its regular files go into `files`. `scratch` is a
/// directory with room for the unpacked package.
pub(crate) fn read(
    path: &Path,
    scratch: &Path,
    files: &mut FileSet,
) -> Result<Control, KernelError> {
    let corrupt = |cause: io::Error| {
        Error::caused(
            KernelErrorKind::Corrupt,
            format!("cannot read the package {}", path.display()),
            cause,
        )
    };
    let mut package = fs_err::File::open(path)
        .map_err(|error| io("read", path, error))?
        .into_file();
    let mut control = None;
    let mut data = false;
    package
        .seek(SeekFrom::Start(MAGIC.len() as u64))
        .map_err(corrupt)?;
    while let Some(member) = next_member(&mut package).map_err(corrupt)? {
        let mut content = (&mut package).take(member.length);
        if let Some(suffix) = member.name.strip_prefix("control.tar") {
            let tar = decoder(suffix, &mut content).map_err(corrupt)?;
            let what = format!("the control file of {}", path.display());
            let tar = read_bounded(tar, LARGEST_CONTROL, &what)?;
            control = Some(control_fields(&tar).map_err(corrupt)?);
        } else if let Some(suffix) = member.name.strip_prefix("data.tar") {
            let tar = decoder(suffix, &mut content).map_err(corrupt)?;
            let archive = spill(tar, scratch, path)?;
            index(archive, files).map_err(corrupt)?;
            data = true;
        }
        package
            .seek(SeekFrom::Start(member.next))
            .map_err(corrupt)?;
    }
    match control {
        Some(control) if data => Ok(control),
        _ => Err(Error::new(
            KernelErrorKind::NotAKernel,
            format!(
                "{} is an ar archive, but not a Debian package",
                path.display()
            ),
        )),
    }
}

struct Member {
    name: String,
    length: u64,
    next: u64,
}

/// Reads a member header: name (16), time (12), owner (6), group (6), mode (8), size (10), "`\n".
fn next_member(package: &mut File) -> io::Result<Option<Member>> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "a broken ar member header");
    let mut header = [0_u8; MEMBER_HEADER];
    let mut filled = 0;
    while filled < header.len() {
        match package.read(&mut header[filled..])? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(invalid()),
            count => filled += count,
        }
    }
    let text = std::str::from_utf8(&header).map_err(|_| invalid())?;
    if !text.ends_with("`\n") {
        return Err(invalid());
    }
    let field = |range: std::ops::Range<usize>| text.get(range).map(str::trim).ok_or_else(invalid);
    let name = field(0..16)?.trim_end_matches('/').to_owned();
    let length: u64 = field(48..58)?.parse().map_err(|_| invalid())?;
    let start = package.stream_position()?;
    let next = start
        .checked_add(length)
        .and_then(|end| end.checked_next_multiple_of(2))
        .ok_or_else(invalid)?;
    Ok(Some(Member { name, length, next }))
}

/// The decompressing reader for a member named `control.tar` or `data.tar` plus `suffix`.
fn decoder<'a>(suffix: &str, content: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let content = io::BufReader::with_capacity(1 << 16, content);
    match suffix {
        "" => Ok(Box::new(content)),
        ".gz" => Compression::Gzip.reader(content),
        ".xz" => Compression::Xz.reader(content),
        ".zst" => Compression::Zstd.reader(content),
        ".bz2" => Compression::Bzip2.reader(content),
        ".lzma" => Compression::Lzma.reader(content),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("unknown compression '{suffix}'"),
        )),
    }
}

/// Decompresses into a temporary file without a name.
fn spill(mut tar: impl Read, scratch: &Path, path: &Path) -> Result<File, KernelError> {
    let mut file =
        tempfile::tempfile_in(scratch).map_err(|error| io("write in", scratch, error))?;
    let mut buffer = vec![0; 1 << 18];
    let mut written = 0_u64;
    loop {
        let count = match tar.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(Error::caused(
                    KernelErrorKind::Corrupt,
                    format!("cannot unpack {}", path.display()),
                    error,
                ));
            }
        };
        written += count as u64;
        if written > LARGEST_DATA {
            return Err(Error::new(
                KernelErrorKind::TooLarge,
                format!(
                    "{} unpacks to more than {} GiB",
                    path.display(),
                    LARGEST_DATA >> 30
                ),
            ));
        }
        file.write_all(&buffer[..count])
            .map_err(|error| io("unpack into", scratch, error))?;
    }
}

/// Notes the place of every regular file of an uncompressed tar archive.
fn index(mut file: File, files: &mut FileSet) -> io::Result<()> {
    file.rewind()?;
    let file = Rc::new(file);
    let mut archive = tar::Archive::new(file.as_ref());
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else {
            continue;
        };
        let location = Location::Archive {
            archive: Rc::clone(&file),
            offset: entry.raw_file_position(),
            length: entry.size(),
        };
        files.insert(name.trim_start_matches("./").to_owned(), location);
    }
    Ok(())
}

/// The first paragraph of the `control` file in a control archive.
fn control_fields(tar: &[u8]) -> io::Result<Control> {
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        if !matches!(entry.path_bytes().as_ref(), b"./control" | b"control") {
            continue;
        }
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        let mut control = Control::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim().to_owned();
            match key {
                "Package" => control.package = value,
                "Version" => control.version = value,
                "Architecture" => control.architecture = value,
                "Depends" => control.depends = value,
                _ => {}
            }
        }
        return Ok(control);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "no control file",
    ))
}
