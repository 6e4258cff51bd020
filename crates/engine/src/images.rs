//! Images of the store: list, show, remove.

use firebuild_build::cancel::Cancel;
use firebuild_build::event::Sink;
use firebuild_build::export::{ImageRecord, InUse, disk, image};
use firebuild_build::transfer::{ImportOptions, Limits, import_layout};
use firebuild_oci::layout::Layout;
use firebuild_oci::{Platform, Reference};
use firebuild_rootfs::dump::tree_to_text;
use firebuild_store::Store;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

use crate::build::lookup;
use crate::error::{Cause, Error};
use crate::instance::Instances;
use crate::paths::Paths;
use crate::run::ImageDisk;

/// What went wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageErrorKind {
    /// The name breaks the grammar.
    Name,
    /// The store has no such image.
    NotFound,
    /// The store or the image in it cannot be read.
    Store,
}

/// A failed operation on images.
pub type ImageError = Error<ImageErrorKind>;

/// A line of the list.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// The name as people write it.
    pub name: String,
    /// Digest of the manifest.
    pub digest: String,
    /// How many layers it has.
    pub layers: usize,
    /// Bytes of its uncompressed layers.
    pub size: u64,
    /// When its configuration says it was made.
    pub created: Option<String>,
}

/// Opens the store.
pub(crate) fn store(paths: &Paths) -> Result<Store, ImageError> {
    Store::open(paths.store())
        .map_err(|error| Error::caused(ImageErrorKind::Store, "cannot open the image store", error))
}

/// All images, by name. A damaged one is left out.
///
/// # Errors
/// When the store cannot be read.
pub fn list(paths: &Paths) -> Result<Vec<Listed>, ImageError> {
    let store = store(paths)?;
    let refs = store
        .list_refs()
        .map_err(|error| Error::caused(ImageErrorKind::Store, "cannot list images", error))?;
    Ok(refs
        .iter()
        .filter_map(|record| image(&store, record).ok())
        .map(|image| Listed {
            name: image
                .name
                .parse::<Reference>()
                .map_or(image.name.clone(), |name| name.familiar()),
            digest: image.manifest.to_string(),
            layers: image.chain.len(),
            size: image.size,
            created: image.config.created.clone(),
        })
        .collect())
}

/// An image by name.
///
/// # Errors
/// When the name is wrong, or the image is not there or damaged.
pub fn find(store: &Store, name: &str) -> Result<ImageRecord, ImageError> {
    let reference: Reference = name.parse().map_err(|error| {
        Error::caused(
            ImageErrorKind::Name,
            format!("invalid image reference {name:?}"),
            error,
        )
    })?;
    let record = store
        .get_ref(&reference)
        .map_err(|error| {
            Error::caused(ImageErrorKind::Store, "cannot read the image store", error)
        })?
        .ok_or_else(|| {
            Error::new(
                ImageErrorKind::NotFound,
                format!("no image {:?} in the store", reference.familiar()),
            )
        })?;
    image(store, &record).map_err(|error| {
        Error::caused(
            ImageErrorKind::Store,
            format!("cannot read the image {:?}", reference.familiar()),
            error,
        )
    })
}

/// Every file of an image with its metadata: the text form of its tree.
///
/// # Errors
/// When the image is not there or damaged.
pub fn tree_text(paths: &Paths, name: &str) -> Result<String, ImageError> {
    let store = store(paths)?;
    let image = find(&store, name)?;
    let tree = image.chain.tree(&store).map_err(|error| {
        Error::caused(
            ImageErrorKind::Store,
            format!("cannot read the files of {name:?}"),
            error,
        )
    })?;
    Ok(tree_to_text(&tree))
}

/// An image's configuration as JSON.
///
/// # Errors
/// When the image is not there or damaged.
pub fn config_text(paths: &Paths, name: &str) -> Result<String, ImageError> {
    let store = store(paths)?;
    let image = find(&store, name)?;
    serde_json::to_string_pretty(&image.config).map_err(|error| {
        Error::caused(
            ImageErrorKind::Store,
            "cannot write the configuration",
            error,
        )
    })
}

/// Takes a name away. The content stays until the store is pruned.
///
/// # Errors
/// When there is no such name.
pub fn remove(paths: &Paths, name: &str) -> Result<(), ImageError> {
    let store = store(paths)?;
    let reference: Reference = name.parse().map_err(|error| {
        Error::caused(
            ImageErrorKind::Name,
            format!("invalid image reference {name:?}"),
            error,
        )
    })?;
    match store.remove_ref(&reference) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(
            ImageErrorKind::NotFound,
            format!("no image {:?} in the store", reference.familiar()),
        )),
        Err(error) => Err(Error::caused(
            ImageErrorKind::Store,
            "cannot write the image store",
            error,
        )),
    }
}

/// Imports an image from an OCI layout or a `docker save` archive, and gives the name that it has now.
///
/// # Errors
/// When the layout is damaged, holds several images and none was named, or has no name and none was given.
pub fn load(
    paths: &Paths,
    file: &Path,
    tag: Option<&Reference>,
    cancel: &Cancel,
) -> Result<Reference, ImageError> {
    let store = store(paths)?;
    let failed = |error| {
        Error::caused(
            ImageErrorKind::Store,
            format!("cannot load {}", file.display()),
            error,
        )
    };
    let reference = match tag {
        Some(tag) => tag.clone(),
        None => {
            let name = Layout::open(file)
                .and_then(|layout| layout.find(None).map(|image| image.names.first().cloned()))
                .map_err(|error| {
                    Error::caused(
                        ImageErrorKind::Store,
                        format!("cannot load {}", file.display()),
                        error,
                    )
                })?;
            let name = name.ok_or_else(|| {
                Error::new(
                    ImageErrorKind::Name,
                    format!(
                        "{} has no image with a name; give one with --tag",
                        file.display()
                    ),
                )
            })?;
            name.parse().map_err(|error| {
                Error::caused(
                    ImageErrorKind::Name,
                    format!("{} names its image {name:?}", file.display()),
                    error,
                )
            })?
        }
    };
    let options = ImportOptions {
        name: None,
        platform: Platform::host(),
        limits: Limits::default(),
        named: true,
    };
    import_layout(&store, file, &reference, &options, &|_| {}, cancel).map_err(failed)?;
    Ok(reference)
}

/// The disk of an image, for a VM. An image that the store does not have is pulled from its registry, and an ext4 image that
/// was not made yet is made.
///
/// # Errors
/// When the image cannot be had or does not fit on a disk.
pub fn disk_for(
    paths: &Paths,
    reference: &Reference,
    min_size: Option<u64>,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<ImageDisk, ImageError> {
    let store = store(paths)?;
    let failed = |what: &str, error: Cause| {
        Error::caused(
            ImageErrorKind::Store,
            format!("{what} {}", reference.familiar()),
            error,
        )
    };
    let found = lookup::stored(&store, reference)
        .map_err(|error| failed("cannot read image", error.into()))?;
    let image = match found {
        Some(image) => image,
        None => lookup::fetch(
            &store,
            reference,
            &Platform::host().to_string(),
            sink,
            cancel,
        )
        .map_err(|error| {
            Error::caused(
                ImageErrorKind::NotFound,
                format!("no image {}", reference.familiar()),
                error,
            )
        })?,
    };
    let path = disk(
        &store,
        &image.chain,
        min_size,
        InUse::of(&attached(paths)),
        cancel,
    )
    .map_err(|error| failed("cannot make a disk of image", error.into()))?;
    Ok(ImageDisk {
        path,
        config: image.config,
        name: reference.familiar(),
        digest: Some(image.manifest.to_string()),
        held: Some(Arc::new(store)),
    })
}

/// Says which files are disks of instances, be they running or not: one that has ended may be started again. Where a
/// record cannot be read, any file may be.
pub(crate) fn attached(paths: &Paths) -> impl Fn(&Path) -> bool {
    let instances = Instances::new(paths);
    move |file| match instances.list() {
        Ok((instances, broken)) => {
            let mut disks = instances.iter().map(|one| &one.record().image_disk);
            !broken.is_empty() || disks.any(|disk| Path::new(disk) == file)
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::attached;
    use crate::instance::Instances;
    use crate::paths::Paths;

    #[test]
    fn the_disk_of_a_machine_that_has_ended_is_attached() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::under(home.path());
        let in_use = attached(&paths);
        assert!(!in_use(Path::new("/x")));
        let owned = Instances::prepare(&paths)
            .and_then(|instances| instances.create(Some("web"), crate::instance::testing::record()))
            .unwrap();
        // Nobody owns it any more, but it is not removed.
        let directory = owned.instance().dir().to_owned();
        drop(owned);
        assert!(in_use(Path::new("/x")) && !in_use(Path::new("/y")));
        fs_err::write(directory.join("record.json"), "{").unwrap();
        assert!(in_use(Path::new("/y")));
    }
}
