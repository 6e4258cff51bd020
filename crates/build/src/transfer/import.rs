//! From an image layout or a `docker save` archive into the store.

use std::io::{self, Read, Write};
use std::path::Path;

use firebuild_oci::layout::{BlobReader, Layout};
use firebuild_oci::{Digest, Hasher, Platform, Reference};
use firebuild_store::Store;

use super::Limits;
use super::error::{TransferError, TransferErrorKind as Kind};
use super::layers::{Wanted, take_in};
use super::pull::record;
use crate::cancel::Cancel;
use crate::event::Sink;
use crate::export::ImageRecord;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// Which image of a layout, and how.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The name in the layout; none if it holds one image only.
    pub name: Option<String>,
    /// What it runs on.
    pub platform: Platform,
    /// Bounds.
    pub limits: Limits,
    /// Whether the reference stands for it in the store afterwards; else it is only called so, for this process.
    pub named: bool,
}

/// Imports an image from the directory or tar at `path`, and makes `reference` stand for it in the store.
///
/// Every digest that the layout gives is verified, and every diff ID.
///
/// # Errors
/// The text names the path, and the layer where there is one.
pub fn import_layout(
    store: &Store,
    path: &Path,
    reference: &Reference,
    options: &ImportOptions,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<ImageRecord, TransferError> {
    let layout = Layout::open(path)?;
    let found = layout.load(layout.find(options.name.as_deref())?, &options.platform)?;
    let wanted: Vec<Wanted> = found
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| Wanted {
            index,
            diff_id: layer.diff_id,
            name: layer.digest.unwrap_or(layer.diff_id).to_string(),
            size: layer.size,
        })
        .collect();
    let limits = &options.limits;
    take_in(
        store,
        &wanted,
        limits,
        sink,
        cancel,
        &|wanted: &Wanted, out: &mut dyn Write, progress: &dyn Fn(u64)| {
            let layer = &found.layers[wanted.index];
            let name = layer.digest.unwrap_or(layer.diff_id).to_string();
            // Without a digest of its own the diff ID is what it is verified by.
            copy_blob(
                layout.open_layer(layer)?,
                &name,
                layer.digest,
                out,
                progress,
            )
        },
    )?;
    record(
        store,
        &found.config.rootfs.diff_ids,
        &found.config_bytes,
        reference,
        found.manifest_digest.as_ref(),
        options.named,
    )
}

/// Copies a layer of a layout to `out`, compressed as it is, and verifies its digest if it has one of its own.
pub(crate) fn copy_blob(
    mut reader: BlobReader,
    name: &str,
    digest: Option<Digest>,
    out: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<(), TransferError> {
    let size = reader.len();
    let failed = |error: io::Error| {
        TransferError::caused(Kind::Io, format!("cannot read layer {name}"), error)
    };
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        out.write_all(&buffer[..count]).map_err(failed)?;
        if digest.is_some() {
            hasher.update(&buffer[..count]);
        }
        progress(size - reader.len());
    }
    let found = digest.map(|_| hasher.finish());
    if found != digest {
        return Err(TransferError::new(
            Kind::Corrupt,
            format!("layer {name} does not have the content that its name says"),
        ));
    }
    Ok(())
}
