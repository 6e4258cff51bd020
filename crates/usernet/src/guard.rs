//! The guard between a guest and passt: the host's loopback stays out of the guest's reach.
//!
//! passt turns what a guest sends into sockets of the host. The gateway's address stands for the host's loopback there, and
//! has to: clients on the host that use a published port at 127.0.0.1 appear to the guest as the gateway, and its answers go
//! there (with `--no-map-gw` UDP answers are lost). Besides, a guest whose root writes frames by hand can address
//! 127.0.0.1, 0.0.0.0, `::1`, `::` or `::ffff:127.0.0.1`, and the version in Debian 12 connects there. So every frame
//! passes through here:
//!
//! ```text
//! QEMU ══ frames ══▶ guard ══▶ passt        guest to host: dropped, or let through
//! QEMU ◀══ frames ══ guard ◀══ passt        host to guest: let through; UDP from the gateway is remembered
//! ```
//!
//! | from the guest to | |
//! |---|---|
//! | the gateway (IPv4), link-local addresses (IPv6; the gateway's is one) | TCP: no opening segment; UDP: answers only |
//! | addresses that mean the host itself, in any disguise | nothing |
//! | IPv4 link-local addresses: the host's own link, 169.254.169.254 of clouds with the host's credentials | nothing |
//! | anything else | let through |
//!
//! Only Ethernet types that passt knows go through (ARP, IPv4, IPv6), so nothing can hide in another one. Three things that
//! passt does wrong are mended on the way: resets without ACK, handshakes without an end (`handshake.rs`), and what it makes
//! of frames that come too close behind an opening segment (`pipe.rs`). Both sides speak the stream protocol of QEMU's `-netdev stream`: each frame after its length, four bytes, big endian.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::guest::GATEWAY_IPV4;
use crate::meter::Limit;

mod handshake;
mod pipe;

use pipe::{Pipe, Way};

/// Send buffer of the sockets that carry frames. passt drops what does not fit and waits for TCP to notice: with the usual
/// 208 KiB a download is four times slower than with twice of it, and ten times slower than with this.
pub const FRAME_BUFFER_BYTES: usize = 4 << 20;
/// Longest frame that is taken, in bytes: QEMU's `NET_BUFSIZE` (`include/net/net.h`).
pub const MAX_FRAME_BYTES: usize = 4096 + 65536;

/// What the gateway said to the guest by UDP, which the guest may answer.
#[derive(Debug)]
pub struct Guard {
    /// Port of the gateway and port of the guest, for IPv6 or not, with the time of the last datagram.
    answers: HashMap<(bool, u16, u16), Instant>,
    now: Instant,
    /// Frames for the guest that passt should have sent, each after its length.
    completions: Vec<u8>,
    /// There is no passt: everything goes through as it is.
    open: bool,
}

/// How long an answer may take: `UDP_CONN_TIMEOUT` of passt.
const ANSWER_TIME: Duration = Duration::from_secs(180);
/// Most datagrams that are remembered; with more, the oldest quarter is forgotten.
const MAX_ANSWERS: usize = 4096;
/// Most bytes of completed handshakes that wait; a guest repeats what got no answer.
const MAX_COMPLETIONS_BYTES: usize = 16 * 1024;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

impl Default for Guard {
    fn default() -> Self {
        Self {
            answers: HashMap::new(),
            now: Instant::now(),
            completions: Vec::new(),
            open: false,
        }
    }
}

impl Guard {
    /// Whether a frame of the guest may leave it.
    #[must_use]
    pub fn allows(&self, frame: &[u8]) -> bool {
        if self.open {
            return true;
        }
        let Some((header, packet)) = frame.split_at_checked(14) else {
            return false;
        };
        match header[12..14] {
            // ARP is answered by passt itself.
            [0x08, 0x06] => true,
            [0x08, 0x00] => self.allows_v4(packet).unwrap_or(false),
            [0x86, 0xdd] => self.allows_v6(packet).unwrap_or(false),
            _ => false,
        }
    }

    fn allows_v4(&self, packet: &[u8]) -> Option<bool> {
        let to = Ipv4Addr::from(field(packet, 16)?);
        // All of 0.0.0.0/8 is "this host" (RFC 1122, 3.2.1.3); Linux connects 0.0.0.0 to itself.
        if to.is_loopback() || to.octets()[0] == 0 || to.is_link_local() {
            return Some(false);
        }
        if to != GATEWAY_IPV4 {
            return Some(true);
        }
        // A fragment could hide ports from us and not from passt.
        let [flags, offset] = field(packet, 6)?;
        let whole = (flags & 0x3f, offset) == (0, 0);
        let payload = packet.get(usize::from(packet[0] & 0xf) * 4..)?;
        Some(whole && self.answers_to(packet[9], payload, false)?)
    }

    fn allows_v6(&self, packet: &[u8]) -> Option<bool> {
        let to = Ipv6Addr::from(field(packet, 24)?);
        // ::/96 holds `::`, `::1` and the IPv4-compatible addresses; mapped ones reach IPv4 sockets.
        let high = to.segments();
        if high[..5] == [0; 5] && (high[5] == 0 || high[5] == 0xffff) {
            return Some(false);
        }
        if !to.is_unicast_link_local() {
            return Some(true);
        }
        self.answers_to(packet[6], packet.get(40..)?, true)
    }

    /// Whether this is an answer to the gateway, or of no consequence.
    fn answers_to(&self, protocol: u8, payload: &[u8], v6: bool) -> Option<bool> {
        match protocol {
            TCP => {
                // passt opens a connection for SYN without ACK, and for nothing else.
                let [flags] = field(payload, 13)?;
                let (syn, ack) = (flags & 0x02 != 0, flags & 0x10 != 0);
                Some(!syn || ack)
            }
            UDP => {
                let [from, to] = ports(payload)?;
                let asked = self.answers.get(&(v6, to, from))?;
                Some(self.now.saturating_duration_since(*asked) < ANSWER_TIME)
            }
            // Neighbour discovery, and echo, which nothing listens for.
            ICMPV6 => Some(v6),
            1 => Some(!v6),
            // Extension headers of IPv6 among them: passt would look behind them.
            _ => Some(false),
        }
    }

    /// Notes what the guest is owed for a frame that may leave it.
    fn complete(&mut self, frame: &[u8]) {
        if !self.open
            && self.completions.len() < MAX_COMPLETIONS_BYTES
            && let Some(answer) = handshake::completion(frame)
        {
            let length = u32::try_from(answer.len()).expect("an acknowledgement is short");
            self.completions.extend(length.to_be_bytes());
            self.completions.extend(answer);
        }
    }

    /// Lets a frame for the guest through: remembers what the gateway says, and mends resets.
    pub fn deliver(&mut self, frame: &mut [u8]) {
        if self.open {
            return;
        }
        let _ = self.remember(frame);
        let _ = mend_reset(frame);
    }

    fn remember(&mut self, frame: &[u8]) -> Option<()> {
        let (header, packet) = frame.split_at_checked(14)?;
        let (v6, payload) = match header[12..14] {
            [0x08, 0x00]
                if *packet.get(9)? == UDP && Ipv4Addr::from(field(packet, 12)?) == GATEWAY_IPV4 =>
            {
                (false, packet.get(usize::from(packet[0] & 0xf) * 4..)?)
            }
            [0x86, 0xdd]
                if *packet.get(6)? == UDP
                    && Ipv6Addr::from(field(packet, 8)?).is_unicast_link_local() =>
            {
                (true, packet.get(40..)?)
            }
            _ => return None,
        };
        let [from, to] = ports(payload)?;
        if self.answers.len() >= MAX_ANSWERS && !self.answers.contains_key(&(v6, from, to)) {
            self.forget_oldest();
        }
        self.answers.insert((v6, from, to), self.now);
        Some(())
    }

    fn forget_oldest(&mut self) {
        let mut times: Vec<Instant> = self.answers.values().copied().collect();
        times.sort_unstable();
        let limit = times[times.len() / 4];
        self.answers.retain(|_, time| *time > limit);
    }
}

/// The passt of Debian 12 refuses a connection by a reset that has an acknowledgement number and no ACK. A guest has to
/// ignore that (RFC 9293, 3.10.7.3), so a refused connection would look like a lost one until it times out.
fn mend_reset(frame: &mut [u8]) -> Option<()> {
    const ACK: u8 = 0x10;
    const RST: u8 = 0x04;
    let tcp = match (*frame.get(12)?, *frame.get(13)?) {
        (0x08, 0x00) if *frame.get(14 + 9)? == TCP => 14 + usize::from(frame[14] & 0xf) * 4,
        (0x86, 0xdd) if *frame.get(14 + 6)? == TCP => 14 + 40,
        _ => return None,
    };
    let header = frame.get_mut(tcp..tcp + 20)?;
    if header[13] & (RST | ACK) != RST || header[8..12] == [0; 4] {
        return None;
    }
    header[13] |= ACK;
    // The checksum is the complement of a sum of 16-bit words, and one of them grew by ACK (RFC 1624, equation 3).
    let sum = u16::from_be_bytes([header[16], header[17]]);
    let (mut new, carry) = (!sum).overflowing_add(ACK.into());
    new += u16::from(carry);
    header[16..18].copy_from_slice(&(!new).to_be_bytes());
    Some(())
}

fn field<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at + N)?.first_chunk().copied()
}

/// Source and destination port of a TCP segment or UDP datagram.
fn ports(payload: &[u8]) -> Option<[u16; 2]> {
    let [a, b, c, d] = field(payload, 0)?;
    Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
}

/// Whether this frame of the guest has, or may have, a TCP segment with SYN in it.
fn opens(frame: &[u8]) -> bool {
    const SYN: u8 = 0x02;
    let Some((header, packet)) = frame.split_at_checked(14) else {
        return false;
    };
    let segment = match header[12..14] {
        [0x08, 0x00] if packet.get(9) == Some(&TCP) => {
            packet.get(usize::from(packet[0] & 0xf) * 4..)
        }
        [0x86, 0xdd] => match packet.get(6) {
            Some(&TCP) => packet.get(40..),
            Some(&(UDP | ICMPV6)) | None => None,
            // passt looks behind extension headers.
            Some(_) => return true,
        },
        _ => None,
    };
    segment
        .and_then(|segment| segment.get(13))
        .is_some_and(|flags| flags & SYN != 0)
}

/// How frames come over the guest's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As on QEMU's `-netdev stream`: a stream socket, each frame after its length.
    Stream,
    /// One frame a read or write: a packet socket or a tap device.
    Packets,
}

/// How much may pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// From the guest.
    pub from_guest: Limit,
    /// To the guest.
    pub to_guest: Limit,
}

/// Starts the guard in a thread of its own; it ends when either side closes.
///
/// # Errors
/// When the sockets cannot be made non-blocking or no thread can be had.
pub fn spawn(guest: OwnedFd, network: OwnedFd, limits: Limits) -> io::Result<JoinHandle<()>> {
    start(guest, network, Framing::Stream, Guard::default(), limits)
}

/// As [`spawn`], between a guest and a tap: nothing is looked at, only counted, because the tap is on a network whose rules
/// do the rest.
///
/// # Errors
/// As [`spawn`].
pub fn shape(guest: OwnedFd, tap: OwnedFd, limits: Limits) -> io::Result<JoinHandle<()>> {
    let guard = Guard {
        open: true,
        ..Guard::default()
    };
    start(guest, tap, Framing::Packets, guard, limits)
}

fn start(
    guest: OwnedFd,
    network: OwnedFd,
    framing: Framing,
    guard: Guard,
    limits: Limits,
) -> io::Result<JoinHandle<()>> {
    for side in [&guest, &network] {
        do_not_block(side)?;
    }
    std::thread::Builder::new()
        .name("network-guard".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || {
            // A side that is gone is the ordinary end; the machine's owner sees the processes end and says why.
            let _ = relay(
                [&guest, &network],
                [Framing::Stream, framing],
                guard,
                limits,
            );
        })
}

/// Lets reads and writes of a descriptor answer at once.
pub(crate) fn do_not_block(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(
        fd,
        flags | rustix::fs::OFlags::NONBLOCK,
    )?)
}

/// Carries frames until a side closes.
pub(crate) fn relay(
    [guest, network]: [&OwnedFd; 2],
    [of_guest, of_network]: [Framing; 2],
    mut guard: Guard,
    limits: Limits,
) -> io::Result<()> {
    let mut out = Pipe::new(Way::FromGuest, of_guest, of_network, limits.from_guest);
    let mut back = Pipe::new(Way::ToGuest, of_network, of_guest, limits.to_guest);
    loop {
        let now = Instant::now();
        // A direction that has used up its share is not read; whoever sends there waits.
        let [out_waits, back_waits] = [&mut out, &mut back].map(|pipe| pipe.meter.wait(now));
        let wanted = |input: &Pipe, waits: bool, output: &Pipe| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, input.wants_input() && !waits);
            flags.set(PollFlags::OUT, output.has_output());
            flags
        };
        let mut fds = [
            PollFd::from_borrowed_fd(guest.as_fd(), wanted(&out, out_waits.is_some(), &back)),
            PollFd::from_borrowed_fd(network.as_fd(), wanted(&back, back_waits.is_some(), &out)),
        ];
        let timeout = out_waits
            .into_iter()
            .chain(back_waits)
            .chain(out.look())
            .min();
        let timeout = timeout.and_then(|wait| Timespec::try_from(wait).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        guard.now = Instant::now();
        let [guest_ready, network_ready] = [fds[0].revents(), fds[1].revents()];
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        if guest_ready.intersects(readable) && out.wants_input() && !out.fill(guest, &mut guard)? {
            return Ok(());
        }
        if network_ready.intersects(readable)
            && back.wants_input()
            && !back.fill(network, &mut guard)?
        {
            return Ok(());
        }
        back.insert(&mut guard.completions);
        // Written at once after reading, without another poll: a full socket answers EAGAIN.
        if out.has_output() || out.look().is_some() {
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
