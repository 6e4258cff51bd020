//! Unix sockets: `unix(7)`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How much of what was written to a Unix socket its other end has not read yet: nothing exactly when this is 0. More than
/// the bytes themselves, since the kernel's own overhead counts.
///
/// # Errors
/// `ENOTTY`, `EINVAL` when it is no socket.
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (which is TIOCOUTQ, `linux/sockios.h`) writes one int, to `count`, which lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::unread;

    #[test]
    fn what_was_read_does_not_count() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        assert_eq!(unread(near.as_fd()).unwrap(), 0);
        near.write_all(b"four").unwrap();
        near.write_all(b"more").unwrap();
        assert!(unread(near.as_fd()).unwrap() >= 8);
        assert_eq!(unread(far.as_fd()).unwrap(), 0);
        far.read_exact(&mut [0; 5]).unwrap();
        assert!(unread(near.as_fd()).unwrap() > 0);
        far.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(unread(near.as_fd()).unwrap(), 0);
        let file = fs_err::File::open("/dev/null").unwrap();
        assert!(unread(file.as_fd()).is_err());
    }
}
