//! Image layouts on disk: OCI's, and the form of it that `docker load` reads.

use std::fs::File;
use std::io;

use firebuild_oci::layout::{CONTAINERD_NAME, LayoutError, LayoutWriter, REF_NAME};
use firebuild_oci::{Descriptor, Index, Reference};
use serde::Serialize;

use super::dest::{Stoppable, StoppableRead, beside, cannot_write, through};
use super::packed::Packed;
use super::{Dest, ExportError, ExportErrorKind, Output, OutputKind};
use crate::cancel::Cancel;

/// An entry of Docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes an image to the destination of `output`.
pub(super) fn write(
    packed: &Packed,
    names: &[Reference],
    output: &Output,
    cancel: &Cancel,
) -> Result<(), ExportError> {
    let docker = matches!(output.kind, OutputKind::Docker { .. });
    let as_tar = matches!(
        output.kind,
        OutputKind::Docker { tar: true } | OutputKind::Oci { tar: true }
    );
    match &output.dest {
        Dest::Path(path) if as_tar => {
            let unwritable = |error| cannot_write(path, error);
            let archive = |file| {
                let out = io::BufWriter::with_capacity(1 << 20, Stoppable::new(file, cancel));
                let writer = LayoutWriter::archive(Box::new(out)).map_err(failed)?;
                fill(packed, names, docker, writer, cancel)
            };
            match through(path).map_err(unwritable)? {
                Some(file) => archive(file),
                None => beside(path, |aside| {
                    archive(File::create(aside).map_err(unwritable)?)
                }),
            }
        }
        Dest::Path(path) => {
            let writer = LayoutWriter::directory(path).map_err(failed)?;
            fill(packed, names, docker, writer, cancel).map_err(|error| error.full_at(path))
        }
        Dest::Stdout | Dest::Within => {
            let out = Box::new(Stoppable::new(io::stdout(), cancel));
            let writer = LayoutWriter::archive(out).map_err(failed)?;
            fill(packed, names, docker, writer, cancel)
        }
    }
}

fn failed(error: LayoutError) -> ExportError {
    ExportError::caused(
        ExportErrorKind::Dest,
        "cannot write the image layout",
        error,
    )
}

fn fill(
    packed: &Packed,
    names: &[Reference],
    docker: bool,
    mut writer: LayoutWriter,
    cancel: &Cancel,
) -> Result<(), ExportError> {
    for layer in &packed.layers {
        let Some(path) = &layer.file else { continue };
        let file = fs_err::File::open(path)
            .map_err(|error| ExportError::io("cannot read a layer", error))?;
        let mut file = StoppableRead::new(file, cancel);
        writer.blob(&layer.descriptor, &mut file).map_err(failed)?;
    }
    writer
        .blob(&packed.config_descriptor, &mut packed.config.as_slice())
        .map_err(failed)?;
    writer
        .blob(&packed.descriptor, &mut packed.manifest.as_slice())
        .map_err(failed)?;
    if docker {
        let text = serde_json::to_vec(&[docker_entry(packed, names)])
            .expect("texts are what JSON can hold");
        writer.file("manifest.json", &text).map_err(failed)?;
    }
    let mut entries: Vec<Descriptor> = names
        .iter()
        .map(|name| {
            let mut entry = packed.descriptor.clone();
            for key in [REF_NAME, CONTAINERD_NAME] {
                entry.annotations.insert(key.to_owned(), name.canonical());
            }
            entry
        })
        .collect();
    if entries.is_empty() {
        entries.push(packed.descriptor.clone());
    }
    writer.finish(&Index::new(entries)).map_err(failed)
}

fn docker_entry(packed: &Packed, names: &[Reference]) -> DockerEntry {
    let blob = |descriptor: &Descriptor| format!("blobs/sha256/{}", descriptor.digest.to_hex());
    DockerEntry {
        config: blob(&packed.config_descriptor),
        repo_tags: names.iter().map(Reference::familiar).collect(),
        layers: packed
            .layers
            .iter()
            .map(|layer| blob(&layer.descriptor))
            .collect(),
    }
}
