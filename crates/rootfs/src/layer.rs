//! A layer: a change to a file system, and what it means to apply one.
//!
//! The rules are those of the OCI image specification (`layer.md`), with the corners as containerd and Docker unpack
//! them:
//!
//! - whiteouts and opaque marks take away what the layers *below* have, wherever in the layer they stand; what the same
//!   layer adds stays;
//! - a directory over a directory changes its properties and keeps what is in it; anything else replaces what is there,
//!   a symbolic link is never written through;
//! - a symbolic link *on the way* to an entry is followed, inside the root;
//! - parents that are missing are made: 0755, root, time 0;
//! - a hard link may stand before its target.

use std::cmp::Ordering;
use std::fmt;

use crate::path::{self, Shown};
use crate::tree::{Follow, Inode, InodeId, Kind, Tree, TreeError};

/// A change to a file system: entries in the order in which they are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// The changes.
    pub entries: Vec<Entry>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The clean path (see [`crate::path`]); empty for the root.
    pub path: Vec<u8>,
    /// What happens there.
    pub change: Change,
}

/// What happens at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This is here. A directory's map is empty: its children are entries of their own.
    Node(Inode),
    /// The same file as at this clean path.
    HardLink(Vec<u8>),
    /// What the layers below have here is gone.
    Whiteout,
    /// What the layers below have *in* this directory is gone.
    Opaque,
}

/// Why a layer cannot be applied.
#[derive(Debug)]
pub struct ApplyError {
    kind: ApplyErrorKind,
    path: Vec<u8>,
    target: Vec<u8>,
    source: Option<TreeError>,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApplyErrorKind {
    /// The tree cannot take the entry; the source says why.
    Tree,
    /// A hard link's target is nowhere.
    NoLinkTarget,
    /// A hard link's target is a directory or the link itself.
    BadLinkTarget,
    /// The root can be a directory only, and cannot be removed.
    Root,
}

impl ApplyError {
    fn new(kind: ApplyErrorKind, path: &[u8]) -> Self {
        Self {
            kind,
            path: path.to_vec(),
            target: Vec::new(),
            source: None,
        }
    }

    fn tree(path: &[u8], source: TreeError) -> Self {
        Self {
            source: Some(source),
            ..Self::new(ApplyErrorKind::Tree, path)
        }
    }

    fn link(kind: ApplyErrorKind, path: &[u8], target: &[u8]) -> Self {
        Self {
            target: target.to_vec(),
            ..Self::new(kind, path)
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> ApplyErrorKind {
        self.kind
    }

    /// The entry.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, target) = (Shown(&self.path), Shown(&self.target));
        match self.kind {
            ApplyErrorKind::Tree => write!(f, "cannot apply the layer's entry {path}"),
            ApplyErrorKind::NoLinkTarget => {
                write!(
                    f,
                    "the layer's hard link {path} points to {target}, which does not exist"
                )
            }
            ApplyErrorKind::BadLinkTarget => write!(
                f,
                "the layer's hard link {path} points to {target}, which is a directory or the link itself"
            ),
            ApplyErrorKind::Root => {
                f.write_str("the layer replaces or removes the root directory itself")
            }
        }
    }
}

impl std::error::Error for ApplyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

/// The order of a walk: a directory before what is in it, names in byte order.
#[must_use]
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    path::components(a).cmp(path::components(b))
}

impl Layer {
    /// A layer that makes the whole tree out of nothing.
    #[must_use]
    pub fn of_tree(tree: &Tree) -> Self {
        let mut first: Vec<Option<Vec<u8>>> = vec![None; tree.id_bound()];
        let mut entries = Vec::with_capacity(tree.len() as usize);
        for (path, id) in tree.walk() {
            let inode = &tree[id];
            let change = if inode.names > 1 {
                match &first[id.0 as usize] {
                    Some(target) => Change::HardLink(target.clone()),
                    None => {
                        first[id.0 as usize] = Some(path.clone());
                        Change::Node(Inode::new(inode.meta.clone(), inode.kind.bare()))
                    }
                }
            } else {
                Change::Node(Inode::new(inode.meta.clone(), inode.kind.bare()))
            };
            entries.push(Entry { path, change });
        }
        Self { entries }
    }

    /// Brings the entries into the order of a walk. Of two changes to one path, the order stays; a hard link comes after
    /// its target when that sorts before it.
    pub fn sort(&mut self) {
        self.entries.sort_by(|a, b| compare_paths(&a.path, &b.path));
    }

    /// Adds an entry.
    pub fn push(&mut self, path: impl Into<Vec<u8>>, change: Change) {
        self.entries.push(Entry {
            path: path.into(),
            change,
        });
    }
}

/// Finds the directories of entries; neighbours mostly share theirs.
struct Parents {
    last: Option<(Vec<u8>, InodeId)>,
}

impl Parents {
    /// The directory of `path` if it exists.
    fn find(&mut self, tree: &Tree, path: &[u8]) -> Option<InodeId> {
        let parent = path::parent(path);
        if let Some((known, id)) = &self.last
            && known == parent
        {
            return Some(*id);
        }
        let id = tree.lookup(parent, Follow::All).ok()?;
        tree[id].is_dir().then(|| {
            self.last = Some((parent.to_vec(), id));
            id
        })
    }

    /// The directory of `path`, made where it is missing.
    fn make(&mut self, tree: &mut Tree, path: &[u8]) -> Result<InodeId, ApplyError> {
        if let Some(id) = self.find(tree, path) {
            return Ok(id);
        }
        let parent = path::parent(path);
        let id = tree
            .make_dirs(parent, &Inode::dir(0o755))
            .map_err(|e| ApplyError::tree(path, e))?;
        self.last = Some((parent.to_vec(), id));
        Ok(id)
    }

    /// To be called when something was removed or a path may lead elsewhere now.
    fn forget(&mut self) {
        self.last = None;
    }
}

impl Tree {
    /// Applies a layer.
    ///
    /// # Errors
    /// When the layer replaces or removes the root, an entry's parent is no directory, a hard link has no target, or a
    /// limit of the tree is reached. The tree is then half changed and should be dropped.
    pub fn apply(&mut self, layer: &Layer) -> Result<(), ApplyError> {
        let mut parents = Parents { last: None };
        for entry in &layer.entries {
            self.clear_the_way(entry, &mut parents)?;
        }
        parents.forget();
        for entry in &layer.entries {
            self.take_away(entry, &mut parents)?;
        }
        parents.forget();
        let mut later: Vec<(&[u8], &[u8])> = Vec::new();
        for entry in &layer.entries {
            match &entry.change {
                Change::Node(node) => self.put(&entry.path, node, &mut parents)?,
                Change::HardLink(target) => {
                    if !self.put_link(&entry.path, target, &mut parents)? {
                        later.push((&entry.path, target));
                    }
                }
                Change::Whiteout => {}
                Change::Opaque => {
                    let dir = path::join(&entry.path, b"x");
                    parents.make(self, &dir)?;
                }
            }
        }
        // Links to links that come later still need more than one round.
        while !later.is_empty() {
            let before = later.len();
            let mut left = Vec::new();
            for (path, target) in later {
                if !self.put_link(path, target, &mut parents)? {
                    left.push((path, target));
                }
            }
            if left.len() == before {
                return Err(ApplyError::link(
                    ApplyErrorKind::NoLinkTarget,
                    left[0].0,
                    left[0].1,
                ));
            }
            later = left;
        }
        Ok(())
    }

    /// First round: what this layer replaces by something of another type goes, so that a whiteout below a directory
    /// that takes the place of a symbolic link does not reach through the link.
    fn clear_the_way(&mut self, entry: &Entry, parents: &mut Parents) -> Result<(), ApplyError> {
        let is_dir = match &entry.change {
            Change::Node(node) => node.is_dir(),
            Change::HardLink(_) => false,
            Change::Whiteout | Change::Opaque => return Ok(()),
        };
        if entry.path.is_empty() {
            return if is_dir {
                Ok(())
            } else {
                Err(ApplyError::new(ApplyErrorKind::Root, b""))
            };
        }
        let Some(dir) = parents.find(self, &entry.path) else {
            return Ok(());
        };
        let name = path::file_name(&entry.path);
        if let Some(old) = self.child(dir, name)
            && self[old].is_dir() != is_dir
        {
            self.remove(dir, name)
                .map_err(|e| ApplyError::tree(&entry.path, e))?;
            parents.forget();
        }
        Ok(())
    }

    /// Second round: whiteouts and opaque marks.
    fn take_away(&mut self, entry: &Entry, parents: &mut Parents) -> Result<(), ApplyError> {
        match entry.change {
            Change::Whiteout => {
                if entry.path.is_empty() {
                    return Err(ApplyError::new(ApplyErrorKind::Root, b""));
                }
                let Some(dir) = parents.find(self, &entry.path) else {
                    return Ok(());
                };
                let name = path::file_name(&entry.path);
                if self.child(dir, name).is_some() {
                    self.remove(dir, name)
                        .map_err(|e| ApplyError::tree(&entry.path, e))?;
                    parents.forget();
                }
            }
            Change::Opaque => {
                let Ok(dir) = self.lookup(&entry.path, Follow::ButLast) else {
                    return Ok(());
                };
                if self[dir].is_dir() {
                    self.clear(dir)
                        .map_err(|e| ApplyError::tree(&entry.path, e))?;
                    parents.forget();
                }
            }
            Change::Node(_) | Change::HardLink(_) => {}
        }
        Ok(())
    }

    /// Third round: what the layer adds.
    fn put(&mut self, path: &[u8], node: &Inode, parents: &mut Parents) -> Result<(), ApplyError> {
        if path.is_empty() {
            *self.meta_mut(InodeId::ROOT) = node.meta.clone();
            return Ok(());
        }
        let fail = |e| ApplyError::tree(path, e);
        let dir = parents.make(self, path)?;
        let name = path::file_name(path);
        match self.child(dir, name) {
            Some(old) if node.is_dir() && self[old].is_dir() => {
                *self.meta_mut(old) = node.meta.clone();
            }
            Some(_) => {
                self.replace(dir, name, node.clone()).map_err(fail)?;
                parents.forget();
            }
            None => {
                self.insert(dir, name, node.clone()).map_err(fail)?;
                if matches!(node.kind, Kind::Symlink(_)) {
                    parents.forget();
                }
            }
        }
        Ok(())
    }

    /// Adds a hard link; `false` when its target is not there (yet).
    fn put_link(
        &mut self,
        path: &[u8],
        target: &[u8],
        parents: &mut Parents,
    ) -> Result<bool, ApplyError> {
        let fail = |e| ApplyError::tree(path, e);
        let Ok(id) = self.lookup(target, Follow::ButLast) else {
            return Ok(false);
        };
        let dir = parents.make(self, path)?;
        let name = path::file_name(path);
        if self[id].is_dir() {
            return Err(ApplyError::link(
                ApplyErrorKind::BadLinkTarget,
                path,
                target,
            ));
        }
        match self.child(dir, name) {
            Some(old) if old == id => return Ok(true),
            Some(_) => {
                self.remove(dir, name).map_err(fail)?;
                parents.forget();
            }
            None => {}
        }
        // Removing what was here may have removed the target with it.
        if self.get(id).is_none() {
            return Err(ApplyError::link(
                ApplyErrorKind::BadLinkTarget,
                path,
                target,
            ));
        }
        self.link(dir, name, id).map_err(fail)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
