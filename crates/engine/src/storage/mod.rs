//! The `directory` storage provider of the original: images as files that other tools can take.
//!
//! ```text
//! <rootfs-storage-root>/<org>/<image>/<version>/rootfs          raw ext4, no partition table, sparse
//! <rootfs-storage-root>/<org>/<image>/<version>/metadata.json   indented JSON, the original's keys
//! <kernel-storage-root>/<id>                                    see `crate::kernel`
//! ```
//!
//! `org` is `_` for a name without a slash: `debian:bookworm` lies in `_/debian/bookworm`. What is published
//! is a copy: builds and VMs work with the store.

mod metadata;
mod publish;

pub use metadata::{BuildConfig, Kind};
pub use publish::{Request, StorageError, StorageErrorKind, publish};

use std::path::{Path, PathBuf};

use firebuild_oci::Reference;

/// A name in the three parts of the original.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    org: String,
    image: String,
    version: String,
}

impl Place {
    fn of(reference: &Reference) -> Self {
        let version = reference.tag().unwrap_or("latest").to_owned();
        let whole = reference.without_digest().familiar();
        let name = whole
            .strip_suffix(&format!(":{version}"))
            .unwrap_or(&whole)
            .to_owned();
        let (org, image) = match name.split_once('/') {
            Some((org, image)) => (org.to_owned(), image.to_owned()),
            None => ("_".to_owned(), name),
        };
        Self {
            org,
            image,
            version,
        }
    }

    fn dir(&self, root: &Path) -> PathBuf {
        // The grammar of references leaves no "..", and no part is empty or absolute.
        root.join(&self.org).join(&self.image).join(&self.version)
    }
}

/// Where the disk of an image lies in a storage root, if it does.
#[must_use]
pub fn find(root: &Path, reference: &Reference) -> Option<PathBuf> {
    let file = Place::of(reference).dir(root).join(publish::ROOTFS);
    file.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::Place;

    #[test]
    fn names_become_directories_as_in_the_original() {
        for (name, dir) in [
            ("debian:bookworm", "_/debian/bookworm"),
            ("debian", "_/debian/latest"),
            ("combust-labs/postgres:13", "combust-labs/postgres/13"),
            (
                "registry.access.redhat.com/ubi8/ubi-minimal:8.3",
                "registry.access.redhat.com/ubi8/ubi-minimal/8.3",
            ),
            ("127.0.0.1:5000/a:1", "127.0.0.1:5000/a/1"),
        ] {
            let place = Place::of(&name.parse().unwrap());
            assert_eq!(
                place.dir(Path::new("/r")),
                PathBuf::from(format!("/r/{dir}"))
            );
        }
    }
}
