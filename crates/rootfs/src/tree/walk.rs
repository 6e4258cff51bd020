//! Walking a tree: depth first, a directory before what is in it, names in byte order.

use std::collections::btree_map;

use super::{InodeId, Kind, Name, Tree};
use crate::path;

/// The iterator of [`Tree::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    tree: &'a Tree,
    path: Vec<u8>,
    /// The directories that are open, each with the length of its path.
    stack: Vec<(btree_map::Iter<'a, Name, InodeId>, usize)>,
    start: Option<InodeId>,
}

/// How much a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Directories, the root included.
    pub dirs: u64,
    /// Regular files, each once however many names it has.
    pub files: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Devices, pipes and sockets.
    pub specials: u64,
    /// Entries of all directories.
    pub names: u64,
    /// Bytes of all regular files, holes included.
    pub bytes: u64,
}

impl Tree {
    /// All paths with their inodes: the root first (its path is empty), a directory before its entries, names in byte
    /// order. An inode with several names comes once for each.
    #[must_use]
    pub fn walk(&self) -> Walk<'_> {
        self.walk_at(InodeId::ROOT)
    }

    /// As [`Tree::walk`], from another inode on; paths are relative to it.
    #[must_use]
    pub fn walk_at(&self, start: InodeId) -> Walk<'_> {
        Walk {
            tree: self,
            path: Vec::new(),
            stack: Vec::new(),
            start: Some(start),
        }
    }

    /// Counts what is in the tree.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for inode in self.inodes.iter().flatten() {
            match &inode.kind {
                Kind::Dir(children) => {
                    counts.dirs += 1;
                    counts.names += children.len() as u64;
                }
                Kind::File(content) => {
                    counts.files += 1;
                    counts.bytes = counts.bytes.saturating_add(content.size);
                }
                Kind::Symlink(_) => counts.symlinks += 1,
                _ => counts.specials += 1,
            }
        }
        counts
    }
}

impl Iterator for Walk<'_> {
    type Item = (Vec<u8>, InodeId);

    fn next(&mut self) -> Option<Self::Item> {
        let id = if let Some(start) = self.start.take() {
            start
        } else {
            loop {
                let (entries, len) = self.stack.last_mut()?;
                self.path.truncate(*len);
                if let Some((name, id)) = entries.next() {
                    path::push(&mut self.path, name);
                    break *id;
                }
                self.stack.pop();
            }
        };
        if let Some(children) = self.tree[id].children() {
            self.stack.push((children.iter(), self.path.len()));
        }
        Some((self.path.clone(), id))
    }
}
