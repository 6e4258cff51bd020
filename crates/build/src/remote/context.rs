//! What was fetched, as a build context: without what its ignore file leaves out.

use std::sync::Arc;

use firebuild_dockerfile::IgnorePatterns;
use firebuild_oci::Digest;
use firebuild_rootfs::tree::{Contents as _, Follow, InodeId, Kind, Tree};
use firebuild_store::Store;

use super::{Fetched, RemoteError, RemoteErrorKind as Failed};
use crate::content::StoreContents;
use crate::context::read_all;
use crate::key::KeyWriter;
use crate::solve::StoredTree;

/// An ignore file larger than this is none.
const MAX_IGNORE: u64 = 16 << 20;

impl Fetched {
    /// The text of a small file, if it is there.
    ///
    /// # Errors
    /// When it is no file, too large, or cannot be read.
    pub fn read(
        &self,
        store: &Store,
        path: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, RemoteError> {
        let Ok(id) = self.tree.lookup(path.as_bytes(), Follow::All) else {
            return Ok(None);
        };
        let wrong = |what: &str| RemoteError::new(Failed::NotFound, format!("{path} {what}"));
        let content = match &self.tree[id].kind {
            Kind::File(content) => content,
            Kind::Dir(_) => return Err(wrong("is a directory")),
            _ => return Err(wrong("is no file")),
        };
        if content.size > limit {
            return Err(wrong(&format!("has more than {limit} bytes")));
        }
        let failed =
            |error| RemoteError::caused(Failed::Store, format!("cannot read {path}"), error);
        let opened = StoreContents::new(store).open(content).map_err(failed)?;
        read_all(&opened, content.size).map(Some).map_err(failed)
    }

    /// The first ignore file that is there: its name and its text.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn ignore_file(
        &self,
        store: &Store,
        names: &[&str],
    ) -> Result<Option<(String, String)>, RemoteError> {
        for name in names {
            if let Some(bytes) = self.read(store, name, MAX_IGNORE)? {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Ok(Some(((*name).to_owned(), text)));
            }
        }
        Ok(None)
    }

    /// The context, where there is no ignore file.
    #[must_use]
    pub fn without_ignore(self) -> StoredTree {
        StoredTree {
            tree: self.tree,
            id: self.id,
            ignore: IgnorePatterns::default(),
        }
    }

    /// The context, without what an ignore file leaves out.
    ///
    /// # Errors
    /// When the ignore file is malformed.
    pub fn into_context(
        self,
        ignore: Option<&(String, String)>,
    ) -> Result<StoredTree, RemoteError> {
        let Some((file, text)) = ignore else {
            return Ok(self.without_ignore());
        };
        let ignore = IgnorePatterns::parse(text.as_bytes()).map_err(|error| {
            RemoteError::caused(Failed::Address, format!("cannot use {file}"), error)
        })?;
        let mut tree = Arc::unwrap_or_clone(self.tree);
        leave_out(&mut tree, InodeId::ROOT, &mut Vec::new(), &ignore);
        let mut key = KeyWriter::new("ignored/1");
        key.digest(&self.id).text(text);
        Ok(StoredTree {
            tree: Arc::new(tree),
            id: Digest::from_bytes(key.finish().0),
            ignore,
        })
    }
}

/// Removes what is ignored below a directory; an ignored directory stays if something in it does.
fn leave_out(tree: &mut Tree, dir: InodeId, path: &mut Vec<u8>, ignore: &IgnorePatterns) {
    let entries: Vec<_> = match tree[dir].children() {
        Some(children) => children
            .iter()
            .map(|(name, id)| (name.clone(), *id))
            .collect(),
        None => return,
    };
    for (name, id) in entries {
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        let ignored = ignore.is_ignored(path);
        let is_dir = tree[id].is_dir();
        if is_dir && !(ignored && ignore.skips_below(path)) {
            leave_out(tree, id, path, ignore);
        }
        let empty = tree[id]
            .children()
            .is_some_and(|children| children.is_empty());
        if ignored && (!is_dir || empty || ignore.skips_below(path)) {
            // It was listed a moment ago, and nobody else has this tree.
            let _ = tree.remove(dir, &name);
        }
        path.truncate(length);
    }
}
