//! Giving the results of a build away.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use firebuild_oci::document::MAX_ENTRIES;
use firebuild_oci::layout::{LayoutWriter, REF_NAME};
use firebuild_oci::registry::{Options, Registry, UploadProgress};
use firebuild_oci::{Descriptor, Digest, Index, Manifest, Reference, media_type};
use firebuild_store::Store;

use super::document::{CONFIG, config};
use super::{CacheTo, Mode, RemoteCache, StepRecord, To};
use crate::cancel::Cancel;
use crate::event::Sink;
use crate::export::{ExportError, ExportErrorKind, Packing, compressed};
use crate::solve::keep;

/// What was exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Records.
    pub records: usize,
    /// Layers.
    pub layers: usize,
    /// Layers that one manifest has no room for.
    pub left_out: usize,
}

/// Writes the results of a build. `result` are the layers of its result, which is all that `mode=min` takes; for
/// `mode=max` the layers that another cache has promised are fetched first.
///
/// # Errors
/// When a layer cannot be read, or the destination refuses.
pub fn write(
    store: &Store,
    to: &CacheTo,
    from: &RemoteCache,
    records: &[StepRecord],
    result: &[Digest],
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<Exported, ExportError> {
    let wanted = |record: &&StepRecord| to.mode == Mode::Max || result.contains(&record.layer);
    let promised: Vec<Digest> = records
        .iter()
        .filter(wanted)
        .map(|record| record.layer)
        .collect();
    // Why one is missing then, the cache has told; it is left out below.
    for record in from
        .bring(store, &promised, sink, cancel)
        .unwrap_or_default()
    {
        keep(store, &record)?;
    }
    let mut seen = BTreeSet::new();
    let mut layers: Vec<Digest> = records
        .iter()
        .filter(wanted)
        .map(|record| record.layer)
        .filter(|layer| seen.insert(*layer) && store.has_blob(layer))
        .collect();
    let left_out = layers.len().saturating_sub(MAX_ENTRIES);
    layers.truncate(MAX_ENTRIES);
    let records: Vec<StepRecord> = records
        .iter()
        .filter(|record| layers.contains(&record.layer))
        .cloned()
        .collect();
    let exported = Exported {
        records: records.len(),
        layers: layers.len(),
        left_out,
    };
    let mut parts: Vec<(Descriptor, PathBuf)> = Vec::with_capacity(layers.len());
    for layer in &layers {
        if cancel.is_raised() {
            return Err(ExportError::io(
                "the export of the cache was stopped",
                std::io::Error::other("stopped"),
            ));
        }
        let packing = Packing {
            compression: to.compression,
            level: None,
        };
        parts.push(compressed(store, layer, packing, cancel)?);
    }
    let config = config(&layers, &records);
    let config_descriptor = Descriptor::of(CONFIG, &config);
    let descriptors = parts.iter().map(|(descriptor, _)| descriptor.clone());
    let manifest = Manifest::new(config_descriptor.clone(), descriptors.collect()).to_bytes();
    let document = Documents {
        parts: &parts,
        config: (config_descriptor, config),
        manifest,
    };
    match &to.to {
        To::Local { dest, tag } => document.into_layout(dest, tag)?,
        To::Registry(reference) => document.into_registry(reference, cancel)?,
        // That one is in the image, which is written elsewhere.
        To::Inline => {}
    }
    Ok(exported)
}

struct Documents<'a> {
    parts: &'a [(Descriptor, PathBuf)],
    config: (Descriptor, Vec<u8>),
    manifest: Vec<u8>,
}

impl Documents<'_> {
    fn into_layout(self, dest: &std::path::Path, tag: &str) -> Result<(), ExportError> {
        let failed = |error: firebuild_oci::layout::LayoutError| {
            ExportError::caused(
                ExportErrorKind::Dest,
                format!("cannot write the cache to {}", dest.display()),
                error,
            )
        };
        let mut writer = LayoutWriter::directory(dest).map_err(failed)?;
        for (descriptor, path) in self.parts {
            let mut file = fs_err::File::open(path)
                .map_err(|error| ExportError::io("cannot read a layer", error))?;
            writer.blob(descriptor, &mut file).map_err(failed)?;
        }
        let (descriptor, config) = &self.config;
        writer
            .blob(descriptor, &mut config.as_slice())
            .map_err(failed)?;
        let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, &self.manifest);
        writer
            .blob(&descriptor, &mut self.manifest.as_slice())
            .map_err(failed)?;
        descriptor
            .annotations
            .insert(REF_NAME.to_owned(), tag.to_owned());
        writer.finish(&Index::new(vec![descriptor])).map_err(failed)
    }

    fn into_registry(self, reference: &Reference, cancel: &Cancel) -> Result<(), ExportError> {
        let failed = |error: firebuild_oci::registry::RegistryError| {
            ExportError::caused(
                ExportErrorKind::Dest,
                format!("cannot push the cache to {}", reference.familiar()),
                error,
            )
        };
        let registry = Registry::new(Options {
            stop: cancel.stop(),
            ..Options::default()
        });
        let silent: UploadProgress = Arc::new(|_| {});
        for (descriptor, path) in self.parts {
            let open = || Ok(Box::new(fs_err::File::open(path)?) as Box<dyn Read + Send>);
            registry
                .push_blob(reference, descriptor, &open, &silent)
                .map_err(failed)?;
        }
        let (descriptor, config) = &self.config;
        let open = || Ok(Box::new(std::io::Cursor::new(config.clone())) as Box<dyn Read + Send>);
        registry
            .push_blob(reference, descriptor, &open, &silent)
            .map_err(failed)?;
        registry
            .push_manifest(reference, media_type::OCI_MANIFEST, &self.manifest)
            .map_err(failed)?;
        Ok(())
    }
}
