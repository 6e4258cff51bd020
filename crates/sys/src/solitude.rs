//! Whether anybody else has a file open: `F_SETLEASE` of `fcntl(2)`.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// `include/uapi/asm-generic/fcntl.h`; the `libc` crate has it for some targets only.
const F_SETSIG: libc::c_int = 10;

/// Whether this description is the only one of its file, whatever else has it open: another process, a loop device, a
/// mapping. It must be open for reading and writing, and the file be ours. Where the kernel cannot tell, as on network file
/// systems, the answer is no.
///
/// The answer is that of a moment: who can find the file by a name can open it afterwards.
#[must_use]
pub fn is_alone(file: &File) -> bool {
    // The kernel grants a write lease to nobody but the only one. Somebody who opens the file in this moment has a signal
    // sent here, which by default would end the process; this one is ignored.
    fcntl(file, F_SETSIG, libc::SIGURG).is_ok()
        && fcntl(file, libc::F_SETLEASE, libc::F_WRLCK).is_ok()
        && fcntl(file, libc::F_SETLEASE, libc::F_UNLCK).is_ok()
}

fn fcntl(file: &File, command: i32, value: i32) -> io::Result<()> {
    // SAFETY: fcntl(2) with these commands takes a number and touches no memory of ours; the descriptor is open.
    if unsafe { libc::fcntl(file.as_raw_fd(), command, value) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_alone;
    use std::fs::File;

    #[test]
    fn whoever_has_it_open_is_seen() {
        let name = format!("firebuild-solitude-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let open = || {
            let mut options = File::options();
            options.create(true).truncate(false).read(true).write(true);
            options.open(&path).unwrap()
        };
        let file = open();
        assert!(is_alone(&file));
        let reader = File::open(&path).unwrap();
        assert!(!is_alone(&file));
        drop(reader);
        let writer = open();
        assert!(!is_alone(&file));
        drop(writer);
        assert!(is_alone(&file));
        fs_err::remove_file(&path).unwrap();
    }
}
