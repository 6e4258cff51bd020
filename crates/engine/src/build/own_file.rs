//! Files of this machine that say what a build is: the Dockerfile, the ignore file, an archive.
//!
//! A name may stand for anything that can be opened, as a link in a directory that somebody else made does: a device
//! without an end, a pipe that nobody writes to. So every read has a bound, and every wait ends with the build.

use std::io::{Error, ErrorKind, Read as _, Result};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use firebuild_build::cancel::Cancel;
use firebuild_build::remote::Polled;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::OFlags;

/// Whether a path is something to be read from beginning to end: a file, or a pipe such as a shell's `<(COMMAND)`.
pub(super) fn is_stream(path: &Path) -> bool {
    fs_err::metadata(path).is_ok_and(|meta| meta.is_file() || meta.file_type().is_fifo())
}

/// Opens one; it waits for the other end of a pipe only while it is read.
pub(super) fn open<'a>(path: &Path, cancel: &'a Cancel) -> Result<Polled<'a, fs_err::File>> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = fs_err::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    Ok(Polled { file, cancel })
}

/// The bytes of one, at most `limit`.
pub(super) fn read(path: &Path, limit: u64, cancel: &Cancel) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, cancel)?
        .take(limit + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let message = format!("it is too large: more than {limit} bytes");
        return Err(Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{is_stream, read};
    use firebuild_build::cancel::Cancel;
    use std::io::ErrorKind;
    use std::path::Path;
    use std::time::{Duration, Instant};

    #[test]
    fn what_has_no_end_is_too_large() {
        let cancel = Cancel::new().unwrap();
        let error = read(Path::new("/dev/zero"), 1 << 20, &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert_eq!(read(Path::new("/dev/null"), 9, &cancel).unwrap(), b"");
    }

    #[test]
    fn a_pipe_is_read_to_its_end_or_until_the_stop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(is_stream(&path) && !is_stream(dir.path()));
        let cancel = Cancel::new().unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| read(&path, 99, &cancel));
            fs_err::write(&path, "FROM scratch\n").unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), b"FROM scratch\n");
            let reader = scope.spawn(|| read(&path, 99, &cancel));
            std::thread::sleep(Duration::from_millis(50));
            let begin = Instant::now();
            cancel.raise();
            reader.join().unwrap().unwrap_err();
            assert!(begin.elapsed() < Duration::from_secs(5));
        });
    }
}
