//! From what a step left in a snapshot to a layer.
//!
//! A layer is the difference to what the step was *given*, and what it was given can be less than the tree says: where a
//! device node, an owner or an attribute could not be made ([`Skipped`]), its absence is not the step's doing and the
//! tree's own word stands.
//!
//! [`upper_layer`] reads the upper directory of an overlay (`Documentation/filesystems/overlayfs.rst`): a character device
//! 0:0 is a removal, a directory with the attribute `trusted.overlay.opaque` (in a user namespace:
//! `user.overlay.opaque`) of value `y` hides what is below it. [`copy_layer`] compares a complete copy.

use std::collections::{HashMap, HashSet};

use crate::diff::diff_by;
use crate::layer::{Change, Layer};
use crate::path;
use crate::tree::{Device, Inode, InodeId, Kind, Tree};
use crate::unpack::{Skipped, What};

/// The prefixes of the overlay's own attributes.
const OWN: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// The attribute that hides what is below, and its value.
const OPAQUE: [&[u8]; 2] = [b"trusted.overlay.opaque", b"user.overlay.opaque"];
const YES: &[u8] = b"y";

/// What a step changed, from the walked upper directory of the overlay that it ran on. `given` is the tree below it,
/// `skipped` what could not be made of that tree.
///
/// Directories that are in the upper directory only because something below them changed are left out, and so are the
/// overlay's own attributes.
#[must_use]
pub fn upper_layer(upper: &Tree, given: &Tree, skipped: &Skipped) -> Layer {
    let lost = Lost::new(skipped);
    let mut layer = Layer::default();
    let mut first: HashMap<InodeId, Vec<u8>> = HashMap::new();
    // Directories whose lower half does not show through.
    let mut hidden: HashSet<Vec<u8>> = HashSet::new();
    for (path, id) in upper.walk() {
        let inode = &upper[id];
        let covered = !path.is_empty() && hidden.contains(path::parent(&path));
        let below = if covered { None } else { given.find(&path) };
        if is_whiteout(&inode.kind) {
            if below.is_some() {
                layer.push(path, Change::Whiteout);
            }
            continue;
        }
        if let Some(target) = first.get(&id) {
            layer.push(path, Change::HardLink(target.clone()));
            continue;
        }
        if inode.names > 1 {
            first.insert(id, path.clone());
        }
        let mut node = Inode::new(inode.meta.clone(), inode.kind.bare());
        node.meta
            .xattrs
            .retain(|name, _| !OWN.iter().any(|own| name.starts_with(own)));
        lost.restore(&path, &mut node, below.map(|id| &given[id]));
        let opaque = OPAQUE.iter().any(|name| {
            inode
                .meta
                .xattrs
                .get(*name)
                .is_some_and(|value| &**value == YES)
        });
        let over_dir = below.is_some_and(|id| given[id].is_dir());
        if inode.is_dir() && (opaque || covered || !over_dir) {
            hidden.insert(path.clone());
        }
        let unchanged =
            over_dir && node.is_dir() && below.is_some_and(|id| given[id].meta == node.meta);
        if !unchanged {
            layer.push(path.clone(), Change::Node(node));
        }
        if opaque && over_dir {
            layer.push(path, Change::Opaque);
        }
    }
    layer
}

/// What a step changed, from the walked complete copy that it ran on. Files of the same size, properties and mtime are
/// taken for unchanged.
#[must_use]
pub fn copy_layer(now: &Tree, given: &Tree, skipped: &Skipped) -> Layer {
    let lost = Lost::new(skipped);
    let mut restored = now.clone();
    for (path, id) in now.walk() {
        let mut node = Inode::new(now[id].meta.clone(), now[id].kind.bare());
        lost.restore(&path, &mut node, given.find(&path).map(|id| &given[id]));
        *restored.meta_mut(id) = node.meta;
    }
    let mut layer = diff_by(given, &restored, |a, b| {
        a.meta == b.meta
            && match (&a.kind, &b.kind) {
                (Kind::File(x), Kind::File(y)) => x.size == y.size,
                (x, y) => x == y,
            }
    });
    // What could not be made is missing in the copy, and nobody removed it. When the directory that would have held it
    // is gone, that one stands in the layer and takes it along.
    layer.entries.retain(|entry| {
        entry.change != Change::Whiteout || !lost.nodes.contains(entry.path.as_slice())
    });
    layer
}

fn is_whiteout(kind: &Kind) -> bool {
    *kind == Kind::CharDevice(Device { major: 0, minor: 0 })
}

/// The report of an unpacking, by path.
struct Lost<'a> {
    nodes: HashSet<&'a [u8]>,
    owners: HashSet<&'a [u8]>,
    xattrs: HashMap<&'a [u8], Vec<&'a [u8]>>,
}

impl<'a> Lost<'a> {
    fn new(skipped: &'a Skipped) -> Self {
        let mut lost = Self {
            nodes: HashSet::new(),
            owners: HashSet::new(),
            xattrs: HashMap::new(),
        };
        for entry in &skipped.entries {
            let path = entry.path.as_slice();
            match &entry.what {
                What::Node => {
                    lost.nodes.insert(path);
                }
                What::Owner => {
                    lost.owners.insert(path);
                }
                What::Xattr(name) => lost.xattrs.entry(path).or_default().push(name),
            }
        }
        lost
    }

    /// Gives a node of the snapshot the properties that its original could not have there. A file that is of another
    /// kind now is not its original any more; an owner that is not root has been set by the step.
    fn restore(&self, path: &[u8], node: &mut Inode, original: Option<&Inode>) {
        let Some(original) = original.filter(|o| o.kind.word() == node.kind.word()) else {
            return;
        };
        if self.owners.contains(path) && (node.meta.uid, node.meta.gid) == (0, 0) {
            (node.meta.uid, node.meta.gid) = (original.meta.uid, original.meta.gid);
        }
        for name in self.xattrs.get(path).into_iter().flatten() {
            if let Some(value) = original.meta.xattrs.get(*name) {
                node.meta
                    .xattrs
                    .entry((*name).into())
                    .or_insert_with(|| value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
