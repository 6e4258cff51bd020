//! The difference between two trees, as a layer.
//!
//! [`diff`] compares strictly: `a.apply(diff(a, b))` is `b`, hard links included. [`diff_by`] lets the caller say when two
//! files are the same, for trees whose content lies in different places. [`snapshot_layer`] is a difference that can be
//! unpacked on its own as one lower directory of an overlay.

use std::collections::HashMap;

use crate::layer::{Change, Layer};
use crate::path;
use crate::tree::{Inode, InodeId, Tree};

/// What turns `from` into `to`. Entries are in the order of a walk.
#[must_use]
pub fn diff(from: &Tree, to: &Tree) -> Layer {
    diff_by(from, to, |a, b| a.meta == b.meta && a.kind == b.kind)
}

/// As [`diff`], with `same` to tell whether two inodes that are no directories are the same; directories are compared by
/// their properties.
#[must_use]
pub fn diff_by(from: &Tree, to: &Tree, same: impl Fn(&Inode, &Inode) -> bool) -> Layer {
    let mut layer = Layer::default();
    let names = names_of(to);
    // Which inode of `to` a kept inode of `from` has become: it can become one only.
    let mut kept: HashMap<InodeId, InodeId> = HashMap::new();
    let mut decided: HashMap<InodeId, bool> = HashMap::new();
    let mut todo = vec![(Vec::new(), Some(InodeId::ROOT), InodeId::ROOT)];
    while let Some((at, old, new)) = todo.pop() {
        let inode = &to[new];
        let Some(children) = inode.children() else {
            let paths = names
                .get(&new)
                .map_or(std::slice::from_ref(&at), Vec::as_slice);
            let keep = *decided
                .entry(new)
                .or_insert_with(|| keeps(from, inode, new, paths, &mut kept, &same));
            if !keep {
                layer.push(at.clone(), change(&at, inode, paths));
            }
            continue;
        };
        let old_dir = old.filter(|&id| from[id].is_dir());
        if old_dir.is_none_or(|id| from[id].meta != inode.meta) {
            layer.push(
                at.clone(),
                Change::Node(Inode::new(inode.meta.clone(), inode.kind.bare())),
            );
        }
        if let Some(gone) = old_dir.and_then(|id| from[id].children()) {
            for name in gone.keys().filter(|name| !children.contains_key(*name)) {
                layer.push(path::join(&at, name), Change::Whiteout);
            }
        }
        for (name, &child) in children.iter().rev() {
            let before = old_dir.and_then(|id| from.child(id, name));
            todo.push((path::join(&at, name), before, child));
        }
    }
    layer.sort();
    layer
}

/// The paths of inodes with more than one name, in the order of a walk.
fn names_of(tree: &Tree) -> HashMap<InodeId, Vec<Vec<u8>>> {
    let mut names: HashMap<InodeId, Vec<Vec<u8>>> = HashMap::new();
    for (path, id) in tree.walk() {
        if tree[id].names > 1 {
            names.entry(id).or_default().push(path);
        }
    }
    names
}

/// Whether all names of an inode lead to one and the same unchanged inode of `from`.
fn keeps(
    from: &Tree,
    inode: &Inode,
    id: InodeId,
    paths: &[Vec<u8>],
    kept: &mut HashMap<InodeId, InodeId>,
    same: impl Fn(&Inode, &Inode) -> bool,
) -> bool {
    let mut olds = paths.iter().map(|path| from.find(path));
    let Some(Some(old)) = olds.next() else {
        return false;
    };
    if !olds.all(|other| other == Some(old)) || from[old].is_dir() || !same(&from[old], inode) {
        return false;
    }
    *kept.entry(old).or_insert(id) == id
}

fn change(at: &[u8], inode: &Inode, paths: &[Vec<u8>]) -> Change {
    if paths[0] == at {
        Change::Node(Inode::new(inode.meta.clone(), inode.kind.bare()))
    } else {
        Change::HardLink(paths[0].clone())
    }
}

/// What has to be in a directory that is laid over `below` to show `above`: the difference, with the directories on the
/// way, which an overlay takes from its uppermost layer.
#[must_use]
pub fn snapshot_layer(below: &Tree, above: &Tree) -> Layer {
    let mut layer = diff(below, above);
    let mut have: std::collections::HashSet<Vec<u8>> = layer
        .entries
        .iter()
        .filter(|e| matches!(&e.change, Change::Node(node) if node.is_dir()))
        .map(|e| e.path.clone())
        .collect();
    let mut missing = Vec::new();
    for entry in &layer.entries {
        let mut at = entry.path.as_slice();
        while !at.is_empty() {
            at = path::parent(at);
            if have.contains(at) {
                break;
            }
            have.insert(at.to_vec());
            missing.push(at.to_vec());
        }
    }
    if have.insert(Vec::new()) {
        missing.push(Vec::new());
    }
    for path in missing {
        if let Some(id) = above.find(&path) {
            let inode = &above[id];
            layer.push(
                path,
                Change::Node(Inode::new(inode.meta.clone(), inode.kind.bare())),
            );
        }
    }
    layer.sort();
    layer
}

#[cfg(test)]
mod tests;
