//! The guard between a guest and passt: frames for addresses of the host's own are dropped.
//!
//! passt turns what a guest sends into sockets of the host. With `--no-map-gw` it no longer maps its gateway address to
//! the host's loopback, but a guest whose root writes frames by hand can still address 127.0.0.1, 0.0.0.0, `::1`, `::` or
//! `::ffff:127.0.0.1`, and the version in Debian 12 connects there. So every frame of the guest passes through here:
//!
//! ```text
//! QEMU ══ frames ══▶ guard ══▶ passt        guest to host: looked at
//! QEMU ◀══════════ guard ◀══ passt          host to guest: handed through
//! ```
//!
//! Both sides speak the stream protocol of QEMU's `-netdev stream`: each frame after its length, four bytes, big endian.
//! Only Ethernet types that passt knows go through (ARP, IPv4, IPv6), so nothing can hide in another one.
//!
//! Also dropped: IPv4 link-local addresses. They mean the host's own link, and 169.254.169.254 is where clouds give out
//! the host's credentials.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Longest frame that is taken, in bytes: QEMU's `NET_BUFSIZE` (`include/net/net.h`).
pub const MAX_FRAME_BYTES: usize = 4096 + 65536;
/// Bytes held for one direction.
const BUFFER_BYTES: usize = 256 * 1024;
const LENGTH_BYTES: usize = 4;

/// Whether a frame of the guest may leave it.
#[must_use]
pub fn allows(frame: &[u8]) -> bool {
    let Some((header, packet)) = frame.split_at_checked(14) else {
        return false;
    };
    match header[12..14] {
        // ARP is answered by passt itself.
        [0x08, 0x06] => true,
        [0x08, 0x00] => field::<4>(packet, 16).is_some_and(|to| allows_v4(Ipv4Addr::from(to))),
        [0x86, 0xdd] => field::<16>(packet, 24).is_some_and(|to| allows_v6(Ipv6Addr::from(to))),
        _ => false,
    }
}

fn field<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at + N)?.first_chunk().copied()
}

fn allows_v4(to: Ipv4Addr) -> bool {
    // All of 0.0.0.0/8 is "this host" (RFC 1122, 3.2.1.3); Linux connects 0.0.0.0 to itself.
    !(to.is_loopback() || to.octets()[0] == 0 || to.is_link_local())
}

fn allows_v6(to: Ipv6Addr) -> bool {
    // ::/96 holds `::`, `::1` and the IPv4-compatible addresses; mapped ones reach IPv4 sockets.
    let high = to.segments();
    let embedded = high[..5] == [0; 5] && (high[5] == 0 || high[5] == 0xffff);
    !embedded
}

/// Starts the guard in a thread of its own; it ends when either side closes.
///
/// # Errors
/// When the sockets cannot be made non-blocking or no thread can be had.
pub fn spawn(guest: OwnedFd, network: OwnedFd) -> io::Result<JoinHandle<()>> {
    for side in [&guest, &network] {
        let flags = rustix::fs::fcntl_getfl(side)?;
        rustix::fs::fcntl_setfl(side, flags | rustix::fs::OFlags::NONBLOCK)?;
    }
    std::thread::Builder::new()
        .name("network-guard".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || {
            // A side that is gone is the ordinary end; the machine's owner sees the processes end and says why.
            let _ = relay(&guest, &network);
        })
}

/// Bytes on their way in one direction.
#[derive(Debug)]
struct Pipe {
    buffer: Vec<u8>,
    /// Up to here the bytes have been written.
    written: usize,
    /// Up to here the bytes may be written: whole, allowed frames.
    cleared: usize,
    /// Whether frames are looked at.
    guarded: bool,
}

impl Pipe {
    fn new(guarded: bool) -> Self {
        Self {
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
            cleared: 0,
            guarded,
        }
    }

    fn wants_input(&self) -> bool {
        self.buffer.len() < BUFFER_BYTES
    }

    fn has_output(&self) -> bool {
        self.written < self.cleared
    }

    /// Reads once; `false` at the end of the stream.
    fn fill(&mut self, from: &OwnedFd) -> io::Result<bool> {
        self.compact();
        let start = self.buffer.len();
        self.buffer.resize(BUFFER_BYTES, 0);
        let result = rustix::io::read(from, &mut self.buffer[start..]);
        self.buffer.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.clear_frames()?;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.written);
        self.cleared -= self.written;
        self.written = 0;
    }

    /// Moves `cleared` past every whole frame, and takes out those that may not pass.
    fn clear_frames(&mut self) -> io::Result<()> {
        if !self.guarded {
            self.cleared = self.buffer.len();
            return Ok(());
        }
        let mut read = self.cleared;
        let mut kept = self.cleared;
        while let Some(length) = self.buffer[read..].first_chunk::<LENGTH_BYTES>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length == 0 || length > MAX_FRAME_BYTES {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            let end = read + LENGTH_BYTES + length;
            if end > self.buffer.len() {
                break;
            }
            if allows(&self.buffer[read + LENGTH_BYTES..end]) {
                if kept != read {
                    self.buffer.copy_within(read..end, kept);
                }
                kept += end - read;
            }
            read = end;
        }
        self.buffer.drain(kept..read);
        self.cleared = kept;
        Ok(())
    }

    /// Writes once.
    fn drain(&mut self, to: &OwnedFd) -> io::Result<()> {
        match rustix::io::write(to, &self.buffer[self.written..self.cleared]) {
            Ok(count) => {
                self.written += count;
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn relay(guest: &OwnedFd, network: &OwnedFd) -> io::Result<()> {
    let mut out = Pipe::new(true);
    let mut back = Pipe::new(false);
    loop {
        let wanted = |input: &Pipe, output: &Pipe| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, input.wants_input());
            flags.set(PollFlags::OUT, output.has_output());
            flags
        };
        let mut fds = [
            PollFd::from_borrowed_fd(guest.as_fd(), wanted(&out, &back)),
            PollFd::from_borrowed_fd(network.as_fd(), wanted(&back, &out)),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [guest_ready, network_ready] = [fds[0].revents(), fds[1].revents()];
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        if guest_ready.intersects(readable) && out.wants_input() && !out.fill(guest)? {
            return Ok(());
        }
        if network_ready.intersects(readable) && back.wants_input() && !back.fill(network)? {
            return Ok(());
        }
        // Written at once after reading, without another poll: a full socket answers EAGAIN.
        if out.has_output() {
            out.drain(network)?;
        }
        if back.has_output() {
            back.drain(guest)?;
        }
        let broken = PollFlags::HUP | PollFlags::ERR;
        if (guest_ready.intersects(broken) && !out.wants_input())
            || (network_ready.intersects(broken) && !back.wants_input())
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
