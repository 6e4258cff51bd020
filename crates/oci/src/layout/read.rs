//! Reading layouts.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::archive::Members;
use super::error::{LayoutError, LayoutErrorKind as Kind};
use super::{CONTAINERD_NAME, REF_NAME};
use crate::document::{DocumentError, MAX_CONFIG_BYTES, MAX_ENTRIES, MAX_MANIFEST_BYTES};
use crate::{Descriptor, Digest, Document, ImageConfig, Manifest, Platform, Reference};

/// Indexes may name indexes; deeper than this is no image.
const MAX_DEPTH: usize = 4;

/// A layout that is open for reading.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    place: Place,
    images: Vec<LayoutImage>,
}

#[derive(Debug)]
enum Place {
    Directory,
    Archive(Arc<File>, Members),
}

/// One image that a layout names.
#[derive(Clone, Debug, PartialEq)]
pub struct LayoutImage {
    /// Its names; may be tags only (`latest`), full references, or none.
    pub names: Vec<String>,
    entry: Entry,
}

#[derive(Clone, Debug, PartialEq)]
enum Entry {
    Oci(Box<Descriptor>),
    Docker { config: String, layers: Vec<String> },
}

/// An image of a layout for one platform, all but the content of its layers.
#[derive(Clone, Debug)]
pub struct LoadedImage {
    /// Digest of the manifest, where the layout has one.
    pub manifest_digest: Option<Digest>,
    /// The config's bytes.
    pub config_bytes: Vec<u8>,
    /// The config.
    pub config: ImageConfig,
    /// The layers, lowest first; as many as the config has diff IDs.
    pub layers: Vec<LoadedLayer>,
}

/// One layer of a layout.
#[derive(Clone, Debug)]
pub struct LoadedLayer {
    /// Digest of the uncompressed tar, as the config says.
    pub diff_id: Digest,
    /// Digest of the blob as it is stored, where the layout says so.
    pub digest: Option<Digest>,
    /// Its media type, empty where the layout does not say.
    pub media_type: String,
    /// Length of the blob as it is stored, bytes.
    pub size: u64,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default, deserialize_with = "crate::descriptor::null_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "crate::descriptor::null_default")]
    layers: Vec<String>,
}

impl LayoutImage {
    fn is_digest(&self, text: &str) -> bool {
        match &self.entry {
            Entry::Oci(descriptor) => descriptor.digest.to_string() == text,
            Entry::Docker { .. } => false,
        }
    }
}

impl Layout {
    /// Opens a directory or a tar and reads which images it names.
    ///
    /// # Errors
    /// [`LayoutErrorKind::NotALayout`](super::LayoutErrorKind::NotALayout) if it is neither form.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LayoutError> {
        let path = path.as_ref();
        let io = |error: io::Error| LayoutError::with(Kind::Io, "cannot open an image", error);
        let metadata = fs_err::metadata(path).map_err(io)?;
        let place = if metadata.is_dir() {
            Place::Directory
        } else if metadata.is_file() {
            let mut file = fs_err::File::open(path).map_err(io)?.into_parts().0;
            let members = Members::read(path, &mut file)?;
            Place::Archive(Arc::new(file), members)
        } else {
            return Err(LayoutError::new(
                Kind::NotALayout,
                format!("{} is neither a directory nor a file", path.display()),
            ));
        };
        let mut layout = Self {
            path: path.to_owned(),
            place,
            images: Vec::new(),
        };
        layout.images = layout.read_images()?;
        Ok(layout)
    }

    fn read_images(&self) -> Result<Vec<LayoutImage>, LayoutError> {
        if let Some(bytes) = self.read_small("index.json", MAX_MANIFEST_BYTES)? {
            let Document::Index(index) =
                Document::parse(&bytes, "").map_err(|error| self.bad("index.json", error))?
            else {
                return Err(self.corrupt("index.json", "is no index"));
            };
            let images = index.manifests.into_iter().map(|descriptor| LayoutImage {
                names: [CONTAINERD_NAME, REF_NAME]
                    .iter()
                    .filter_map(|key| descriptor.annotations.get(*key).cloned())
                    .collect(),
                entry: Entry::Oci(Box::new(descriptor)),
            });
            return Ok(images.collect());
        }
        let docker = match self.place {
            Place::Directory => None,
            Place::Archive(..) => self.read_small("manifest.json", MAX_MANIFEST_BYTES)?,
        };
        let Some(bytes) = docker else {
            return Err(LayoutError::new(
                Kind::NotALayout,
                format!(
                    "{} has no index.json and is no archive of docker save",
                    self.path.display()
                ),
            ));
        };
        let images: Vec<DockerImage> =
            serde_json::from_slice(&bytes).map_err(|error| self.bad("manifest.json", error))?;
        if images.len() > MAX_ENTRIES || images.iter().any(|image| image.layers.len() > MAX_ENTRIES)
        {
            return Err(self.corrupt("manifest.json", "has too many entries"));
        }
        let images = images.into_iter().map(|image| LayoutImage {
            names: image.repo_tags,
            entry: Entry::Docker {
                config: image.config,
                layers: image.layers,
            },
        });
        Ok(images.collect())
    }

    /// The images that the layout names.
    pub fn images(&self) -> &[LayoutImage] {
        &self.images
    }

    /// The image of a name; without a name, the only one.
    ///
    /// A name fits if it is the same text or, both read as references, the same reference. A digest is that of the
    /// manifest or index.
    ///
    /// # Errors
    /// [`LayoutErrorKind::NoImage`](super::LayoutErrorKind::NoImage), with the names that there are.
    pub fn find(&self, name: Option<&str>) -> Result<&LayoutImage, LayoutError> {
        let Some(name) = name else {
            return match self.images.as_slice() {
                [only] => Ok(only),
                [] => Err(LayoutError::new(
                    Kind::NoImage,
                    format!("{} holds no image", self.path.display()),
                )),
                _ => Err(LayoutError::new(
                    Kind::NoImage,
                    format!(
                        "{} holds several images, name one: {}",
                        self.path.display(),
                        self.names()
                    ),
                )),
            };
        };
        let wanted: Option<Reference> = name.parse().ok();
        let fits =
            |have: &String| have == name || (wanted.is_some() && have.parse().ok() == wanted);
        self.images
            .iter()
            .find(|image| image.names.iter().any(fits) || image.is_digest(name))
            .ok_or_else(|| {
                LayoutError::new(
                    Kind::NoImage,
                    format!(
                        "{} has no image {name:?}, only: {}",
                        self.path.display(),
                        self.names()
                    ),
                )
            })
    }

    /// The entry of a digest.
    ///
    /// # Errors
    /// [`LayoutErrorKind::NoImage`](super::LayoutErrorKind::NoImage) when the index has none.
    pub fn find_digest(&self, digest: &Digest) -> Result<&LayoutImage, LayoutError> {
        self.images
            .iter()
            .find(|image| matches!(&image.entry, Entry::Oci(entry) if entry.digest == *digest))
            .ok_or_else(|| {
                LayoutError::new(
                    Kind::NoImage,
                    format!("{} has no manifest {digest}", self.path.display()),
                )
            })
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self
            .images
            .iter()
            .flat_map(|image| &image.names)
            .map(String::as_str)
            .take(20)
            .collect();
        if names.is_empty() {
            "images without a name".to_owned()
        } else {
            names.join(", ")
        }
    }

    /// Reads manifest and config of an image for a platform, verified.
    ///
    /// # Errors
    /// The text names the layout and the file in it.
    pub fn load(
        &self,
        image: &LayoutImage,
        platform: &Platform,
    ) -> Result<LoadedImage, LayoutError> {
        let loaded = match &image.entry {
            Entry::Oci(descriptor) => self.load_oci(descriptor, platform)?,
            Entry::Docker { config, layers } => self.load_docker(config, layers)?,
        };
        let made_for = &loaded.config.platform;
        if !made_for.os.is_empty()
            && !made_for.architecture.is_empty()
            && platform.rank(made_for).is_none()
        {
            return Err(LayoutError::new(
                Kind::Platform,
                format!(
                    "the image in {} is made for {made_for}, not for {platform}",
                    self.path.display()
                ),
            ));
        }
        Ok(loaded)
    }

    /// Reads the manifest of what need not be an image; nothing for an archive of `docker save`, which has none.
    ///
    /// # Errors
    /// The text names the layout and the file in it.
    pub fn manifest(
        &self,
        image: &LayoutImage,
        platform: &Platform,
    ) -> Result<Option<Manifest>, LayoutError> {
        match &image.entry {
            Entry::Oci(descriptor) => self
                .manifest_of(descriptor, platform)
                .map(|(_, manifest)| Some(manifest)),
            Entry::Docker { .. } => Ok(None),
        }
    }

    /// Reads a small blob, such as a config, and verifies it.
    ///
    /// # Errors
    /// When it is missing, larger than `limit` bytes, or not what `descriptor` says.
    pub fn small_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, LayoutError> {
        self.verified(descriptor, limit)
    }

    /// The content of a blob, not verified. Independent of the layout, for another thread.
    ///
    /// # Errors
    /// When it is missing or has another size than `descriptor` says.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<BlobReader, LayoutError> {
        self.open_sized(&blob_name(&descriptor.digest), descriptor.size)
    }

    /// Follows indexes to the manifest for a platform.
    fn manifest_of(
        &self,
        top: &Descriptor,
        platform: &Platform,
    ) -> Result<(Digest, Manifest), LayoutError> {
        let mut descriptor = top.clone();
        for _ in 0..MAX_DEPTH {
            let name = blob_name(&descriptor.digest);
            let bytes = self.verified(&descriptor, MAX_MANIFEST_BYTES)?;
            match Document::parse(&bytes, &descriptor.media_type)
                .map_err(|error| self.bad(&name, error))?
            {
                Document::Manifest(found) => return Ok((descriptor.digest, found)),
                Document::Index(index) => {
                    descriptor = index.select(platform).cloned().ok_or_else(|| {
                        LayoutError::new(
                            Kind::Platform,
                            format!("{} has no image for {platform}", self.path.display()),
                        )
                    })?;
                }
            }
        }
        Err(self.corrupt("index.json", "leads from index to index"))
    }

    fn load_oci(&self, top: &Descriptor, platform: &Platform) -> Result<LoadedImage, LayoutError> {
        let (manifest_digest, manifest) = self.manifest_of(top, platform)?;
        let config_bytes = self.verified(&manifest.config, MAX_CONFIG_BYTES)?;
        let name = blob_name(&manifest.config.digest);
        let config = ImageConfig::parse(&config_bytes).map_err(|error| self.bad(&name, error))?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(self.corrupt(&name, "has another number of layers than the manifest"));
        }
        let layers = manifest
            .layers
            .iter()
            .zip(diff_ids)
            .map(|(layer, diff_id)| LoadedLayer {
                diff_id: *diff_id,
                digest: Some(layer.digest),
                media_type: layer.media_type.clone(),
                size: layer.size,
                name: blob_name(&layer.digest),
            })
            .collect();
        Ok(LoadedImage {
            manifest_digest: Some(manifest_digest),
            config_bytes,
            config,
            layers,
        })
    }

    fn load_docker(&self, config: &str, layers: &[String]) -> Result<LoadedImage, LayoutError> {
        let config_bytes = self
            .read_small(config, MAX_CONFIG_BYTES)?
            .ok_or_else(|| self.corrupt(config, "is missing"))?;
        let parsed = ImageConfig::parse(&config_bytes).map_err(|error| self.bad(config, error))?;
        if parsed.rootfs.diff_ids.len() != layers.len() {
            return Err(self.corrupt(config, "has another number of layers than manifest.json"));
        }
        let layers = layers
            .iter()
            .zip(&parsed.rootfs.diff_ids)
            .map(|(name, diff_id)| {
                let size = self
                    .open_name(name)?
                    .ok_or_else(|| self.corrupt(name, "is missing"))?
                    .len();
                Ok(LoadedLayer {
                    diff_id: *diff_id,
                    digest: None,
                    media_type: String::new(),
                    size,
                    name: name.clone(),
                })
            })
            .collect::<Result<_, LayoutError>>()?;
        Ok(LoadedImage {
            manifest_digest: None,
            config_bytes,
            config: parsed,
            layers,
        })
    }

    /// The content of a layer as it is stored, perhaps compressed. Independent of the layout, for another thread.
    ///
    /// # Errors
    /// When it is missing or has another size than the manifest says.
    pub fn open_layer(&self, layer: &LoadedLayer) -> Result<BlobReader, LayoutError> {
        self.open_sized(&layer.name, layer.size)
    }

    fn open_sized(&self, name: &str, size: u64) -> Result<BlobReader, LayoutError> {
        let reader = self
            .open_name(name)?
            .ok_or_else(|| self.corrupt(name, "is missing"))?;
        if reader.len() != size {
            let found = reader.len();
            return Err(self.corrupt(
                name,
                &format!("has {found} bytes where the manifest says {size}"),
            ));
        }
        Ok(reader)
    }

    /// Reads a blob and verifies size and digest.
    fn verified(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, LayoutError> {
        let name = blob_name(&descriptor.digest);
        let bytes = self
            .read_small(&name, limit)?
            .ok_or_else(|| self.corrupt(&name, "is missing"))?;
        if bytes.len() as u64 != descriptor.size || Digest::of(&bytes) != descriptor.digest {
            return Err(self.corrupt(&name, "does not have the content that its name says"));
        }
        Ok(bytes)
    }

    fn read_small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, LayoutError> {
        let Some(reader) = self.open_name(name)? else {
            return Ok(None);
        };
        if reader.len() > limit {
            return Err(self.corrupt(name, &format!("has more than {limit} bytes")));
        }
        let wanted = reader.len();
        let mut bytes = Vec::new();
        reader
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| self.bad(name, error))?;
        if bytes.len() as u64 != wanted {
            return Err(self.corrupt(name, "is cut short"));
        }
        Ok(Some(bytes))
    }

    fn open_name(&self, name: &str) -> Result<Option<BlobReader>, LayoutError> {
        match &self.place {
            Place::Archive(file, members) => {
                Ok(members.find(name).map(|(offset, len)| BlobReader {
                    file: Arc::clone(file),
                    at: offset,
                    end: offset.saturating_add(len),
                }))
            }
            Place::Directory => {
                let path = self.path.join(name);
                match fs_err::metadata(&path) {
                    // A pipe or a device would block or never end.
                    Ok(metadata) if !metadata.is_file() => {
                        return Err(self.corrupt(name, "is no file"));
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(self.bad(name, error)),
                }
                let file = fs_err::File::open(&path)
                    .map_err(|error| self.bad(name, error))?
                    .into_parts()
                    .0;
                let end = file
                    .metadata()
                    .map_err(|error| self.bad(name, error))?
                    .len();
                Ok(Some(BlobReader {
                    file: Arc::new(file),
                    at: 0,
                    end,
                }))
            }
        }
    }

    fn corrupt(&self, name: &str, what: &str) -> LayoutError {
        LayoutError::new(
            Kind::Corrupt,
            format!("{name} in {} {what}", self.path.display()),
        )
    }

    fn bad(&self, name: &str, error: impl Into<ReadFailure>) -> LayoutError {
        let context = format!("cannot read {name} in {}", self.path.display());
        match error.into() {
            ReadFailure::Io(error) => LayoutError::with(Kind::Io, context, error),
            ReadFailure::Document(error) => LayoutError::with(Kind::Corrupt, context, error),
            ReadFailure::Json(error) => LayoutError::with(Kind::Corrupt, context, error),
        }
    }
}

enum ReadFailure {
    Io(io::Error),
    Document(DocumentError),
    Json(serde_json::Error),
}

impl From<io::Error> for ReadFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<DocumentError> for ReadFailure {
    fn from(error: DocumentError) -> Self {
        Self::Document(error)
    }
}

impl From<serde_json::Error> for ReadFailure {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// `blobs/sha256/<hex>`.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.to_hex())
}

/// The bytes of one file of a layout.
#[derive(Debug)]
pub struct BlobReader {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl BlobReader {
    /// Bytes that are left.
    pub fn len(&self) -> u64 {
        self.end - self.at
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.len())
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.file.read_at(&mut buffer[..want], self.at)?;
        if count == 0 && want > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive is cut short",
            ));
        }
        self.at += count as u64;
        Ok(count)
    }
}
