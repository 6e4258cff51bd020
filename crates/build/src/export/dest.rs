//! Where outputs go: files beside their destination that are renamed when they are whole, and standard output.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{Dest, ExportError};
use crate::cancel::Cancel;
pub(super) use crate::stoppable::{Stoppable, StoppableContents, StoppableRead, stopped};

/// What a destination leads to. A rename would put a file in the place of a device or of a link, which nobody asked for.
enum Place {
    /// A file, or nothing yet, behind all links.
    File(PathBuf),
    /// A device, a pipe, or one of the process's own descriptors: it is written to as it is.
    Through,
}

fn place(path: &Path) -> Place {
    // `/dev/stdout` is a link to a descriptor, whatever that is.
    let is_special = ["/dev", "/proc"].iter().any(|dir| path.starts_with(dir));
    match fs_err::metadata(path) {
        Ok(meta) if is_special || !(meta.is_file() || meta.is_dir()) => Place::Through,
        Ok(_) => Place::File(fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned())),
        Err(_) => Place::File(path.to_owned()),
    }
}

/// Opens a destination that is no file, and is none to be.
pub(super) fn through(path: &Path) -> io::Result<Option<File>> {
    match place(path) {
        Place::File(_) => Ok(None),
        Place::Through => File::options().write(true).open(path).map(Some),
    }
}

/// Writes a file beside its destination and renames it when it is whole.
pub(super) fn beside(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let refused = |why| Err(cannot_write(path, io::Error::other(why)));
    if path.is_dir() {
        return refused("there is a directory of this name");
    }
    let Place::File(real) = place(path) else {
        return refused("it is a device or a pipe, and this output takes a file");
    };
    let aside = aside(&real);
    let result = write(&aside)
        .map_err(|error| error.full_at(path))
        .and_then(|()| fs_err::rename(&aside, &real).map_err(|error| cannot_write(path, error)));
    if result.is_err() {
        let _ = fs_err::remove_file(&aside);
    }
    result
}

/// Writes a small file, which is whole or not there: beside its place, then renamed. A device or a pipe is written to as
/// it is.
///
/// # Errors
/// When the place cannot be written; the error names it.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(mut file) = through(path)? {
        return file.write_all(bytes);
    }
    let Place::File(real) = place(path) else {
        return Err(io::Error::other("it is no file any more"));
    };
    let aside = aside(&real);
    fs_err::write(&aside, bytes)
        .and_then(|()| fs_err::rename(&aside, &real))
        .inspect_err(|_| {
            let _ = fs_err::remove_file(&aside);
        })
}

/// A name in the same directory that nobody else uses.
pub(super) fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Streams to standard output, or to a file beside its destination.
pub(super) fn stream(
    dest: &Dest,
    cancel: &Cancel,
    write: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    match dest {
        Dest::Path(path) => {
            let failed = |error| cannot_write(path, error);
            let fill = |file| {
                let mut out = io::BufWriter::with_capacity(1 << 20, Stoppable::new(file, cancel));
                write(&mut out)?;
                out.flush().map_err(failed)
            };
            match through(path).map_err(failed)? {
                Some(file) => fill(file),
                None => beside(path, |aside| fill(File::create(aside).map_err(failed)?)),
            }
        }
        Dest::Stdout | Dest::Within => {
            let mut out =
                io::BufWriter::with_capacity(1 << 20, Stoppable::new(io::stdout().lock(), cancel));
            write(&mut out)?;
            out.flush()
                .map_err(|error| ExportError::io("cannot write to standard output", error))
        }
    }
}

/// The path of a destination that must be one.
pub(super) fn path_of(dest: &Dest) -> Result<&Path, ExportError> {
    match dest {
        Dest::Path(path) => Ok(path),
        Dest::Stdout | Dest::Within => Err(ExportError::io(
            "this output needs a destination on disk",
            io::ErrorKind::InvalidInput.into(),
        )),
    }
}

pub(super) fn cannot_write(path: &Path, error: io::Error) -> ExportError {
    ExportError::io(format!("cannot write {}", path.display()), error).full_at(path)
}

/// Copies an image with its holes: as a clone where the file system can, else range by range.
/// Errors name the place that it is for, `named`.
pub(super) fn copy_sparse(
    source: &Path,
    dest: &Path,
    named: &Path,
    cancel: &Cancel,
) -> Result<(), ExportError> {
    let failed = |error: io::Error| cannot_write(named, error);
    let from = File::open(source).map_err(failed)?;
    let to = File::create(dest).map_err(failed)?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    let size = from.metadata().map_err(failed)?.len();
    to.set_len(size).map_err(failed)?;
    let mut position = 0;
    while position < size {
        let Ok(start) = rustix::fs::seek(&from, rustix::fs::SeekFrom::Data(position)) else {
            break;
        };
        let end = rustix::fs::seek(&from, rustix::fs::SeekFrom::Hole(start))
            .map_err(|error| failed(error.into()))?;
        copy_range(&from, &to, start..end, cancel).map_err(failed)?;
        position = end;
    }
    Ok(())
}

/// Copies a range: in the kernel where it can, which it cannot between some file systems, else through memory.
fn copy_range(from: &File, to: &File, range: Range<u64>, cancel: &Cancel) -> io::Result<()> {
    let (mut read_at, mut write_at) = (range.start, range.start);
    let mut buffer = Vec::new();
    while read_at < range.end {
        if cancel.is_raised() {
            return Err(stopped());
        }
        let left = usize::try_from(range.end - read_at).unwrap_or(usize::MAX);
        let count = if buffer.is_empty() {
            let (read, write) = (Some(&mut read_at), Some(&mut write_at));
            match rustix::fs::copy_file_range(from, read, to, write, left.min(64 << 20)) {
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    buffer.resize(1 << 20, 0);
                    continue;
                }
                other => other?,
            }
        } else {
            let count = left.min(buffer.len());
            from.read_exact_at(&mut buffer[..count], read_at)?;
            to.write_all_at(&buffer[..count], write_at)?;
            read_at += count as u64;
            write_at += count as u64;
            count
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
