//! The compressions a kernel comes in, and bounded decompression.
//!
//! Formats are told by their first bytes, as the kernel's own loaders do it
//! (`lib/decompress.c` of Linux). One stream is read; what follows it is ignored, because a kernel
//! image carries the uncompressed length behind its compressed part.

use std::io::{self, Read};

use super::error::{KernelError, KernelErrorKind};
use crate::error::Error;

/// How a byte stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Xz,
    Zstd,
    /// The "legacy" frame of `lz4 -l`, the only one the kernel's build uses.
    Lz4Legacy,
    Bzip2,
    /// The format of `lzma(1)`: no magic number, told by its usual first bytes.
    Lzma,
}

/// Decoders with a window declared by the input may use this much, in KiB. `xz -9` and the kernel's
/// build stay at 128 MiB or below.
const MEMORY_LIMIT_KIB: u32 = 512 * 1024;

/// Blocks of a legacy lz4 frame decompress to at most this (`LZ4_DEFAULT_UNCOMPRESSED_CHUNK_SIZE`
/// in `lib/decompress_unlz4.c` of Linux).
const LZ4_BLOCK: usize = 8 << 20;

/// First bytes of a legacy lz4 frame, as a little-endian number.
const LZ4_LEGACY_MAGIC: u32 = 0x184C_2102;

impl Compression {
    /// Tells the compression by the first bytes; `None` for anything else.
    pub(crate) fn sniff(head: &[u8]) -> Option<Self> {
        const TABLE: [(&[u8], Compression); 7] = [
            (&[0x1f, 0x8b], Compression::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&LZ4_LEGACY_MAGIC.to_le_bytes(), Compression::Lz4Legacy),
            (b"BZh", Compression::Bzip2),
            // lc=3 lp=0 pb=2 and a dictionary that is a power of two of at least 64 KiB, as every
            // encoder writes it.
            (&[0x5d, 0, 0], Compression::Lzma),
            (&[0x1f, 0x9e], Compression::Gzip), // the kernel's "old gzip"
        ];
        TABLE
            .iter()
            .find(|(magic, _)| head.starts_with(magic))
            .map(|&(_, compression)| compression)
    }

    /// A decompressing reader of one stream.
    pub(crate) fn reader<'a>(self, input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Compression::Gzip => Box::new(flate2::read::GzDecoder::new(input)),
            Compression::Xz => Box::new(lzma_rust2::XzReader::new(input, false)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(input)?.single_frame()),
            Compression::Lz4Legacy => Box::new(Lz4Legacy::new(input)?),
            Compression::Bzip2 => Box::new(bzip2::read::BzDecoder::new(input)),
            Compression::Lzma => Box::new(lzma_rust2::LzmaReader::new_mem_limit(
                input,
                MEMORY_LIMIT_KIB,
                None,
            )?),
        })
    }

    /// The name users know.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
            Compression::Lz4Legacy => "lz4",
            Compression::Bzip2 => "bzip2",
            Compression::Lzma => "lzma",
        }
    }
}

/// Reads all of `input`, refusing more than `limit` bytes. `what` names it in errors.
pub(crate) fn read_bounded(
    input: impl Read,
    limit: usize,
    what: &str,
) -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    input.take(bound).read_to_end(&mut bytes).map_err(|error| {
        Error::caused(
            KernelErrorKind::Corrupt,
            format!("cannot read {what}"),
            error,
        )
    })?;
    if bytes.len() > limit {
        return Err(Error::new(
            KernelErrorKind::TooLarge,
            format!("{what} is larger than {} MiB", limit >> 20),
        ));
    }
    Ok(bytes)
}

/// Decompresses a whole buffer, refusing more than `limit` bytes of output.
pub(crate) fn decompress(
    compression: Compression,
    input: &[u8],
    limit: usize,
    what: &str,
) -> Result<Vec<u8>, KernelError> {
    let reader = compression.reader(input).map_err(|error| {
        Error::caused(
            KernelErrorKind::Corrupt,
            format!("cannot decompress {what} ({})", compression.name()),
            error,
        )
    })?;
    read_bounded(reader, limit, what)
}

/// A reader of the legacy lz4 frame: magic, then blocks of `u32 length` and data, to the end.
struct Lz4Legacy<R> {
    input: R,
    block: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Lz4Legacy<R> {
    fn new(mut input: R) -> io::Result<Self> {
        let mut magic = [0; 4];
        input.read_exact(&mut magic)?;
        if u32::from_le_bytes(magic) != LZ4_LEGACY_MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no lz4 legacy frame",
            ));
        }
        Ok(Self {
            input,
            block: Vec::new(),
            at: 0,
            ended: false,
        })
    }

    /// Decompresses the next block. The end of the frame is the end of the input, or four bytes
    /// that are not followed by a block: the length which the kernel's build appends.
    fn next_block(&mut self) -> io::Result<()> {
        let invalid = |message: &'static str| io::Error::new(io::ErrorKind::InvalidData, message);
        let mut length = [0; 4];
        let got = read_up_to(&mut self.input, &mut length)?;
        if got == 0 {
            self.ended = true;
            return Ok(());
        }
        if got < length.len() {
            return Err(invalid("an lz4 block breaks off in its length"));
        }
        let length = u32::from_le_bytes(length);
        if length == LZ4_LEGACY_MAGIC {
            return Ok(()); // frames may follow each other
        }
        // A legacy block that does not compress is a little larger than its content.
        let bound = LZ4_BLOCK + LZ4_BLOCK / 255 + 16;
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let mut data = vec![0; wanted.min(bound)];
        let got = read_up_to(&mut self.input, &mut data)?;
        if got == 0 {
            self.ended = true;
            return Ok(());
        }
        if wanted > bound {
            return Err(invalid("an lz4 block is too large"));
        }
        if got < wanted {
            return Err(invalid("an lz4 block breaks off"));
        }
        self.block = lz4_flex::block::decompress(&data, LZ4_BLOCK)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.at = 0;
        Ok(())
    }
}

impl<R: Read> Read for Lz4Legacy<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && self.at == self.block.len() {
            self.next_block()?;
        }
        let rest = &self.block[self.at..];
        let count = if self.ended {
            0
        } else {
            rest.len().min(buffer.len())
        };
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// Fills `buffer` as far as the input goes.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::{Compression, decompress};
    use crate::kernel::KernelErrorKind;

    /// `printf 'hello hello hello hello\n' | lz4 -l -c`, then the length as the kernel's build adds it.
    const HELLO_LZ4: &[u8] = &[
        0x02, 0x21, 0x4c, 0x18, 0x12, 0, 0, 0, 0x6f, b'h', b'e', b'l', b'l', b'o', b' ', 0x06, 0,
        0, 0x50, b'e', b'l', b'l', b'o', b'\n', 0, 0, 0x18, 0, 0, 0,
    ];

    #[test]
    fn lz4_blocks_that_break_off_or_lie_are_errors() {
        for (name, bytes) in [
            ("length", &[0x02, 0x21, 0x4c, 0x18, 0x12, 0][..]),
            (
                "data",
                &[0x02, 0x21, 0x4c, 0x18, 0x12, 0, 0, 0, 0x6f, b'h'][..],
            ),
            (
                "size",
                &[0x02, 0x21, 0x4c, 0x18, 0xff, 0xff, 0xff, 0x7f, 0x6f][..],
            ),
        ] {
            let error = decompress(Compression::Lz4Legacy, bytes, 1 << 20, name).unwrap_err();
            assert_eq!(error.kind(), KernelErrorKind::Corrupt, "{name}");
        }
    }

    #[test]
    fn output_beyond_the_limit_is_refused() {
        let bomb = zstd::encode_all(&vec![0_u8; 1 << 20][..], 3).unwrap();
        let error = decompress(Compression::Zstd, &bomb, 1 << 10, "bomb").unwrap_err();
        assert_eq!(error.kind(), KernelErrorKind::TooLarge);
    }

    #[test]
    fn sniffs_what_it_knows_and_nothing_else() {
        assert_eq!(Compression::sniff(HELLO_LZ4), Some(Compression::Lz4Legacy));
        assert_eq!(Compression::sniff(b"\x7fELF"), None);
        assert_eq!(Compression::sniff(b""), None);
    }
}
