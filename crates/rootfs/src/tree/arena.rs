//! Making and changing a tree, within its invariants and limits.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Index;

use super::{Content, Inode, InodeId, Kind, Meta, Name, Tree};
use crate::path::{MAX_DEPTH, Shown, is_name};

/// How many inodes a tree may have unless it is told otherwise.
pub const DEFAULT_MAX_INODES: u32 = 10_000_000;

/// Why a tree cannot be changed or read as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeError {
    kind: TreeErrorKind,
    path: Vec<u8>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeErrorKind {
    /// There is no such entry.
    NotFound,
    /// A path leads through something that is no directory.
    NotADirectory,
    /// A directory cannot have a second name.
    IsADirectory,
    /// The name is taken.
    Exists,
    /// The name is empty, too long, `.`, `..`, or holds `/` or NUL.
    BadName,
    /// A directory was to be inserted with children.
    NotEmpty,
    /// More than 255 symbolic links on the way.
    TooManyLinks,
    /// A directory would be deeper than the limit.
    TooDeep,
    /// The tree would have more inodes than its limit.
    TooManyInodes,
}

impl TreeError {
    pub(super) fn new(kind: TreeErrorKind, path: &[u8]) -> Self {
        Self {
            kind,
            path: path.to_vec(),
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> TreeErrorKind {
        self.kind
    }

    /// The path or name that it is about.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            TreeErrorKind::NotFound => "no such file or directory",
            TreeErrorKind::NotADirectory => "not a directory",
            TreeErrorKind::IsADirectory => "a directory cannot be hard-linked",
            TreeErrorKind::Exists => "the name exists already",
            TreeErrorKind::BadName => "not a name for a file",
            TreeErrorKind::NotEmpty => "a directory is inserted without its children",
            TreeErrorKind::TooManyLinks => "too many levels of symbolic links",
            TreeErrorKind::TooDeep => "directories are nested too deep",
            TreeErrorKind::TooManyInodes => "the tree has too many files",
        };
        write!(f, "{what}: {}", Shown(&self.path))
    }
}

impl std::error::Error for TreeError {}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Index<InodeId> for Tree {
    type Output = Inode;

    /// # Panics
    /// When the inode was removed or is of another tree.
    fn index(&self, id: InodeId) -> &Inode {
        self.get(id).expect("the inode is in the tree")
    }
}

impl Tree {
    /// An empty tree: the root directory, 0755, owned by root, time 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inodes: vec![Some(Inode::dir(0o755))],
            depths: vec![0],
            live: 1,
            max_inodes: DEFAULT_MAX_INODES,
        }
    }

    /// Sets how many inodes the tree may have.
    pub fn set_max_inodes(&mut self, max: u32) {
        self.max_inodes = max;
    }

    /// The inode, unless it was removed or is of another tree.
    #[must_use]
    pub fn get(&self, id: InodeId) -> Option<&Inode> {
        self.inodes.get(id.0 as usize)?.as_ref()
    }

    fn slot(&mut self, id: InodeId) -> &mut Inode {
        self.inodes
            .get_mut(id.0 as usize)
            .and_then(Option::as_mut)
            .expect("the inode is in the tree")
    }

    /// Mode, owner, time and attributes of an inode, to be changed.
    ///
    /// # Panics
    /// When the inode was removed or is of another tree.
    pub fn meta_mut(&mut self, id: InodeId) -> &mut Meta {
        &mut self.slot(id).meta
    }

    /// The content of a regular file, to be changed; `None` for anything else.
    ///
    /// # Panics
    /// When the inode was removed or is of another tree.
    pub fn content_mut(&mut self, id: InodeId) -> Option<&mut Content> {
        match &mut self.slot(id).kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// How many inodes there are, the root included.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.live
    }

    /// Whether there is nothing but the root directory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 1
    }

    /// Every inode number of this tree is less than this (removed ones leave gaps). For tables by inode.
    #[must_use]
    pub fn id_bound(&self) -> usize {
        self.inodes.len()
    }

    /// The entry `name` of the directory `dir`. `None` when `dir` is no directory.
    #[must_use]
    pub fn child(&self, dir: InodeId, name: &[u8]) -> Option<InodeId> {
        self.get(dir)?.children()?.get(name).copied()
    }

    fn dir_mut(
        &mut self,
        dir: InodeId,
        name: &[u8],
    ) -> Result<&mut BTreeMap<Name, InodeId>, TreeError> {
        match &mut self.slot(dir).kind {
            Kind::Dir(children) => Ok(children),
            _ => Err(TreeError::new(TreeErrorKind::NotADirectory, name)),
        }
    }

    fn vacant(&self, dir: InodeId, name: &[u8]) -> Result<(), TreeError> {
        if !is_name(name) {
            return Err(TreeError::new(TreeErrorKind::BadName, name));
        }
        if !self[dir].is_dir() {
            return Err(TreeError::new(TreeErrorKind::NotADirectory, name));
        }
        if self.child(dir, name).is_some() {
            return Err(TreeError::new(TreeErrorKind::Exists, name));
        }
        Ok(())
    }

    /// Adds an inode under a new name. A directory comes without children; `names` is set to 1.
    ///
    /// # Errors
    /// When `parent` is no directory, the name is bad or taken, the directory is not empty, or a limit is reached.
    ///
    /// # Panics
    /// When `parent` was removed or is of another tree.
    pub fn insert(
        &mut self,
        parent: InodeId,
        name: &[u8],
        mut inode: Inode,
    ) -> Result<InodeId, TreeError> {
        self.vacant(parent, name)?;
        let mut depth = 0;
        if let Kind::Dir(children) = &inode.kind {
            if !children.is_empty() {
                return Err(TreeError::new(TreeErrorKind::NotEmpty, name));
            }
            depth = self.depths[parent.0 as usize] + 1;
            if usize::from(depth) > MAX_DEPTH {
                return Err(TreeError::new(TreeErrorKind::TooDeep, name));
            }
        }
        let next = u32::try_from(self.inodes.len()).ok();
        let Some(next) = next.filter(|_| self.live < self.max_inodes) else {
            return Err(TreeError::new(TreeErrorKind::TooManyInodes, name));
        };
        inode.names = 1;
        self.dir_mut(parent, name)?
            .insert(name.into(), InodeId(next));
        self.inodes.push(Some(inode));
        self.depths.push(depth);
        self.live += 1;
        Ok(InodeId(next))
    }

    /// Gives an inode one more name.
    ///
    /// # Errors
    /// When `parent` is no directory, `target` is one, or the name is bad or taken.
    ///
    /// # Panics
    /// When `parent` or `target` was removed or is of another tree.
    pub fn link(&mut self, parent: InodeId, name: &[u8], target: InodeId) -> Result<(), TreeError> {
        self.vacant(parent, name)?;
        if self[target].is_dir() {
            return Err(TreeError::new(TreeErrorKind::IsADirectory, name));
        }
        let names = &mut self.slot(target).names;
        *names = names
            .checked_add(1)
            .ok_or_else(|| TreeError::new(TreeErrorKind::TooManyLinks, name))?;
        self.dir_mut(parent, name)?.insert(name.into(), target);
        Ok(())
    }

    /// Removes a name, and with a directory all that is below it. Inodes without a name are gone.
    ///
    /// # Errors
    /// When `parent` is no directory or has no such entry.
    ///
    /// # Panics
    /// When `parent` was removed or is of another tree.
    pub fn remove(&mut self, parent: InodeId, name: &[u8]) -> Result<(), TreeError> {
        let removed = self
            .dir_mut(parent, name)?
            .remove(name)
            .ok_or_else(|| TreeError::new(TreeErrorKind::NotFound, name))?;
        let mut doomed = vec![removed];
        while let Some(id) = doomed.pop() {
            let slot = &mut self.inodes[id.0 as usize];
            let Some(inode) = slot.as_mut() else { continue };
            inode.names -= 1;
            if inode.names > 0 {
                continue;
            }
            if let Some(Inode {
                kind: Kind::Dir(children),
                ..
            }) = slot.take()
            {
                doomed.extend(children.into_values());
            }
            self.live -= 1;
        }
        Ok(())
    }

    /// Removes all entries of a directory.
    ///
    /// # Errors
    /// When `dir` is no directory.
    ///
    /// # Panics
    /// When `dir` was removed or is of another tree.
    pub fn clear(&mut self, dir: InodeId) -> Result<(), TreeError> {
        let names: Vec<Name> = self.dir_mut(dir, b"")?.keys().cloned().collect();
        for name in names {
            self.remove(dir, &name)?;
        }
        Ok(())
    }

    /// Adds an inode under a name, in place of what has that name now (with all that is below it).
    ///
    /// # Errors
    /// As [`Tree::insert`], except that the name may be taken.
    ///
    /// # Panics
    /// When `parent` was removed or is of another tree.
    pub fn replace(
        &mut self,
        parent: InodeId,
        name: &[u8],
        inode: Inode,
    ) -> Result<InodeId, TreeError> {
        if self.child(parent, name).is_some() {
            self.remove(parent, name)?;
        }
        self.insert(parent, name, inode)
    }
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        if self.live != other.live {
            return false;
        }
        let mut pairs: HashMap<InodeId, InodeId> = HashMap::new();
        let mut todo = vec![(InodeId::ROOT, InodeId::ROOT)];
        while let Some((a, b)) = todo.pop() {
            let (x, y) = (&self[a], &other[b]);
            if x.names != y.names || x.meta != y.meta {
                return false;
            }
            match (&x.kind, &y.kind) {
                (Kind::Dir(p), Kind::Dir(q)) => {
                    if p.len() != q.len() || !p.keys().eq(q.keys()) {
                        return false;
                    }
                    todo.extend(p.values().copied().zip(q.values().copied()));
                }
                (p, q) if p != q => return false,
                _ if x.names > 1 && *pairs.entry(a).or_insert(b) != b => return false,
                _ => {}
            }
        }
        true
    }
}

impl Eq for Tree {}
