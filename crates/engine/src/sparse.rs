//! Copies of disk images: their holes stay holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
use rustix::io::Errno;

/// Bytes copied in one go.
const STEP: usize = 1 << 20;

/// A new file of the caller's alone.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Copies a disk image into a new file: by sharing its blocks, else the data without the holes. When `stop` says so it
/// ends with `Interrupted`, and the new file is not whole.
pub(crate) fn copy(from: &Path, to: &Path, stop: &mut dyn FnMut() -> bool) -> io::Result<()> {
    let from = fs_err::File::open(from)?.into_file();
    let to = create(to)?;
    if ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut buffer = vec![0; STEP];
    let mut at = 0;
    while at < size {
        let data = match seek(&from, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = seek(&from, SeekFrom::Hole(data))?.min(size);
        at = data;
        while at < hole {
            if stop() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let rest = usize::try_from(hole - at).unwrap_or(STEP);
            let part = &mut buffer[..rest.min(STEP)];
            from.read_exact_at(part, at)?;
            to.write_all_at(part, at)?;
            at += part.len() as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::{copy, create};

    #[test]
    fn a_copy_has_the_data_and_the_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(&vec![7; 3 << 20], 10 << 20).unwrap();
        file.write_all_at(b"end", (64 << 20) - 3).unwrap();
        copy(&from, &to, &mut || false).unwrap();
        assert!(fs_err::read(&from).unwrap() == fs_err::read(&to).unwrap());
        let blocks = fs_err::metadata(&to).unwrap().blocks();
        assert!(blocks * 512 < 8 << 20, "{blocks} blocks");
        copy(&from, &to, &mut || false).unwrap_err(); // never over an existing file
    }
}
