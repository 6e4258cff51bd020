//! `--output`: what a build shall leave besides its name in the store.
//!
//! The text is that of `docker buildx build --output`: `type=KIND,key=value,…` as one line of CSV, or a bare path for a
//! directory, or `-` for a tar on standard output.

mod attrs;
mod parse;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub(crate) use attrs::{csv, truth};
use firebuild_oci::Reference;

/// One requested result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What it is.
    pub kind: OutputKind,
    /// Where it goes.
    pub dest: Dest,
    /// Times in new layers later than the epoch of the build become that epoch.
    pub rewrite_timestamp: bool,
    /// How an image is put together, for outputs that are images.
    pub image: ImageForm,
}

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// A bootable ext4 image. Without a destination it is the one of the catalogue.
    Ext4,
    /// A read-only EROFS image.
    Erofs,
    /// All files as a cpio archive that a kernel takes as its initial file system.
    Initrd(Packing),
    /// An OCI image layout, as a tar or as a directory.
    Oci {
        /// A tar file and not a directory.
        tar: bool,
    },
    /// What `docker load` reads: an OCI image layout with Docker's `manifest.json`.
    Docker {
        /// A tar file and not a directory.
        tar: bool,
    },
    /// An image under its names: in the store, and in a registry when it is pushed.
    Image(Publication),
    /// All files as one tar.
    Tar,
    /// All files as a directory.
    Dir {
        /// Whether what is there already and not in the result is removed.
        delete: bool,
    },
    /// Nothing: the steps stay in the cache.
    CacheOnly,
}

/// How an image is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// It goes to the registries of its names.
    pub push: bool,
    /// Without a tag, under its digest.
    pub by_digest: bool,
    /// The registries are spoken to over plain HTTP.
    pub insecure: bool,
    /// It is not recorded in the store.
    pub unrecorded: bool,
}

impl OutputKind {
    /// The word of `type=`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Erofs => "erofs",
            Self::Initrd(_) => "initrd",
            Self::Oci { .. } => "oci",
            Self::Docker { .. } => "docker",
            Self::Image(_) => "image",
            Self::Tar => "tar",
            Self::Dir { .. } => "local",
            Self::CacheOnly => "cacheonly",
        }
    }
}

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// gzip, which every tool reads.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
    /// Not at all.
    Uncompressed,
}

/// A compression and how hard it tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// The method.
    pub compression: Compression,
    /// The level: 0 to 9 for gzip, 0 to 22 for zstd. Without it 6 and 3.
    pub level: Option<u8>,
}

/// How an image is put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageForm {
    /// The names in it, in place of the tags of the build.
    pub names: Vec<Reference>,
    /// How its layers are compressed.
    pub packing: Packing,
    /// Layers that a registry has in another form are compressed anew.
    pub force: bool,
    /// Documents are of Docker's types and not of OCI's.
    pub docker_types: bool,
    /// Notes in the manifest.
    pub annotations: Vec<Annotation>,
}

/// One annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Whether it stands in the descriptor of the manifest and not in the manifest.
    pub descriptor: bool,
    /// The platform that it is for; without one, for all.
    pub platform: Option<firebuild_oci::Platform>,
    /// Its name.
    pub key: String,
    /// Its text.
    pub value: String,
}

impl ImageForm {
    /// The annotations of the manifest, or of its descriptor, for a platform.
    pub(super) fn annotations(
        &self,
        descriptor: bool,
        platform: &firebuild_oci::Platform,
    ) -> BTreeMap<String, String> {
        self.annotations
            .iter()
            .filter(|note| note.descriptor == descriptor)
            .filter(|note| {
                note.platform
                    .as_ref()
                    .is_none_or(|wanted| wanted == platform)
            })
            .map(|note| (note.key.clone(), note.value.clone()))
            .collect()
    }
}

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dest {
    /// A file or directory.
    Path(PathBuf),
    /// Standard output.
    Stdout,
    /// The store or a registry: nothing is written beside.
    Within,
}

/// An `--output` that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid output {text:?}: {why}")]
pub struct OutputError {
    text: String,
    why: String,
}

impl Output {
    /// An output with nothing special about it.
    #[must_use]
    pub fn new(kind: OutputKind, dest: Dest) -> Self {
        Self {
            kind,
            dest,
            rewrite_timestamp: false,
            image: ImageForm {
                docker_types: matches!(kind, OutputKind::Docker { .. }),
                ..ImageForm::default()
            },
        }
    }

    /// An image that is pushed under the tags of the build (`--push`).
    #[must_use]
    pub fn push() -> Self {
        let publication = Publication {
            push: true,
            ..Publication::default()
        };
        Self::new(OutputKind::Image(publication), Dest::Within)
    }

    /// Whether it goes to standard output, which then carries nothing else.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.dest == Dest::Stdout
    }

    /// Whether it needs a tag of the build.
    #[must_use]
    pub fn needs_tag(&self) -> bool {
        match self.kind {
            OutputKind::Ext4 => self.dest == Dest::Within,
            OutputKind::Image(_) => self.image.names.is_empty(),
            _ => false,
        }
    }
}
