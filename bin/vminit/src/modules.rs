//! Kernel modules: loaded from the initrd, in the order that the host worked out.
//!
//! Distributions sign their modules, and checking a signature is by far the most of loading one: 0.7 s of 1 s for a dozen
//! modules under emulation. Whoever could change these modules could change the kernel that would check them: both come
//! from the host's catalogue, this init and its configuration too. So the signature is taken off first, and a kernel that
//! insists on it (`module.sig_enforce`, lockdown) gets it back. The kernel notes unsigned modules in
//! `/proc/sys/kernel/tainted` (E) and works as ever.

use std::io::{Read, Seek, SeekFrom, Write};

use firebuild_sys::module::{Loaded, load};
use fs_err::{File, OpenOptions};
use rustix::io::Errno;

use crate::journal::Journal;

/// How a signed module ends (`MODULE_SIG_STRING` of the kernel's `include/linux/module_signature.h`).
const MARK: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature` before the mark; its last four bytes are the length of the signature before it, big endian.
const INFO_BYTES: usize = 12;

/// Loads what the list names. A module that does not load is told and left out: what needs it will fail by its own name.
pub(crate) fn load_all(paths: &[String], journal: &mut Journal) {
    for path in paths {
        match load_one(path) {
            Ok(Loaded::New) => journal.debug(&format!("loaded {path}")),
            Ok(Loaded::Already) => journal.debug(&format!("{path} is loaded already")),
            Err(error) => journal.warning(&format!("cannot load the module {path}: {error}")),
        }
    }
}

/// Modules that are loaded later or not at all. Open, since the initrd is emptied meanwhile; with their signatures.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<(String, File)>);

impl Spare {
    /// Keeps what the list names. One that is not there is told.
    pub(crate) fn keep(paths: &[String], journal: &mut Journal) -> Spare {
        let mut kept = Vec::new();
        for path in paths {
            match File::open(path) {
                Ok(file) => kept.push((path.clone(), file)),
                Err(error) => journal.warning(&format!("cannot keep the module {path}: {error}")),
            }
        }
        Spare(kept)
    }

    /// Loads them.
    pub(crate) fn load(self, journal: &mut Journal) {
        for (path, file) in self.0 {
            match load(file.file(), c"") {
                Ok(_) => journal.debug(&format!("loaded {path}")),
                Err(error) => journal.warning(&format!("cannot load the module {path}: {error}")),
            }
        }
    }
}

fn load_one(path: &str) -> std::io::Result<Loaded> {
    // A module that cannot be changed is loaded as it is.
    let signature = take_signature(path).unwrap_or_default();
    let insists = |error: &std::io::Error| {
        let errno = Errno::from_io_error(error);
        matches!(errno, Some(Errno::KEYREJECTED | Errno::PERM))
    };
    match load(File::open(path)?.file(), c"") {
        Err(error) if insists(&error) && !signature.is_empty() => {
            OpenOptions::new()
                .append(true)
                .open(path)?
                .write_all(&signature)?;
            load(File::open(path)?.file(), c"")
        }
        loaded => loaded,
    }
}

/// Cuts the signature off the file and gives it, with all that follows; nothing when there is none.
fn take_signature(path: &str) -> std::io::Result<Vec<u8>> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let tail = INFO_BYTES + MARK.len();
    let Some(at) = size.checked_sub(tail as u64) else {
        return Ok(Vec::new());
    };
    let mut end = vec![0; tail];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut end)?;
    let Some(length) = signature_bytes(&end) else {
        return Ok(Vec::new());
    };
    let Some(begin) = at.checked_sub(length) else {
        return Ok(Vec::new());
    };
    let mut signature = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    file.read_to_end(&mut signature)?;
    file.set_len(begin)?;
    Ok(signature)
}

/// The length of the signature before these last bytes of a module; `None` for a module without one.
fn signature_bytes(end: &[u8]) -> Option<u64> {
    let info = end.strip_suffix(MARK)?;
    let length = info.last_chunk::<4>()?;
    Some(u32::from_be_bytes(*length).into())
}

#[cfg(test)]
mod tests {
    use super::{INFO_BYTES, MARK, take_signature};

    #[test]
    fn a_signature_is_taken_off_whole() {
        let dir = std::env::temp_dir().join(format!("vminit-modules-{}", std::process::id()));
        fs_err::create_dir_all(&dir).unwrap();
        let path = dir.join("a.ko");
        let name = path.to_str().unwrap();
        let signature = [&[0xab; 300][..], &[0; INFO_BYTES - 4], &[0, 0, 1, 44], MARK].concat();
        let whole = [&b"ELF and more"[..], &signature].concat();
        fs_err::write(&path, &whole).unwrap();
        assert_eq!(take_signature(name).unwrap(), signature);
        assert_eq!(fs_err::read(&path).unwrap(), b"ELF and more");
        // Without one, with one that would begin before the file, and shorter than the mark: all stay as they are.
        for other in [&whole[..whole.len() - 1], &whole[200..], b"ELF", b""] {
            fs_err::write(&path, other).unwrap();
            assert_eq!(take_signature(name).unwrap(), b"");
            assert_eq!(fs_err::read(&path).unwrap(), other);
        }
        fs_err::remove_dir_all(&dir).unwrap();
    }
}
