//! What a COPY changes.
//!
//! The destination tree is copied in memory, the files are put into it by the rules of the language, and what was touched
//! becomes the layer. Working on a real tree makes every rule about links, existing directories and several sources hold
//! by itself.

use std::collections::{BTreeMap, HashMap};

use firebuild_accounts::Owner;
use firebuild_dockerfile::IgnorePatterns;
use firebuild_rootfs::layer::{Change, Layer};
use firebuild_rootfs::path;
use firebuild_rootfs::tree::{Content, Follow, Inode, InodeId, Kind, Meta, Source, Time, Tree};

use super::{Chmod, CopyError, CopyErrorKind, Selected};

/// How a COPY puts its files.
#[derive(Debug)]
pub struct Options<'a> {
    /// Destination, absolute; with a slash at its end it is a directory.
    pub dest: &'a str,
    /// Who owns everything (`--chown`); nothing keeps the owners of the source.
    pub owner: Option<Owner>,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: &'a IgnorePatterns,
    /// Time of directories that are made.
    pub made: Time,
}

/// Tells what a regular file that is a source unpacks to: the layer of an archive, or nothing.
pub type Unpack<'a> = &'a dyn Fn(&Selected, &Content) -> Result<Option<Layer>, CopyError>;

/// Puts `selected` (and then heredoc files) into `below` and gives what changed.
///
/// `unpack` is asked for each regular file that is a source: the layer of an archive that ADD shall unpack, or nothing.
///
/// # Errors
/// When a file and a directory are in each other's way, or an archive is damaged.
pub fn apply(
    below: &Tree,
    trees: &[&Tree],
    selected: &[Selected],
    inline: &[(&str, &[u8])],
    options: &Options<'_>,
    unpack: Unpack<'_>,
) -> Result<Layer, CopyError> {
    let mut work = Work {
        tree: below.clone(),
        touched: BTreeMap::new(),
        options,
    };
    for one in selected {
        let inode = &trees[one.tree][one.id];
        if let Kind::File(content) = &inode.kind
            && let Some(archive) = unpack(one, content)?
        {
            work.unpack(&archive)?;
            continue;
        }
        work.source(trees[one.tree], one)?;
    }
    for (name, data) in inline {
        let meta = Meta {
            mode: 0o644,
            mtime: options.made,
            ..Meta::default()
        };
        let content = Content {
            source: Source::Bytes((*data).into()),
            size: data.len() as u64,
        };
        let inode = Inode::new(meta, Kind::File(content));
        let (dir, at, name) = work.file_place(options.dest, name.as_bytes())?;
        work.put(dir, &at, &name, inode)?;
    }
    Ok(work.into_layer())
}

struct Work<'a> {
    tree: Tree,
    /// Clean paths that the layer has, with what is there. The key sorts a directory before what is in it.
    touched: BTreeMap<Vec<Vec<u8>>, InodeId>,
    options: &'a Options<'a>,
}

impl Work<'_> {
    fn source(&mut self, from: &Tree, one: &Selected) -> Result<(), CopyError> {
        let inode = &from[one.id];
        if self.options.parents {
            return self.source_with_parents(from, one);
        }
        if inode.is_dir() {
            let (dir, at) = self.directory(self.options.dest.as_bytes())?;
            self.merge(from, one.id, dir, at.clone(), Vec::new())?;
            // Of the directory's own properties BuildKit gives the time alone; the root of a file system is in no layer.
            if !at.is_empty() {
                self.tree.meta_mut(dir).mtime = inode.meta.mtime;
                self.touch(&at, dir);
            }
            return Ok(());
        }
        let (dir, at, name) = self.file_place(self.options.dest, path::file_name(&one.path))?;
        self.put(dir, &at, &name, inode.clone())
    }

    /// `--parents`: the path after the pivot is made below the destination, with the metadata of the source's directories.
    fn source_with_parents(&mut self, from: &Tree, one: &Selected) -> Result<(), CopyError> {
        let kept = &one.path[one.pivot..];
        let (mut dir, mut at) = self.directory(self.options.dest.as_bytes())?;
        let names: Vec<&[u8]> = path::components(kept).collect();
        let mut source = one.path[..one.pivot].to_vec();
        let last_is_file = !from[one.id].is_dir();
        for (index, name) in names.iter().enumerate() {
            path::push(&mut source, name);
            if index + 1 == names.len() && last_is_file {
                return self.put(dir, &at, name, from[one.id].clone());
            }
            let meta = from
                .lookup(&source, Follow::All)
                .map_or_else(|_| self.made_dir().meta, |id| from[id].meta.clone());
            (dir, at) = self.child_dir(dir, &at, name, Some(meta))?;
        }
        self.merge(from, one.id, dir, at, kept.to_vec())
    }

    /// Copies what is in a directory into another one. `below` is the source's path as `--exclude` sees it.
    fn merge(
        &mut self,
        from: &Tree,
        source: InodeId,
        dir: InodeId,
        at: Vec<u8>,
        below: Vec<u8>,
    ) -> Result<(), CopyError> {
        let mut links: HashMap<InodeId, InodeId> = HashMap::new();
        let mut todo = vec![(source, dir, at, below)];
        while let Some((source, dir, at, below)) = todo.pop() {
            let Kind::Dir(children) = &from[source].kind else {
                continue;
            };
            for (name, id) in children {
                let inode = &from[*id];
                let relative = path::join(&below, name);
                let ignored = self.options.exclude.is_ignored(&relative);
                if inode.is_dir() {
                    if ignored && self.options.exclude.skips_below(&relative) {
                        continue;
                    }
                    // A directory that is excluded appears only if an exception below it matches.
                    if ignored && !self.has_exception(from, *id, &relative) {
                        continue;
                    }
                    // What is there only for an exception is as its source, but for the time.
                    let mut meta = Some(inode.meta.clone());
                    if ignored {
                        let made = self.tree.child(dir, name).is_none();
                        meta = meta.filter(|_| made);
                        if let Some(meta) = &mut meta {
                            meta.mtime = self.options.made;
                        }
                    }
                    let (child, child_at) = self.child_dir(dir, &at, name, meta)?;
                    todo.push((*id, child, child_at, relative));
                } else if !ignored {
                    if inode.names > 1
                        && let Some(first) = links.get(id)
                    {
                        self.link(dir, &at, name, *first)?;
                        continue;
                    }
                    let copy = Inode::new(inode.meta.clone(), inode.kind.clone());
                    let copied = self.put_inode(dir, &at, name, copy)?;
                    if inode.names > 1 {
                        links.insert(*id, copied);
                    }
                }
            }
        }
        Ok(())
    }

    fn has_exception(&self, from: &Tree, dir: InodeId, relative: &[u8]) -> bool {
        let mut todo = vec![(dir, relative.to_vec())];
        while let Some((dir, at)) = todo.pop() {
            let Kind::Dir(children) = &from[dir].kind else {
                continue;
            };
            for (name, id) in children {
                let below = path::join(&at, name);
                if !self.options.exclude.is_ignored(&below) {
                    return true;
                }
                todo.push((*id, below));
            }
        }
        false
    }

    /// Unpacks an archive into the destination, which is a directory whether or not it ends with a slash. `--chmod` is not
    /// for what is made for it.
    fn unpack(&mut self, archive: &Layer) -> Result<(), CopyError> {
        let made = self.unpacked_dir();
        let (_, base) = self.directory_as(self.options.dest.as_bytes(), &made)?;
        // Links may stand before their target, also before a link that is their target.
        let mut links = Vec::new();
        for entry in &archive.entries {
            match &entry.change {
                // The destination itself stays as it is.
                _ if entry.path.is_empty() => {}
                Change::Node(inode) => self.unpack_node(&base, &entry.path, inode)?,
                Change::HardLink(first) if self.unpack_link(&base, &entry.path, first)? => {}
                Change::HardLink(first) => links.push((&entry.path, first)),
                Change::Whiteout | Change::Opaque => {}
            }
        }
        while !links.is_empty() {
            let before = links.len();
            let mut later = Vec::new();
            for (path, first) in links {
                if !self.unpack_link(&base, path, first)? {
                    later.push((path, first));
                }
            }
            if later.len() == before {
                let (path, first) = (path::escape(later[0].0), path::escape(later[0].1));
                let message = format!(
                    "cannot unpack /{path}: it is a hard link to /{first}, which does not exist"
                );
                return Err(CopyError::new(CopyErrorKind::Archive, message));
            }
            links = later;
        }
        Ok(())
    }

    fn unpack_node(&mut self, base: &[u8], entry: &[u8], inode: &Inode) -> Result<(), CopyError> {
        let failed =
            |error| CopyError::tree(format!("cannot unpack /{}", path::escape(entry)), error);
        let (parent, at) = self.unpack_parent(base, entry)?;
        let name = path::file_name(entry);
        let mut inode = inode.clone();
        self.own(&mut inode.meta);
        if let Kind::Symlink(_) = inode.kind {
            // Whatever the archive says: links have no other on Linux.
            inode.meta.mode = 0o777;
        }
        let existing = self
            .tree
            .child(parent, name)
            .filter(|id| inode.is_dir() && self.tree[*id].is_dir());
        let id = match existing {
            Some(id) => {
                *self.tree.meta_mut(id) = inode.meta;
                id
            }
            None => self.tree.replace(parent, name, inode).map_err(failed)?,
        };
        self.touch(&path::join(&at, name), id);
        Ok(())
    }

    /// Makes a hard link; `false` when its target is not there (yet).
    fn unpack_link(&mut self, base: &[u8], entry: &[u8], first: &[u8]) -> Result<bool, CopyError> {
        let Ok(id) = self.tree.lookup(&path::join(base, first), Follow::ButLast) else {
            return Ok(false);
        };
        let (parent, at) = self.unpack_parent(base, entry)?;
        self.link(parent, &at, path::file_name(entry), id)?;
        Ok(self.tree.get(id).is_some())
    }

    /// The directory of an archive's entry. What the archive does not have is made as any archive is unpacked: 0755,
    /// whatever `--chmod` says.
    fn unpack_parent(
        &mut self,
        base: &[u8],
        entry: &[u8],
    ) -> Result<(InodeId, Vec<u8>), CopyError> {
        let made = self.unpacked_dir();
        self.directory_as(&path::join(base, path::parent(entry)), &made)
    }

    fn unpacked_dir(&self) -> Inode {
        let mut made = self.made_dir();
        made.meta.mode = 0o755;
        made
    }

    /// Where a file goes: inside the destination if that is a directory or ends with a slash, else under its name.
    fn file_place(
        &mut self,
        dest: &str,
        name: &[u8],
    ) -> Result<(InodeId, Vec<u8>, Vec<u8>), CopyError> {
        let dest = dest.as_bytes();
        let failed =
            |error| CopyError::tree(format!("cannot copy to {}", path::escape(dest)), error);
        if dest.ends_with(b"/") || dest.is_empty() {
            let (dir, at) = self.directory(dest)?;
            return Ok((dir, at, name.to_vec()));
        }
        let place = self.tree.resolve(dest, Follow::All).map_err(failed)?;
        match place.id {
            Some(id) if self.tree[id].is_dir() => Ok((id, place.path, name.to_vec())),
            _ => {
                // The resolved path: a link at the end is written through, to its target.
                let parent = path::parent(&place.path).to_vec();
                let (dir, at) = self.directory(&parent)?;
                Ok((dir, at, path::file_name(&place.path).to_vec()))
            }
        }
    }

    /// The directory at a path, made with its parents where it is missing.
    fn directory(&mut self, dest: &[u8]) -> Result<(InodeId, Vec<u8>), CopyError> {
        let made = self.made_dir();
        self.directory_as(dest, &made)
    }

    fn directory_as(&mut self, dest: &[u8], made: &Inode) -> Result<(InodeId, Vec<u8>), CopyError> {
        let failed =
            |error| CopyError::tree(format!("cannot copy to {}", path::escape(dest)), error);
        let place = self.tree.resolve(dest, Follow::All).map_err(failed)?;
        if let Some(id) = place.id {
            if !self.tree[id].is_dir() {
                let shown = path::escape(&place.path);
                return Err(CopyError::new(
                    CopyErrorKind::Conflict,
                    format!("cannot copy to non-directory: /{shown}"),
                ));
            }
            return Ok((id, place.path));
        }
        let mut at = place.path.clone();
        for _ in &place.missing {
            at = path::parent(&at).to_vec();
        }
        let mut dir = place.dir;
        for name in &place.missing {
            dir = self.tree.insert(dir, name, made.clone()).map_err(failed)?;
            path::push(&mut at, name);
            self.touch(&at, dir);
        }
        Ok((dir, at))
    }

    /// A directory that had to be made.
    fn made_dir(&self) -> Inode {
        let mut inode = Inode::dir(self.options.chmod.as_ref().map_or(0o755, Chmod::of_parents));
        inode.meta.mtime = self.options.made;
        if let Some(owner) = self.options.owner {
            inode.meta.uid = owner.uid;
            inode.meta.gid = owner.gid;
        }
        inode
    }

    /// A directory of the source inside a directory of the destination. With `meta` it gets that, also if it exists.
    fn child_dir(
        &mut self,
        dir: InodeId,
        at: &[u8],
        name: &[u8],
        meta: Option<Meta>,
    ) -> Result<(InodeId, Vec<u8>), CopyError> {
        let here = path::join(at, name);
        let id = match self.tree.child(dir, name) {
            Some(id) if self.tree[id].is_dir() => id,
            Some(_) => {
                let shown = path::escape(&here);
                return Err(CopyError::new(
                    CopyErrorKind::Conflict,
                    format!("cannot copy to non-directory: /{shown}"),
                ));
            }
            None => {
                let made = self.made_dir();
                self.tree.insert(dir, name, made).map_err(|error| {
                    CopyError::tree(format!("cannot make /{}", path::escape(&here)), error)
                })?
            }
        };
        if let Some(mut meta) = meta {
            self.change(&mut meta, true);
            *self.tree.meta_mut(id) = meta;
        }
        self.touch(&here, id);
        Ok((id, here))
    }

    fn put(&mut self, dir: InodeId, at: &[u8], name: &[u8], inode: Inode) -> Result<(), CopyError> {
        self.put_inode(dir, at, name, Inode::new(inode.meta, inode.kind))
            .map(|_| ())
    }

    fn put_inode(
        &mut self,
        dir: InodeId,
        at: &[u8],
        name: &[u8],
        mut inode: Inode,
    ) -> Result<InodeId, CopyError> {
        let here = path::join(at, name);
        if self
            .tree
            .child(dir, name)
            .is_some_and(|id| self.tree[id].is_dir())
        {
            let shown = path::escape(&here);
            return Err(CopyError::new(
                CopyErrorKind::Conflict,
                format!("cannot replace the directory /{shown} with a file"),
            ));
        }
        if matches!(inode.kind, Kind::Symlink(_)) {
            self.own(&mut inode.meta);
        } else {
            self.change(&mut inode.meta, false);
        }
        let id = self.tree.replace(dir, name, inode).map_err(|error| {
            CopyError::tree(format!("cannot copy to /{}", path::escape(&here)), error)
        })?;
        self.touch(&here, id);
        Ok(id)
    }

    fn link(
        &mut self,
        dir: InodeId,
        at: &[u8],
        name: &[u8],
        first: InodeId,
    ) -> Result<(), CopyError> {
        let here = path::join(at, name);
        let failed =
            |error| CopyError::tree(format!("cannot link /{}", path::escape(&here)), error);
        if self.tree.child(dir, name) == Some(first) {
            return Ok(());
        }
        if self.tree.child(dir, name).is_some() {
            self.tree.remove(dir, name).map_err(failed)?;
        }
        self.tree.link(dir, name, first).map_err(failed)?;
        self.touch(&here, first);
        Ok(())
    }

    fn change(&self, meta: &mut Meta, is_dir: bool) {
        self.own(meta);
        if let Some(chmod) = &self.options.chmod {
            meta.mode = chmod.apply(meta.mode, is_dir);
        }
    }

    fn own(&self, meta: &mut Meta) {
        if let Some(owner) = self.options.owner {
            meta.uid = owner.uid;
            meta.gid = owner.gid;
        }
    }

    fn touch(&mut self, path: &[u8], id: InodeId) {
        self.touched
            .insert(path::components(path).map(<[u8]>::to_vec).collect(), id);
    }

    fn into_layer(self) -> Layer {
        let mut layer = Layer::default();
        let mut first: HashMap<InodeId, Vec<u8>> = HashMap::new();
        for (components, id) in &self.touched {
            let here = components.join(&b'/');
            // What a later source replaced or removed is not here any more.
            if self.tree.find(&here) != Some(*id) {
                continue;
            }
            let inode = &self.tree[*id];
            let change = match first.get(id) {
                Some(target) => Change::HardLink(target.clone()),
                None => {
                    if inode.names > 1 {
                        first.insert(*id, here.clone());
                    }
                    Change::Node(Inode::new(inode.meta.clone(), inode.kind.bare()))
                }
            };
            layer.push(here, change);
        }
        layer
    }
}
