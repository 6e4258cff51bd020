//! The hash of names in indexed directories: half MD4, the reduced MD4 that ext3 brought (three rounds of eight steps
//! over 32 bytes at a time), with a seed of the file system in place of MD4's initial state.

/// Beyond every hash: what the kernel uses as the end of a directory.
const END: u32 = 0x7FFF_FFFF;

/// Hashes names under a seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameHash {
    seed: [u32; 4],
}

impl NameHash {
    /// With the seed as it lies in the superblock.
    pub(super) fn new(seed: [u8; 16]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(seed.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        if words == [0; 4] {
            words = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];
        }
        Self { seed: words }
    }

    /// The major hash, which is even, and the minor hash. Bytes of the name count as unsigned.
    pub(super) fn of(self, name: &[u8]) -> (u32, u32) {
        let mut state = self.seed;
        let mut rest = name;
        loop {
            half_md4(&mut state, words(rest));
            match rest.get(32..) {
                Some(more) if !more.is_empty() => rest = more,
                _ => break,
            }
        }
        let major = state[1] & !1;
        let major = if major == END << 1 {
            (END - 1) << 1
        } else {
            major
        };
        (major, state[2])
    }
}

/// The next 32 bytes of a name as eight words, big end first; words that the name does not fill begin with, and words
/// behind it are, the length of what is left of the name, in each byte.
fn words(name: &[u8]) -> [u32; 8] {
    let len = u32::try_from(name.len() & 0xFF).unwrap_or(0);
    let pad = len * 0x0101_0101;
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(name.chunks(4)) {
        *word = bytes
            .iter()
            .fold(pad, |word, byte| (word << 8).wrapping_add(u32::from(*byte)));
    }
    words
}

fn half_md4(state: &mut [u32; 4], x: [u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    let choose: Mix = |x, y, z| z ^ (x & (y ^ z));
    let majority: Mix = |x, y, z| (x & y).wrapping_add((x ^ y) & z);
    let parity: Mix = |x, y, z| x ^ y ^ z;
    // Function, constant, order of the words, rotations.
    let rounds: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (choose, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (
            majority,
            0x5A82_7999,
            [1, 3, 5, 7, 0, 2, 4, 6],
            [3, 5, 9, 13],
        ),
        (
            parity,
            0x6ED9_EBA1,
            [3, 7, 2, 6, 1, 5, 0, 4],
            [3, 9, 11, 15],
        ),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, turns) in rounds {
        for (step, word) in order.into_iter().enumerate() {
            let sum = a
                .wrapping_add(mix(b, c, d))
                .wrapping_add(x[word])
                .wrapping_add(constant);
            // The four variables take turns at being the one that changes.
            (a, b, c, d) = (d, sum.rotate_left(turns[step % 4]), b, c);
        }
    }
    for (word, new) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `debugfs -R 'dx_hash -h half_md4 [-s 00010203-0405-0607-0809-0a0b0c0d0e0f] NAME'` of e2fsprogs 1.47.0.
    #[test]
    fn is_what_debugfs_says() {
        let plain = NameHash::new([0; 16]);
        let seeded = NameHash::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        let long: String = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
        for (name, want_plain, want_seeded) in CASES {
            let name = if name == "LONG" { &long } else { name };
            assert_eq!(plain.of(name.as_bytes()), want_plain, "{name}");
            assert_eq!(seeded.of(name.as_bytes()), want_seeded, "{name}");
        }
    }

    type Case = (&'static str, (u32, u32), (u32, u32));
    const CASES: [Case; 5] = [
        ("a", (0xD5FA_7D7A, 0xACB4_8187), (0x0A2F_A3A0, 0x6B8E_D956)),
        (
            "abc",
            (0xD196_A868, 0xC420_EB28),
            (0x3F42_D26A, 0xCB7A_9705),
        ),
        (
            "lost+found",
            (0x591D_E422, 0x6FFC_56E0),
            (0xF06B_5BF6, 0x6B1B_6F5E),
        ),
        (
            "abcdefghijklmnopqrstuvwxyzABCDEF",
            (0x1685_372E, 0xAA3C_0489),
            (0x9849_E2F2, 0x0C91_0D09),
        ),
        (
            "LONG",
            (0xF9CE_E440, 0x3E63_4AB7),
            (0xE86D_7B86, 0xB3B0_3C42),
        ),
    ];
}
