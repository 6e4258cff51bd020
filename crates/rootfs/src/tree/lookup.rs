//! Finding things by path. Symbolic links are followed inside the tree only: an absolute target begins at the root of
//! the tree and `..` at the root stays there, as under `chroot(2)`.

use super::{Inode, InodeId, Kind, Name, Tree, TreeError, TreeErrorKind};
use crate::path::{self, components};

/// Most symbolic links that one look-up follows.
const MAX_LINKS: u32 = 255;

/// Which symbolic links a look-up follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// All of them.
    All,
    /// All but one that is the last component.
    ButLast,
}

/// Where a path leads, whether or not something is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The clean path without any symbolic link on the way.
    pub path: Vec<u8>,
    /// What is there.
    pub id: Option<InodeId>,
    /// The deepest existing directory on the way (for an existing thing, the directory that holds it; for the root,
    /// the root).
    pub dir: InodeId,
    /// The names below `dir` that are missing; empty when something is there.
    pub missing: Vec<Name>,
}

impl Tree {
    /// What is at a path.
    ///
    /// # Errors
    /// When nothing is there, the path leads through something that is no directory, or there are too many links.
    pub fn lookup(&self, path: &[u8], follow: Follow) -> Result<InodeId, TreeError> {
        self.resolve(path, follow)?
            .id
            .ok_or_else(|| TreeError::new(TreeErrorKind::NotFound, path))
    }

    /// What is at exactly this clean path, no symbolic link followed on the way nor at its end.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<InodeId> {
        components(path).try_fold(InodeId::ROOT, |dir, name| self.child(dir, name))
    }

    /// One of the paths of an inode. It is searched for, not kept: this is for messages.
    pub(crate) fn path_of(&self, id: InodeId) -> Option<Vec<u8>> {
        self.walk().find(|(_, at)| *at == id).map(|(path, _)| path)
    }

    /// The directory that holds (or would hold) a path, and the last name. Links on the way are followed, the last
    /// component is not looked at.
    ///
    /// # Errors
    /// As [`Tree::lookup`] for the directory; `BadName` when the path is the root.
    pub fn lookup_parent(&self, path: &[u8]) -> Result<(InodeId, Name), TreeError> {
        let clean =
            path::clean_rooted(path).map_err(|_| TreeError::new(TreeErrorKind::BadName, path))?;
        if clean.is_empty() {
            return Err(TreeError::new(TreeErrorKind::BadName, path));
        }
        let dir = self.lookup(path::parent(&clean), Follow::All)?;
        if !self[dir].is_dir() {
            return Err(TreeError::new(
                TreeErrorKind::NotADirectory,
                path::parent(&clean),
            ));
        }
        Ok((dir, path::file_name(&clean).into()))
    }

    /// Follows a path as far as it exists. Below the first missing name the rest is taken by its text.
    ///
    /// # Errors
    /// When the path leads through something that is no directory, has a name that is too long, or there are too many
    /// links.
    pub fn resolve(&self, path: &[u8], follow: Follow) -> Result<Place, TreeError> {
        let fail = |kind| TreeError::new(kind, path);
        // The directories from the root to where we are, with the length of the path at each.
        let mut stack: Vec<(InodeId, usize)> = vec![(InodeId::ROOT, 0)];
        let mut out: Vec<u8> = Vec::with_capacity(path.len());
        let mut missing: Vec<Name> = Vec::new();
        // What is still to be walked, last component first.
        let mut todo: Vec<Name> = components(path).rev().map(Into::into).collect();
        let mut links = 0;
        // A last component that is no directory.
        let mut leaf = None;
        while let Some(name) = todo.pop() {
            if leaf.is_some() {
                return Err(fail(TreeErrorKind::NotADirectory));
            }
            if &*name == b".." {
                if missing.pop().is_some() {
                    out.truncate(path::parent(&out).len());
                } else if stack.len() > 1 {
                    stack.pop();
                    out.truncate(stack[stack.len() - 1].1);
                }
                continue;
            }
            if !path::is_name(&name) {
                return Err(fail(TreeErrorKind::BadName));
            }
            let here = stack[stack.len() - 1].0;
            let found = if missing.is_empty() {
                self.child(here, &name)
            } else {
                None
            };
            let Some(id) = found else {
                path::push(&mut out, &name);
                missing.push(name);
                continue;
            };
            match &self[id].kind {
                Kind::Symlink(target) if !todo.is_empty() || follow == Follow::All => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(fail(TreeErrorKind::TooManyLinks));
                    }
                    if target.first() == Some(&b'/') {
                        stack.truncate(1);
                        out.clear();
                    }
                    todo.extend(components(target).rev().map(Name::from));
                }
                Kind::Dir(_) => {
                    path::push(&mut out, &name);
                    stack.push((id, out.len()));
                }
                _ => {
                    path::push(&mut out, &name);
                    leaf = Some(id);
                }
            }
        }
        let here = stack[stack.len() - 1].0;
        let (id, dir) = match leaf {
            Some(id) => (Some(id), here),
            None if missing.is_empty() => (Some(here), stack[stack.len().saturating_sub(2)].0),
            None => (None, here),
        };
        Ok(Place {
            path: out,
            id,
            dir,
            missing,
        })
    }

    /// The directory at a path; what is missing on the way is made as copies of `template`.
    ///
    /// # Errors
    /// As [`Tree::resolve`] and [`Tree::insert`]; `NotADirectory` when something else is there.
    pub fn make_dirs(&mut self, path: &[u8], template: &Inode) -> Result<InodeId, TreeError> {
        let place = self.resolve(path, Follow::All)?;
        match place.id {
            Some(id) if self[id].is_dir() => Ok(id),
            Some(_) => Err(TreeError::new(TreeErrorKind::NotADirectory, path)),
            None => {
                let mut dir = place.dir;
                for name in &place.missing {
                    dir = self.insert(dir, name, template.clone())?;
                }
                Ok(dir)
            }
        }
    }
}
