//! Results in the original's catalogue: a copy of the disk and its metadata, where a rootfs root is named.

use std::path::PathBuf;

use firebuild_engine::build;
use firebuild_engine::cancel::Cancel;
use firebuild_engine::paths::Paths;
use firebuild_engine::storage::{self, BuildConfig, Kind};
use firebuild_oci::Reference;

use crate::args::RootfsArgs;
use crate::failure::Failure;
use crate::flags::Roots;

/// What stands for the value of a build argument in a file that everybody may read.
const MASK: &str = "***";

/// Publishes what `rootfs` built, under each of its names.
pub(super) fn application(
    paths: &Paths,
    roots: &Roots,
    args: &RootfsArgs,
    request: &build::Request,
    parent: Option<&Reference>,
    cancel: &Cancel,
) -> Result<(), Failure> {
    if roots.rootfs.is_none() {
        return Ok(());
    }
    let config = BuildConfig {
        build_args: request
            .build_args
            .keys()
            .map(|name| (name.clone(), MASK.to_owned()))
            .collect(),
        dockerfile: args
            .dockerfile
            .clone()
            .or_else(|| request.dockerfile.as_ref().map(ToString::to_string))
            .filter(|_| args.docker_image.is_none())
            .unwrap_or_default(),
        docker_image: args.docker_image.clone().unwrap_or_default(),
        docker_image_base: args.docker_image_base.clone().unwrap_or_default(),
        pre_build_commands: args.pre_build_command.clone(),
        post_build_commands: args.post_build_command.clone(),
    };
    for tag in &request.tags {
        let kind = Kind::Rootfs(config.clone());
        one(paths, roots, tag, kind, parent, request.min_size, cancel)?;
    }
    Ok(())
}

/// Publishes a base.
pub(super) fn base(
    paths: &Paths,
    roots: &Roots,
    image: &Reference,
    min_size: Option<u64>,
    cancel: &Cancel,
) -> Result<(), Failure> {
    one(paths, roots, image, Kind::BaseOs, None, min_size, cancel)
}

fn one(
    paths: &Paths,
    roots: &Roots,
    image: &Reference,
    kind: Kind,
    parent: Option<&Reference>,
    min_size: Option<u64>,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let Some(root) = &roots.rootfs else {
        return Ok(());
    };
    let request = storage::Request {
        root,
        image,
        kind,
        parent,
        min_size,
    };
    storage::publish(paths, &request, cancel)
        .map(|_: PathBuf| ())
        .map_err(Failure::from)
}

/// Why a disk in the catalogue does not help where an image is missing.
pub(super) fn hint(roots: &Roots, image: &Reference) -> Option<String> {
    let disk = storage::find(roots.rootfs.as_ref()?, image)?;
    Some(format!(
        "{} is a disk and no layers, so nothing can be built or run from it: build {} here once, or load its image with \
         'firebuild image load'",
        disk.display(),
        image.familiar()
    ))
}
