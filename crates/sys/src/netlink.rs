//! Messages of netlink and their attributes: `netlink(7)`, `linux/netlink.h`. For the families that speak it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are flags.
const NLA_FLAGS: u16 = 0xc000;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// A dump comes in pieces of at most 32 KiB (`netlink_dump`).
const PIECE: usize = 64 << 10;
/// How often a list is asked for that changes while it is given.
const ATTEMPTS: u32 = 8;

/// A socket of one netlink family; `None` is `NETLINK_ROUTE`.
pub(crate) fn socket(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )?)
}

/// `struct nlattr`: length without padding, type, value, padded to 4 bytes.
pub(crate) fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("attributes here are far below 64 KiB");
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// An attribute that holds attributes.
pub(crate) fn nested(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    attribute(body, kind | NLA_F_NESTED, value);
}

/// A name as the kernel reads it, with its final NUL.
pub(crate) fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

/// Appends a whole message: `struct nlmsghdr`, then the body.
pub(crate) fn message(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    let length = u32::try_from(HEADER + body.len()).expect("messages here are far below 4 GiB");
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend(0u32.to_ne_bytes());
    out.extend(body);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A message of the kernel.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    flags: u16,
    pub(crate) body: &'a [u8],
}

impl Received<'_> {
    /// The outcome that a message of the kind `NLMSG_ERROR` tells; `None` for any other.
    fn outcome(&self) -> Option<io::Result<()>> {
        if self.kind != NLMSG_ERROR {
            return None;
        }
        let code = self.body.first_chunk::<4>();
        Some(match code.map(|code| i32::from_ne_bytes(*code)) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
            None => Err(nonsense()),
        })
    }
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a message of netlink")
}

/// The messages of one datagram, as far as they are whole.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let header = datagram.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).ok()?;
        let body = datagram.get(HEADER..length)?;
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(Received {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            body,
        })
    })
}

/// The attributes of a message: type without its flags, and value.
pub(crate) fn attributes(mut body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = body.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = body.get(4..length)?;
        body = body.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !NLA_FLAGS;
        Some((kind, value))
    })
}

/// One message, and its acknowledgement.
pub(crate) fn request(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let mut out = Vec::with_capacity(HEADER + body.len());
    message(&mut out, kind, flags | NLM_F_ACK, 1, body);
    send(socket, &out, SendFlags::empty())?;
    let mut answer = [0u8; 4096];
    let (length, _) = recv(socket, &mut answer, RecvFlags::empty())?;
    messages(&answer[..length])
        .find_map(|received| received.outcome())
        .unwrap_or_else(|| Err(nonsense()))
}

/// Sends messages that only work together, of which the last asks for an acknowledgement. The kernel has handled them when
/// this comes back. The first error counts.
pub(crate) fn request_all(socket: &OwnedFd, messages_of_batch: &[u8]) -> io::Result<()> {
    send(socket, messages_of_batch, SendFlags::empty())?;
    let mut outcome = None;
    let mut answer = vec![0u8; PIECE];
    loop {
        let length = match recv(socket, &mut answer[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => length,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        };
        for one in messages(&answer[..length]).filter_map(|received| received.outcome()) {
            outcome = Some(outcome.unwrap_or(Ok(())).and(one));
        }
    }
    outcome.unwrap_or_else(|| Err(nonsense()))
}

/// Asks for a list, and hands out the body of each of its entries.
pub(crate) fn dump(
    socket: &OwnedFd,
    kind: u16,
    body: &[u8],
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut out = Vec::new();
    message(&mut out, kind, NLM_F_DUMP, 1, body);
    for _ in 0..ATTEMPTS {
        send(socket, &out, SendFlags::empty())?;
        let mut entries = Vec::new();
        if collect(socket, &mut entries)? {
            for entry in entries {
                each(&entry);
            }
            return Ok(());
        }
    }
    Err(Errno::INTR.into())
}

/// Collects the entries of a list; whether it did not change meanwhile.
fn collect(socket: &OwnedFd, entries: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    let mut piece = vec![0u8; PIECE];
    let mut steady = true;
    loop {
        let (length, _) = match recv(socket, &mut piece[..], RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            received => received?,
        };
        let mut any = false;
        for received in messages(&piece[..length]) {
            any = true;
            steady &= received.flags & NLM_F_DUMP_INTR == 0;
            match received.outcome() {
                Some(outcome) => outcome?,
                None if received.kind == NLMSG_DONE => return Ok(steady),
                None => entries.push(received.body.to_vec()),
            }
        }
        if !any {
            return Err(nonsense());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{attribute, attributes, message, messages, nested};

    #[test]
    fn attributes_are_padded() {
        let mut body = Vec::new();
        attribute(&mut body, 7, b"abcde");
        assert_eq!(body.len(), 12);
        assert_eq!(&body[..2], &9u16.to_ne_bytes());
        nested(&mut body, 8, b"");
        let read: Vec<(u16, &[u8])> = attributes(&body).collect();
        assert_eq!(read, [(7, &b"abcde"[..]), (8, &b""[..])]);
    }

    #[test]
    fn cut_off_messages_end_the_list() {
        let mut datagram = Vec::new();
        message(&mut datagram, 16, 0, 1, b"one4");
        message(&mut datagram, 17, 0, 2, b"odd");
        let kinds = |bytes: &[u8]| messages(bytes).map(|one| one.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&datagram), [16, 17]);
        assert_eq!(kinds(&datagram[..datagram.len() - 4]), [16]);
        assert_eq!(kinds(&datagram[..10]), []);
        // Lengths that lie: shorter than a header, longer than what is there.
        assert_eq!(kinds(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), []);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0]).count(), 0);
    }
}
