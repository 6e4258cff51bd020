//! The kernel's news about devices: `NETLINK_KOBJECT_UEVENT`, `linux/netlink.h`.
//!
//! For programs that wait for a device without asking again and again: open the socket, look whether the device is there,
//! and if not, wait until the socket is readable and look again. What the messages say is not needed for that.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// The group in which the kernel itself speaks (udev has another one).
const KERNEL_GROUP: u32 = 1;
/// The longest message that the kernel sends (`UEVENT_BUFFER_SIZE` and a header) fits; longer ones are cut.
const MESSAGE_BYTES: usize = 8 * 1024;

/// A socket that is readable when a device has come, gone or changed.
#[derive(Debug)]
pub struct Uevents {
    fd: OwnedFd,
}

impl Uevents {
    /// Listens from now on.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` or `EAFNOSUPPORT` for a kernel without it.
    pub fn open() -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(KOBJECT_UEVENT),
        )?;
        bind(&fd, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self { fd })
    }

    /// Drops the messages that wait.
    ///
    /// # Errors
    /// Those of `recv(2)`; that messages were lost because nobody read them is none.
    pub fn drain(&self) -> io::Result<()> {
        let mut buffer = [0u8; MESSAGE_BYTES];
        loop {
            match recv(&self.fd, &mut buffer, RecvFlags::empty()) {
                Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Uevents;

    #[test]
    fn a_socket_without_news_is_empty() {
        let uevents = Uevents::open().unwrap();
        uevents.drain().unwrap();
    }
}
