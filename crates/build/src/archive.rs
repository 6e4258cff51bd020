//! Archives that ADD unpacks: a tar, plain or compressed, known by its content and not by its name.
//!
//! Something compressed that is no tar inside, and anything else, is no archive and is copied as it is. The uncompressed
//! tar becomes a blob of the store, so that what is unpacked points into it.

use std::io::{self, BufRead, Read, Write as _};

use firebuild_oci::Digest;
use firebuild_rootfs::layer::Layer;
use firebuild_rootfs::path;
use firebuild_rootfs::tar::{self, Limits, ReadOptions, Whiteouts, looks_like_tar};
use firebuild_rootfs::tree::Opened;
use firebuild_store::Store;

use crate::cancel::Cancel;
use crate::copy::{CopyError, CopyErrorKind};
use crate::stoppable::StoppableRead;

/// Bytes that tell what a file is: a tar header.
pub(crate) const HEAD: usize = 512;
/// An archive that unpacks to more is refused: it is a bomb, or it wants a disk of its own.
const MAX_UNPACKED: u64 = 64 << 30;
/// An archive with more entries is refused: their names and properties are held in memory.
const MAX_ENTRIES: usize = 2_000_000;

/// Reads opened content from its beginning.
struct Reader<'a> {
    opened: &'a Opened,
    position: u64,
    size: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer
            .len()
            .min(usize::try_from(self.size - self.position).unwrap_or(usize::MAX));
        self.opened
            .read_exact_at(&mut buffer[..count], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// The entries of a file that is an archive; nothing if it is none.
///
/// # Errors
/// When it is an archive and is damaged, too large or climbs out of the root.
pub(crate) fn open(
    store: &Store,
    name: &[u8],
    opened: &Opened,
    size: u64,
    cancel: &Cancel,
) -> Result<Option<Layer>, CopyError> {
    let reader = Reader {
        opened,
        position: 0,
        size,
    };
    let reader = io::BufReader::with_capacity(256 << 10, reader);
    match unpack(store, reader, cancel) {
        Ok(found) => Ok(found.map(|(_, layer)| layer)),
        Err(error) => Err(CopyError::caused(
            CopyErrorKind::Archive,
            format!("cannot unpack {}", path::escape(name)),
            error,
        )),
    }
}

/// Whether the beginning of a file is that of a tar or of something compressed.
pub(crate) fn may_be_archive(head: &[u8]) -> bool {
    matches!(decompressed(head), Ok(Some(_)) | Err(_))
}

/// The uncompressed archive behind a reader as a blob, and its entries; nothing if it is no archive.
///
/// # Errors
/// When it cannot be read, or is an archive and is damaged, too large or climbs out of the root.
pub(crate) fn unpack(
    store: &Store,
    reader: impl BufRead,
    cancel: &Cancel,
) -> io::Result<Option<(Digest, Layer)>> {
    let Some(plain) = decompressed(reader)? else {
        return Ok(None);
    };
    // Few bytes may become many, so the stop is looked at behind the decompression.
    let mut plain = StoppableRead::new(plain, cancel);
    let mut head = Vec::with_capacity(HEAD);
    match (&mut plain).take(HEAD as u64).read_to_end(&mut head) {
        Ok(_) if looks_like_tar(&head) => {}
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Err(error),
        // Also when it cannot be decompressed: it only began like something compressed.
        _ => return Ok(None),
    }
    let mut writer = store.blob_writer().map_err(io::Error::other)?;
    writer.write_all(&head)?;
    let copied = io::copy(&mut plain.take(MAX_UNPACKED), &mut writer)?;
    if copied == MAX_UNPACKED {
        return Err(io::Error::other(format!(
            "it unpacks to more than {MAX_UNPACKED} bytes"
        )));
    }
    let digest: Digest = writer.commit(None).map_err(io::Error::other)?;
    let file = store.read_blob_file(&digest).map_err(io::Error::other)?;
    let options = ReadOptions {
        whiteouts: Whiteouts::Keep,
        limits: Limits {
            entries: MAX_ENTRIES,
            ..Limits::default()
        },
    };
    let layer = tar::read_layer(file, *digest.as_bytes(), &options).map_err(io::Error::other)?;
    Ok(Some((digest, layer)))
}

/// The bytes behind a compression that is known by its magic number, or the bytes themselves if they are a tar.
fn decompressed<'a, R: BufRead + 'a>(mut reader: R) -> io::Result<Option<Box<dyn Read + 'a>>> {
    let head = reader.fill_buf()?;
    Ok(Some(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let watched = crate::xz::Watched::new(reader);
            Box::new(lzma_rust2::XzReader::new(watched, true))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(reader)?),
        head if looks_like_tar(head.get(..HEAD).unwrap_or_default()) => Box::new(reader),
        _ => return Ok(None),
    }))
}
