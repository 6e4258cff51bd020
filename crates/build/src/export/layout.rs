//! OCI image layouts: an image with its layers, compressed for the road.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use firebuild_oci::layout::{LayoutWriter, REF_NAME};
use firebuild_oci::{Descriptor, Digest, Hasher, Index, Manifest, media_type};
use firebuild_rootfs::tar;
use firebuild_rootfs::tree::Time;
use firebuild_store::Store;
use serde::{Deserialize, Serialize};

use super::{Compression, ExportError, ExportErrorKind, Image};
use crate::chain::{Chain, ChainLayer};
use crate::content::{StoreContents, read_layer};
use crate::key::KeyWriter;

/// A layer is compressed in pieces of this size, several at once; each is a gzip member of its own (RFC 1952, 2.2).
const PIECE: usize = 1 << 20;

/// What a compressed layer is called, kept in the cache beside its artifact.
#[derive(Debug, Deserialize, Serialize)]
struct Compressed {
    digest: Digest,
    size: u64,
}

/// Writes an image with `writer`. With `clamp`, times in the layers above the base are not later than that.
pub(super) fn write(
    store: &Store,
    image: &Image<'_>,
    compression: Compression,
    clamp: Option<i64>,
    mut writer: LayoutWriter,
) -> Result<(), ExportError> {
    let failed = |error: firebuild_oci::layout::LayoutError| {
        ExportError::caused(
            ExportErrorKind::Dest,
            "cannot write the image layout",
            error,
        )
    };
    let layers = match clamp {
        None => image.chain.layers(),
        Some(epoch) => rewritten(store, image, epoch)?.layers(),
    };
    let mut descriptors = Vec::with_capacity(layers.len());
    for layer in &layers {
        let (descriptor, path) = compressed(store, &layer.diff_id, compression)?;
        let mut file = fs_err::File::open(&path)
            .map_err(|error| ExportError::io("cannot read a layer", error))?;
        writer.blob(&descriptor, &mut file).map_err(failed)?;
        descriptors.push(descriptor);
    }
    let mut config = image.config.clone();
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let config = config.to_bytes();
    let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
    writer
        .blob(&config_descriptor, &mut config.as_slice())
        .map_err(failed)?;
    let manifest = Manifest::new(config_descriptor, descriptors).to_bytes();
    let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
    writer
        .blob(&descriptor, &mut manifest.as_slice())
        .map_err(failed)?;
    if let Some(name) = image.name {
        descriptor
            .annotations
            .insert(REF_NAME.to_owned(), name.to_owned());
    }
    writer.finish(&Index::new(vec![descriptor])).map_err(failed)
}

/// The chain with the times of the layers above the base rewritten.
fn rewritten(store: &Store, image: &Image<'_>, epoch: i64) -> Result<Arc<Chain>, ExportError> {
    let options = tar::WriteOptions {
        clamp_mtime: Some(Time {
            secs: epoch,
            nanos: 0,
        }),
    };
    let mut chain = Chain::scratch();
    for (index, layer) in image.chain.layers().into_iter().enumerate() {
        let diff_id = if index < image.base_layers {
            layer.diff_id
        } else {
            let entries = read_layer(store, &layer.diff_id)?;
            let path = store.temporary()?;
            let written = fs_err::File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .and_then(|file| {
                    tar::write_layer(
                        &entries,
                        &StoreContents::new(store),
                        tar::Output::File(file.file()),
                        &options,
                    )
                    .map_err(io::Error::other)
                })
                .map_err(|error| ExportError::io("cannot rewrite the times of a layer", error))?;
            let digest = Digest::from_bytes(written.diff_id);
            store.adopt_blob(&path, &digest)?;
            digest
        };
        chain = chain.push(ChainLayer {
            diff_id,
            created: layer.created,
        });
    }
    Ok(chain)
}

/// A layer in its compressed form: descriptor and file. What was compressed once is kept.
pub(crate) fn compressed(
    store: &Store,
    diff_id: &Digest,
    compression: Compression,
) -> Result<(Descriptor, PathBuf), ExportError> {
    let (media, kind) = match compression {
        Compression::Uncompressed => {
            let descriptor =
                Descriptor::new(media_type::OCI_LAYER, *diff_id, store.blob_size(diff_id)?);
            return Ok((descriptor, store.blob_path(diff_id)));
        }
        Compression::Gzip => (media_type::OCI_LAYER_GZIP, "layer-gzip"),
        Compression::Zstd => (media_type::OCI_LAYER_ZSTD, "layer-zstd"),
    };
    let mut key = KeyWriter::new("compressed/1");
    key.text(kind).digest(diff_id);
    let key = key.finish();
    if let (Some(record), Some(path)) = (
        store.cache_get::<Compressed>(&key.0),
        store.artifact(kind, &key.0),
    ) {
        return Ok((Descriptor::new(media, record.digest, record.size), path));
    }
    let path = store.temporary()?;
    let result = pack(store, diff_id, compression, &path);
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

fn pack(
    store: &Store,
    diff_id: &Digest,
    compression: Compression,
    path: &std::path::Path,
) -> io::Result<Compressed> {
    let source = store.read_blob_file(diff_id).map_err(io::Error::other)?;
    let mut out = Hashing {
        inner: io::BufWriter::with_capacity(PIECE, fs_err::File::create_new(path)?),
        hasher: Hasher::new(),
    };
    match compression {
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(&mut out, 3)?;
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
            io::copy(
                &mut io::BufReader::with_capacity(PIECE, source),
                &mut encoder,
            )?;
            encoder.finish()?;
        }
        _ => gzip(source, &mut out)?,
    }
    out.flush()?;
    let size = out.hasher.len();
    Ok(Compressed {
        digest: out.hasher.finish(),
        size,
    })
}

/// Compresses pieces in parallel; the output depends on the input only, not on the number of threads.
fn gzip(mut source: impl Read, out: &mut impl Write) -> io::Result<()> {
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
                .map(|piece| scope.spawn(|| member(piece)))
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

fn member(piece: &[u8]) -> io::Result<Vec<u8>> {
    // The header holds no time and no name: the same piece gives the same bytes.
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(
        Vec::with_capacity(piece.len() / 2),
        flate2::Compression::new(6),
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
