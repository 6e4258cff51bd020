//! Layers compressed for the road. What was compressed once is kept as an artifact of the store.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use firebuild_oci::{Descriptor, Digest, Hasher, media_type};
use firebuild_store::Store;
use serde::{Deserialize, Serialize};

use super::dest::StoppableRead;
use super::{Compression, ExportError, Packing};
use crate::cancel::Cancel;
use crate::key::KeyWriter;

/// Bytes are compressed in pieces of this size, several at once; each is a gzip member of its own (RFC 1952, 2.2).
const PIECE: usize = 1 << 20;
/// The levels that nobody asked for.
const GZIP_LEVEL: u8 = 6;
const ZSTD_LEVEL: u8 = 3;

/// What a compressed layer is called, kept in the cache beside its artifact.
#[derive(Debug, Deserialize, Serialize)]
struct Compressed {
    digest: Digest,
    size: u64,
}

/// A layer in its compressed form: descriptor and file. What was compressed once is kept.
pub(crate) fn compressed(
    store: &Store,
    diff_id: &Digest,
    packing: Packing,
    cancel: &Cancel,
) -> Result<(Descriptor, PathBuf), ExportError> {
    let (media, kind) = match packing.compression {
        Compression::Uncompressed => {
            let descriptor =
                Descriptor::new(media_type::OCI_LAYER, *diff_id, store.blob_size(diff_id)?);
            return Ok((descriptor, store.blob_path(diff_id)));
        }
        Compression::Gzip => (media_type::OCI_LAYER_GZIP, "layer-gzip"),
        Compression::Zstd => (media_type::OCI_LAYER_ZSTD, "layer-zstd"),
    };
    let mut key = KeyWriter::new("compressed/2");
    key.text(kind)
        .digest(diff_id)
        .number(u64::from(level(packing)));
    let key = key.finish();
    if let (Some(record), Some(path)) = (
        store.cache_get::<Compressed>(&key.0),
        store.artifact(kind, &key.0),
    ) {
        return Ok((Descriptor::new(media, record.digest, record.size), path));
    }
    let path = store.temporary()?;
    let result = pack(store, diff_id, packing, &path, cancel);
    let record = match result {
        Ok(record) => record,
        Err(error) => {
            let _ = fs_err::remove_file(&path);
            return Err(ExportError::io("cannot compress a layer", error));
        }
    };
    let path = store.adopt_artifact(kind, &key.0, &path)?;
    store.cache_put(&key.0, &record)?;
    Ok((Descriptor::new(media, record.digest, record.size), path))
}

fn level(packing: Packing) -> u8 {
    packing.level.unwrap_or(match packing.compression {
        Compression::Zstd => ZSTD_LEVEL,
        _ => GZIP_LEVEL,
    })
}

fn pack(
    store: &Store,
    diff_id: &Digest,
    packing: Packing,
    path: &Path,
    cancel: &Cancel,
) -> io::Result<Compressed> {
    let source = store.read_blob_file(diff_id).map_err(io::Error::other)?;
    let source = StoppableRead::new(source, cancel);
    let mut out = Hashing {
        inner: io::BufWriter::with_capacity(PIECE, fs_err::File::create_new(path)?),
        hasher: Hasher::new(),
    };
    squeeze(source, &mut out, packing)?;
    out.flush()?;
    let size = out.hasher.len();
    Ok(Compressed {
        digest: out.hasher.finish(),
        size,
    })
}

/// Compresses a stream for the road: gzip as many members.
fn squeeze(source: impl Read, out: &mut impl Write, packing: Packing) -> io::Result<()> {
    match packing.compression {
        Compression::Gzip => gzip(source, out, level(packing)),
        _ => squeeze_whole(source, out, packing),
    }
}

/// Compresses a stream as one gzip member or zstd frame: the kernel takes each member of an initrd for an archive of its
/// own (`unpack_to_rootfs`). The output depends on the input and on the packing only, not on the machine.
pub(super) fn squeeze_whole(
    source: impl Read,
    out: &mut impl Write,
    packing: Packing,
) -> io::Result<()> {
    let mut source = io::BufReader::with_capacity(PIECE, source);
    match packing.compression {
        Compression::Gzip => {
            let level = flate2::Compression::new(u32::from(level(packing)));
            let mut encoder = flate2::GzBuilder::new().mtime(0).write(out, level);
            io::copy(&mut source, &mut encoder)?;
            encoder.finish().map(|_| ())
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(out, i32::from(level(packing)))?;
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
            io::copy(&mut source, &mut encoder)?;
            encoder.finish().map(|_| ())
        }
        Compression::Uncompressed => io::copy(&mut source, out).map(|_| ()),
    }
}

/// Compresses pieces in parallel; the output depends on the input only, not on the number of threads.
fn gzip(mut source: impl Read, out: &mut impl Write, level: u8) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut first = true;
    loop {
        let mut pieces = Vec::with_capacity(threads);
        while pieces.len() < threads {
            let mut piece = Vec::with_capacity(PIECE);
            (&mut source).take(PIECE as u64).read_to_end(&mut piece)?;
            // An empty layer is one empty member.
            if piece.is_empty() && !(first && pieces.is_empty()) {
                break;
            }
            let last = piece.len() < PIECE;
            pieces.push(piece);
            if last {
                break;
            }
        }
        first = false;
        let done = pieces.last().is_none_or(|piece| piece.len() < PIECE);
        let members = std::thread::scope(|scope| {
            let workers: Vec<_> = pieces
                .iter()
                .map(|piece| scope.spawn(|| member(piece, level)))
                .collect();
            workers
                .into_iter()
                .map(|worker| {
                    worker
                        .join()
                        .unwrap_or_else(|_| Err(io::Error::other("a compressor failed")))
                })
                .collect::<Vec<_>>()
        });
        for member in members {
            out.write_all(&member?)?;
        }
        if done {
            return Ok(());
        }
    }
}

fn member(piece: &[u8], level: u8) -> io::Result<Vec<u8>> {
    // The header holds no time and no name: the same piece gives the same bytes.
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(
        Vec::with_capacity(piece.len() / 2),
        flate2::Compression::new(u32::from(level)),
    );
    encoder.write_all(piece)?;
    encoder.finish()
}

struct Hashing<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
