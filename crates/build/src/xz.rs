//! The frames of an xz stream, watched while it is read: how much memory its decoder would take.
//!
//! Each block of a stream says how large a dictionary it wants, up to 4 GiB, and a small stream of zeros can fill it. The
//! reader of the `lzma-rust2` crate has no bound for that, so the block headers are looked at on their way to it. What is
//! between them is passed on unseen: LZMA2 chunks say how long they are. Whatever is not understood here is passed on, too,
//! and left to the decoder, which then refuses it or is at its end.
//!
//! Source: "The .xz File Format" 1.2.1, <https://tukaani.org/xz/xz-file-format.txt>.

use std::io::{self, Error, ErrorKind, Read};

/// The largest dictionary that is allowed; `xz -9` wants 64 MiB.
const MAX_DICTIONARY: u64 = 256 << 20;
/// The filter that says how large the dictionary is: the last one of every chain.
const LZMA2: u64 = 0x21;
/// How a stream begins.
const MAGIC: &[u8] = b"\xfd7zXZ\0";

/// A reader of an xz stream that fails before a block which wants too much memory.
pub(crate) struct Watched<R> {
    inner: R,
    state: State,
    /// Bytes that were looked at and are still to be passed on, and how many of them were.
    seen: Vec<u8>,
    given: usize,
    /// Bytes that are passed on unseen.
    unseen: u64,
    /// Bytes of a check behind each block of this stream.
    check: u64,
}

/// What comes next.
#[derive(Clone, Copy)]
enum State {
    /// A stream, or zeros between streams.
    Stream,
    /// A block, or the index behind the last one.
    Block,
    /// A chunk of a block of which so many bytes came already.
    Chunk(u64),
    /// A number of the index: how many are left when that is known, and how many bytes came already.
    Index { left: Option<u64>, length: u64 },
    /// Nothing that is looked at.
    Rest,
}

impl<R: Read> Watched<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            state: State::Stream,
            seen: Vec::new(),
            given: 0,
            unseen: 0,
            check: 0,
        }
    }

    /// Looks at further bytes; fewer come at the end of the file.
    fn look(&mut self, count: usize) -> io::Result<&[u8]> {
        let from = self.seen.len();
        (&mut self.inner)
            .take(count as u64)
            .read_to_end(&mut self.seen)?;
        Ok(&self.seen[from..])
    }

    /// Looks at what comes next, and says what then comes.
    fn next(&mut self) -> io::Result<State> {
        match self.state {
            State::Stream => self.stream(),
            State::Block => self.block(),
            State::Chunk(before) => self.chunk(before),
            State::Index { left, length } => self.index(left, length),
            State::Rest => Ok(State::Rest),
        }
    }

    fn stream(&mut self) -> io::Result<State> {
        let head = self.look(4)?;
        if head == [0; 4] {
            return Ok(State::Stream);
        }
        if head != &MAGIC[..4] {
            return Ok(State::Rest);
        }
        let &[z, end, _, flags, ..] = self.look(8)? else {
            return Ok(State::Rest);
        };
        if [z, end] != MAGIC[4..] {
            return Ok(State::Rest);
        }
        // Checks of types 1 to 3 have 4 bytes, the next three twice as many, and so on.
        self.check = match flags & 0xf {
            0 => 0,
            kind => 4 << ((kind - 1) / 3),
        };
        Ok(State::Block)
    }

    fn block(&mut self) -> io::Result<State> {
        let size = match self.look(1)?.first() {
            None => return Ok(State::Rest),
            Some(0) => {
                return Ok(State::Index {
                    left: None,
                    length: 1,
                });
            }
            Some(size) => usize::from(*size),
        };
        match dictionary(self.look(size * 4 + 3)?) {
            None => Ok(State::Rest),
            Some(wanted) if wanted <= MAX_DICTIONARY => Ok(State::Chunk(0)),
            Some(wanted) => Err(Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "to decompress it takes {wanted} bytes of memory; more than {MAX_DICTIONARY} are refused"
                ),
            )),
        }
    }

    /// A chunk, or the end of the block: a byte that says which, then sizes less one, then data.
    fn chunk(&mut self, before: u64) -> io::Result<State> {
        let (header, properties) = match self.look(1)?.first() {
            Some(0) => {
                let padding = (before + 1).next_multiple_of(4) - (before + 1);
                self.unseen = padding + self.check;
                return Ok(State::Block);
            }
            Some(1 | 2) => (2, 0),
            Some(0x80..0xc0) => (4, 0),
            Some(0xc0..) => (4, 1),
            _ => return Ok(State::Rest),
        };
        let &[.., high, low] = self.look(header)? else {
            return Ok(State::Rest);
        };
        self.unseen = properties + u64::from(u16::from_be_bytes([high, low])) + 1;
        Ok(State::Chunk(before + 1 + header as u64 + self.unseen))
    }

    /// One number of the index: how many records there are, then two for each; behind them padding, a checksum and the
    /// footer of the stream.
    fn index(&mut self, left: Option<u64>, length: u64) -> io::Result<State> {
        let (mut number, mut length) = (Number::default(), length);
        loop {
            let Some(byte) = self.look(1)?.first().copied() else {
                return Ok(State::Rest);
            };
            length += 1;
            match number.add(byte) {
                Some(true) => break,
                Some(false) => {}
                None => return Ok(State::Rest),
            }
        }
        let left = match left {
            None => number.value.saturating_mul(2),
            Some(left) => left - 1,
        };
        if left > 0 {
            let left = Some(left);
            return Ok(State::Index { left, length });
        }
        self.unseen = length.next_multiple_of(4) - length + 4 + 12;
        Ok(State::Stream)
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.given < self.seen.len() {
                let count = buffer.len().min(self.seen.len() - self.given);
                buffer[..count].copy_from_slice(&self.seen[self.given..self.given + count]);
                self.given += count;
                return Ok(count);
            }
            self.seen.clear();
            self.given = 0;
            if let State::Rest = self.state {
                return self.inner.read(buffer);
            }
            if self.unseen > 0 {
                let most = usize::try_from(self.unseen).unwrap_or(usize::MAX);
                let most = most.min(buffer.len());
                let count = self.inner.read(&mut buffer[..most])?;
                self.unseen -= count as u64;
                return Ok(count);
            }
            self.state = self.next()?;
            if self.seen.is_empty() && self.unseen == 0 {
                self.state = State::Rest;
            }
        }
    }
}

/// A number of seven bits a byte, the lowest first.
#[derive(Default)]
struct Number {
    value: u64,
    bits: u32,
}

impl Number {
    /// Takes a byte; whether it was the last one. Nothing when it is no such number.
    fn add(&mut self, byte: u8) -> Option<bool> {
        if self.bits > 56 {
            return None;
        }
        self.value |= u64::from(byte & 0x7f) << self.bits;
        self.bits += 7;
        Some(byte & 0x80 == 0)
    }

    /// Takes one off the front of a text.
    fn cut(text: &mut &[u8]) -> Option<u64> {
        let mut number = Self::default();
        loop {
            let (byte, rest) = text.split_first()?;
            *text = rest;
            if number.add(*byte)? {
                return Some(number.value);
            }
        }
    }
}

/// What the header of a block, without its first byte, says about the dictionary.
fn dictionary(header: &[u8]) -> Option<u64> {
    let (flags, mut rest) = header.split_first()?;
    // The sizes of the block, where they are told.
    for _ in 0..((flags >> 6) & 1) + (flags >> 7) {
        Number::cut(&mut rest)?;
    }
    let mut wanted = None;
    for _ in 0..=(flags & 3) {
        let id = Number::cut(&mut rest)?;
        let size = usize::try_from(Number::cut(&mut rest)?).ok()?;
        let properties = rest.get(..size)?;
        rest = &rest[size..];
        if id == LZMA2 {
            wanted = Some(match properties.first()? {
                40 => u64::from(u32::MAX),
                bits @ 0..40 => u64::from(2 | bits & 1) << (bits / 2 + 11),
                _ => return None,
            });
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::Watched;
    use std::io::{Cursor, Read, Write as _};
    use std::process::{Command, Stdio};

    fn decoded(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let watched = Watched::new(Cursor::new(bytes));
        lzma_rust2::XzReader::new(watched, true).read_to_end(&mut out)?;
        Ok(out)
    }

    /// What the real program makes of some text; nothing where it is not installed.
    fn xz(args: &[&str], text: &[u8]) -> Option<Vec<u8>> {
        let mut child = Command::new("xz")
            .args(["-c", "-T1"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut stdin = child.stdin.take()?;
        let text = text.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&text));
        let out = child.wait_with_output().ok()?.stdout;
        writer.join().ok()?.ok()?;
        Some(out)
    }

    /// Text that compresses, then bytes that do not.
    fn sample() -> Vec<u8> {
        let mut bytes = b"a line of text\n".repeat(20_000);
        let mut state = 1_u64;
        for _ in 0..200_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bytes.push(state.to_be_bytes()[0]);
        }
        bytes
    }

    #[test]
    fn what_xz_writes_passes_unchanged() {
        let text = sample();
        let Some(plain) = xz(&[], &text) else {
            return;
        };
        let mut passed = Vec::new();
        let mut watched = Watched::new(Cursor::new(&plain));
        watched.read_to_end(&mut passed).unwrap();
        assert_eq!(passed, plain);
        for args in [
            &["-0"][..],
            &["--check=none"],
            &["--check=crc32", "--x86", "--lzma2=dict=32MiB"],
            &["--check=sha256", "--block-size=10000"],
            &["--block-size=4096", "-0"],
        ] {
            let made = xz(args, &text).unwrap();
            assert_eq!(decoded(&made).unwrap(), text, "{args:?}");
            // Streams one after the other, with and without padding.
            let twice = [&made[..], &plain, &[0; 8], &made].concat();
            assert_eq!(decoded(&twice).unwrap(), text.repeat(3), "{args:?}");
        }
    }

    #[test]
    fn a_dictionary_without_bounds_is_refused_wherever_it_stands() {
        let text = sample();
        let Some(made) = xz(&["--check=sha256", "--block-size=100000"], &text) else {
            return;
        };
        // The header of a block: size, flags, the filter, the length of its properties, the dictionary.
        let hostile = |bytes: &mut Vec<u8>, at: usize| {
            let size = (usize::from(bytes[at]) + 1) * 4;
            let filter = (at..at + size)
                .find(|at| bytes[*at..].starts_with(&[0x21, 1]))
                .unwrap();
            bytes[filter + 2] = 40;
            let mut sum = flate2::Crc::new();
            sum.update(&bytes[at..at + size - 4]);
            bytes[at + size - 4..at + size].copy_from_slice(&sum.sum().to_le_bytes());
        };
        let mut first = made.clone();
        hostile(&mut first, 12);
        let mut second = [&made[..], &made].concat();
        hostile(&mut second, made.len() + 12);
        for bytes in [first, second] {
            let error = decoded(&bytes).unwrap_err();
            assert!(
                error.to_string().contains("4294967295 bytes of memory"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_cut_off_or_no_stream_is_left_to_the_decoder() {
        let Some(made) = xz(&["--block-size=1000"], b"text".repeat(2_000).as_slice()) else {
            return;
        };
        for end in 0..made.len() {
            let mut passed = Vec::new();
            let mut watched = Watched::new(Cursor::new(&made[..end]));
            watched.read_to_end(&mut passed).unwrap();
            assert_eq!(passed, made[..end]);
        }
    }
}
