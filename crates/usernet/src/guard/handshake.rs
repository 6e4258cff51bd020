//! The last segment of a handshake, which the passt of Debian 12 keeps to itself.
//!
//! For a client of a published port, passt sends SYN, takes the guest's SYN+ACK, counts the connection as established and
//! says nothing (`tcp_conn_from_sock_finish` of 2023-03 calls `tcp_send_flag` without a flag, which finds nothing that is
//! not acknowledged). The ACK reaches the guest with the client's first data; until then the connection is half open there
//! and `accept` does not return. So a server that speaks first (SSH, MySQL, SMTP) would wait for a client that waits for
//! the server.
//!
//! The guard answers each SYN+ACK with the ACK that is due. From a newer passt the guest gets it twice, which TCP allows.
//! It says nothing that the guest could not have told itself, and nothing reaches passt.

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// FIN, SYN, RST and ACK.
const CONTROL: u8 = 0x17;
const TCP_BYTES: u16 = 20;

/// What the guest may send before passt tells it more: `WINDOW_DEFAULT` of passt, the least that its SYN promised, at the
/// largest scale that it uses (`MAX_WS`). With a smaller scale it is less, for one round trip.
const WINDOW: u16 = 14_600 >> 8;

/// The frame that completes the handshake, for a frame of the guest that is the second step of one.
pub(super) fn completion(frame: &[u8]) -> Option<Vec<u8>> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let to_guest = [&ethernet[6..12], &ethernet[..6], &ethernet[12..14]].concat();
    match ethernet[12..14] {
        [0x08, 0x00] => complete_v4(to_guest, packet),
        [0x86, 0xdd] => complete_v6(to_guest, packet),
        _ => None,
    }
}

fn complete_v4(mut answer: Vec<u8>, packet: &[u8]) -> Option<Vec<u8>> {
    if *packet.get(9)? != TCP {
        return None;
    }
    let segment = packet.get(usize::from(packet[0] & 0xf) * 4..)?;
    let addresses = [packet.get(16..20)?, packet.get(12..16)?].concat();
    let tcp = complete(segment, &addresses)?;
    let length = (20 + TCP_BYTES).to_be_bytes();
    // Do not fragment; it lives for 64 hops.
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, TCP, 0, 0];
    header.extend(addresses);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    answer.extend(header);
    answer.extend(tcp);
    Some(answer)
}

fn complete_v6(mut answer: Vec<u8>, packet: &[u8]) -> Option<Vec<u8>> {
    if *packet.get(6)? != TCP {
        return None;
    }
    let segment = packet.get(40..)?;
    let addresses = [&packet[24..40], &packet[8..24]].concat();
    let tcp = complete(segment, &addresses)?;
    let length = TCP_BYTES.to_be_bytes();
    answer.extend([0x60, 0, 0, 0, length[0], length[1], TCP, 64]);
    answer.extend(addresses);
    answer.extend(tcp);
    Some(answer)
}

/// The ACK for a SYN+ACK, between these addresses (source and destination of the answer).
fn complete(segment: &[u8], addresses: &[u8]) -> Option<Vec<u8>> {
    let header: [u8; 20] = segment.get(..20)?.try_into().ok()?;
    if header[13] & CONTROL != SYN | ACK {
        return None;
    }
    let [from, to, sequence, acknowledged] =
        [&header[..2], &header[2..4], &header[4..8], &header[8..12]];
    let next = u32::from_be_bytes(sequence.try_into().ok()?).wrapping_add(1);
    let mut tcp = [to, from, acknowledged, &next.to_be_bytes()].concat();
    tcp.extend([0x50, ACK]);
    tcp.extend(WINDOW.to_be_bytes());
    tcp.extend([0; 4]);
    let pseudo = [0, TCP, 0, TCP_BYTES.to_be_bytes()[1]];
    let sum = checksum(&[addresses, &pseudo, &tcp]);
    tcp[16..18].copy_from_slice(&sum);
    Some(tcp)
}

/// The Internet checksum (RFC 1071) of parts of even lengths.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let mut sum: u32 = words
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or(u16::MAX)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::{ACK, checksum, completion};

    const GUEST: [u8; 6] = [2, 0xfb, 0, 0, 0, 0x15];
    const GATEWAY: [u8; 6] = [2, 0xfb, 0, 0, 0, 2];

    /// Guest's port 22 to 40000, sequence 0xffffffff, acknowledging 7, with a window scale option.
    fn segment(flags: u8) -> Vec<u8> {
        let mut tcp = [&[0, 22, 0x9c, 0x40][..], &[0xff; 4], &[0, 0, 0, 7]].concat();
        tcp.extend([0x60, flags, 0xff, 0xff, 0xab, 0xcd, 0, 0, 1, 3, 3, 7]);
        tcp
    }

    fn v4(options: usize, flags: u8) -> Vec<u8> {
        let ihl = u8::try_from(5 + options).unwrap();
        let mut frame = [&GATEWAY[..], &GUEST, &[8, 0]].concat();
        frame.extend([0x40 | ihl, 0, 0, 44, 0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend([10, 0, 2, 15, 10, 0, 2, 2]);
        frame.extend(vec![1; options * 4]);
        frame.extend(segment(flags));
        frame
    }

    fn v6(flags: u8) -> Vec<u8> {
        let mut frame = [&GATEWAY[..], &GUEST, &[0x86, 0xdd]].concat();
        frame.extend([0x60, 0, 0, 0, 0, 24, 6, 64]);
        frame.extend([0xaa; 16]);
        frame.extend([0xbb; 16]);
        frame.extend(segment(flags));
        frame
    }

    fn assert_acknowledges(tcp: &[u8], addresses: &[u8]) {
        let expected = [&[0x9c, 0x40, 0, 22][..], &[0, 0, 0, 7], &[0; 4]].concat();
        assert_eq!(tcp[..12], expected, "ports and numbers");
        assert_eq!(tcp[12..14], [0x50, ACK]);
        assert_eq!(tcp.len(), 20);
        assert_eq!(checksum(&[addresses, &[0, 6, 0, 20], tcp]), [0, 0]);
    }

    #[test]
    fn the_second_step_gets_its_third() {
        for options in [0, 2] {
            let answer = completion(&v4(options, 0x12)).unwrap();
            assert_eq!(answer[..14], [&GUEST[..], &GATEWAY, &[8, 0]].concat());
            assert_eq!(answer[26..34], [10, 0, 2, 2, 10, 0, 2, 15]);
            assert_eq!(checksum(&[&answer[14..34]]), [0, 0]);
            assert_acknowledges(&answer[34..], &answer[26..34]);
        }
        // With the bits of explicit congestion notification too.
        let answer = completion(&v6(0x52)).unwrap();
        assert_eq!(answer[22..38], [0xbb; 16]);
        assert_acknowledges(&answer[54..], &answer[22..54]);
    }

    #[test]
    fn nothing_else_gets_an_answer() {
        for flags in [0x02, 0x10, 0x18, 0x11, 0x04, 0x14, 0x16, 0x13, 0x00] {
            assert_eq!(completion(&v4(0, flags)), None, "{flags:#x}");
            assert_eq!(completion(&v6(flags)), None, "{flags:#x}");
        }
        let mut udp = v4(0, 0x12);
        udp[14 + 9] = 17;
        assert_eq!(completion(&udp), None);
        for whole in [v4(0, 0x12), v6(0x12)] {
            let headers = whole.len() - 4;
            for length in 0..headers {
                assert_eq!(completion(&whole[..length]), None, "{length}");
            }
        }
    }
}
