//! From a layer or a tree to files on disk: snapshots for build steps, and directories for users.
//!
//! Everything is made below the directory that was given, by descriptors and single names; no link is followed. A
//! directory gets its properties when all that is in it is there, so that times hold. What this process may not make
//! (device nodes, foreign owners, privileged attributes) is left out and told in a [`Skipped`] report; the tree still has
//! it, and [`crate::overlay`] sees to it that its absence does not count as a removal.

mod error;
mod fill;
mod place;
mod stream;

use std::os::fd::BorrowedFd;

use crate::layer::{Change, Layer};
use crate::tree::{Contents, Inode, Kind, Tree};

pub use error::{UnpackError, UnpackErrorKind};
use place::Place;
pub use stream::{StreamError, StreamOptions, unpack_stream};

/// What happens to an owner that this process cannot give away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmapped {
    /// It is an error that names the file and the id.
    #[default]
    Refuse,
    /// The file belongs to who unpacks (root of the name space) and is in the report.
    SquashToRoot,
}

/// How the removals of a layer are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// The overlay's attributes are `trusted.overlay.*` (mounted by root).
    #[default]
    Trusted,
    /// They are `user.overlay.*` (mounted with `userxattr` in a user namespace).
    User,
}

/// How to unpack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnpackOptions {
    /// Owners that cannot be given.
    pub unmapped: Unmapped,
    /// The form of removals.
    pub marks: Marks,
}

/// What could not be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// In the order of a walk.
    pub entries: Vec<SkippedEntry>,
}

/// One thing that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedEntry {
    /// The path.
    pub path: Vec<u8>,
    /// What of it is missing.
    pub what: What,
}

/// What could not be made of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The whole entry, a device node (and its hard links).
    Node,
    /// Owner and group.
    Owner,
    /// The extended attribute of this name.
    Xattr(Vec<u8>),
}

/// Unpacks a layer as the lower directory of an overlay: a removal is a character device 0:0, an opaque directory has the
/// attribute. The layer should name all directories on the way ([`crate::diff::snapshot_layer`]); missing ones are made
/// 0755. The directory should be empty; existing directories are kept, other files replaced.
///
/// # Errors
/// When content cannot be read, the disk refuses, or an owner cannot be given and should be; the error names the entry.
pub fn unpack_layer(
    layer: &Layer,
    contents: &dyn Contents,
    root: BorrowedFd<'_>,
    options: &UnpackOptions,
) -> Result<Skipped, UnpackError> {
    let mut order: Vec<_> = layer.entries.iter().collect();
    order.sort_by(|a, b| crate::layer::compare_paths(&a.path, &b.path));
    let mut place = Place::new(root, contents, *options);
    let mut links = Vec::new();
    let mut dirs = Vec::new();
    for entry in order {
        match &entry.change {
            Change::Node(node) if node.is_dir() => {
                place.dir(&entry.path)?;
                dirs.push((entry.path.as_slice(), &node.meta));
            }
            Change::Node(node) => place.node(&entry.path, node)?,
            // After all files: a link may stand before its target.
            Change::HardLink(target) => links.push((entry.path.as_slice(), target.as_slice())),
            Change::Whiteout => place.whiteout(&entry.path)?,
            Change::Opaque => place.opaque(&entry.path)?,
        }
    }
    place.links(links)?;
    place.finish(&dirs)
}

/// Unpacks a complete tree. The directory should be empty; existing directories are kept, other files replaced.
///
/// # Errors
/// As [`unpack_layer`].
pub fn unpack_tree(
    tree: &Tree,
    contents: &dyn Contents,
    root: BorrowedFd<'_>,
    options: &UnpackOptions,
) -> Result<Skipped, UnpackError> {
    unpack_layer(&Layer::of_tree(tree), contents, root, options)
}

/// Writes a tree into a user's directory (`--output type=dir`): as [`unpack_tree`], but files that cannot be given to
/// their owners stay with who writes them, and the directory's own owner and mode stay as the user made them.
///
/// # Errors
/// As [`unpack_layer`].
pub fn export_dir(
    tree: &Tree,
    contents: &dyn Contents,
    root: BorrowedFd<'_>,
) -> Result<Skipped, UnpackError> {
    let mut layer = Layer::of_tree(tree);
    layer.entries.retain(|entry| !entry.path.is_empty());
    let options = UnpackOptions {
        unmapped: Unmapped::SquashToRoot,
        ..UnpackOptions::default()
    };
    unpack_layer(&layer, contents, root, &options)
}

/// Whether an inode is a device node, which an ordinary user cannot make.
fn is_device(inode: &Inode) -> bool {
    matches!(inode.kind, Kind::CharDevice(_) | Kind::BlockDevice(_))
}

#[cfg(test)]
mod tests;
