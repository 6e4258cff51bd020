//! Copies an image of the store into a storage root.
//!
//! Each file is written aside and renamed into place. The metadata goes first and comes last, so that a reader
//! at any moment finds the two that belong together, or a root file system without metadata, which the
//! original takes too. Publishers of one image wait for each other.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use firebuild_oci::{ImageConfig, Reference};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use super::metadata::{Kind, text};
use super::{Place, find};
use crate::cancel::Cancel;
use crate::error::{Cause, Error};
use crate::images;
use crate::paths::Paths;
use crate::sparse;

/// The ext4 file.
pub(super) const ROOTFS: &str = "rootfs";
/// What is known about it.
const METADATA: &str = "metadata.json";
/// The metadata of a base contains that of its own base, and so on.
const LARGEST_METADATA: u64 = 16 << 20;

/// What went wrong while publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// The store does not have the image, or it makes no disk.
    Image,
    /// The storage root cannot be written.
    Io,
}

/// An image that could not be published.
pub type StorageError = Error<StorageErrorKind>;

/// What to publish.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The storage root.
    pub root: &'a Path,
    /// The image, which the store has.
    pub image: &'a Reference,
    /// What it is.
    pub kind: Kind,
    /// What it was made from, where that has a name.
    pub parent: Option<&'a Reference>,
    /// Bytes that the disk has at least.
    pub min_size: Option<u64>,
}

/// Publishes an image, and gives its directory.
///
/// # Errors
/// `Image` when the store cannot give its disk, `Io`.
pub fn publish(
    paths: &Paths,
    request: &Request<'_>,
    cancel: &Cancel,
) -> Result<PathBuf, StorageError> {
    let disk = images::disk_for(paths, request.image, request.min_size, &|_| {}, cancel).map_err(
        |error| {
            Error::caused(
                StorageErrorKind::Image,
                format!("cannot publish {}", request.image.familiar()),
                error,
            )
        },
    )?;
    let place = Place::of(request.image);
    let dir = place.dir(request.root);
    fs_err::create_dir_all(&dir).map_err(|error| io("make", &dir, error))?;
    let lock = fs_err::File::open(&dir).map_err(|error| io("open", &dir, error))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| io("lock", &dir, error))?;

    let parent = request.parent.map(|parent| parent_of(request.root, parent));
    let created = Timestamp::now().as_second();
    let metadata = metadata_text(&place, request, &disk.config, parent.as_ref(), created)
        .map_err(|error| io("write", &dir.join(METADATA), error))?;

    let rootfs = dir.join(ROOTFS);
    let aside = aside(&dir)?;
    let copied = aside.path().join(ROOTFS);
    sparse::copy(&disk.path, &copied, &mut || false)
        .and_then(|()| settle(&copied))
        .map_err(|error| io("write", &rootfs, error))?;
    let described = aside.path().join(METADATA);
    let target = dir.join(METADATA);
    write(&described, &metadata).map_err(|error| io("write", &target, error))?;
    match fs_err::remove_file(&target) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(io("replace", &target, error));
        }
        _ => {}
    }
    fs_err::rename(&copied, &rootfs).map_err(|error| io("write", &rootfs, error))?;
    fs_err::rename(&described, &target).map_err(|error| io("write", &target, error))?;
    lock.sync_all().map_err(|error| io("write", &dir, error))?;
    Ok(dir)
}

fn metadata_text(
    place: &Place,
    request: &Request<'_>,
    config: &ImageConfig,
    parent: Option<&Value>,
    created: i64,
) -> serde_json::Result<Vec<u8>> {
    let tag = request.image.familiar();
    text(place, &tag, &request.kind, config, parent, created)
}

/// The metadata of a base, where it was published; else what its name says.
fn parent_of(root: &Path, parent: &Reference) -> Value {
    let place = Place::of(parent);
    let file = place.dir(root).join(METADATA);
    let known = find(root, parent)
        .filter(|_| fs_err::metadata(&file).is_ok_and(|meta| meta.len() <= LARGEST_METADATA))
        .and_then(|_| fs_err::read(&file).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    known.unwrap_or_else(|| {
        serde_json::json!({
            "Image": { "Org": place.org, "Image": place.image, "Version": place.version },
            "Type": "baseos",
        })
    })
}

/// A directory for what is half-made, on the same file system. Leftovers of a kill -9 go with the next one;
/// the caller holds the lock.
fn aside(dir: &Path) -> Result<tempfile::TempDir, StorageError> {
    const PREFIX: &str = ".tmp-";
    let entries = fs_err::read_dir(dir).map_err(|error| io("list", dir, error))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let path = entry.path();
            fs_err::remove_dir_all(&path).map_err(|error| io("remove", &path, error))?;
        }
    }
    tempfile::Builder::new()
        .prefix(PREFIX)
        .tempdir_in(dir)
        .map_err(|error| io("write in", dir, error))
}

fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = fs_err::File::create_new(path)?;
    file.write_all(content)?;
    drop(file);
    settle(path)
}

/// Readable for everybody, and on the disk.
fn settle(path: &Path) -> std::io::Result<()> {
    let file = fs_err::File::open(path)?;
    file.set_permissions(PermissionsExt::from_mode(0o644))?;
    file.sync_all()
}

fn io(verb: &str, path: &Path, cause: impl Into<Cause>) -> StorageError {
    Error::caused(
        StorageErrorKind::Io,
        format!("cannot {verb} {}", path.display()),
        cause,
    )
}
