//! WORKDIR: a directory that must exist.
//!
//! What is missing is made with mode 0755 and belongs to the USER in force; what is there is not touched (BuildKit,
//! `dispatchWorkdir`). The instruction gives a layer either way, as its history entry says.

use std::sync::Arc;

use firebuild_rootfs::layer::{Change, Layer};
use firebuild_rootfs::path;
use firebuild_rootfs::tree::{Follow, Inode, Time, Tree};

use super::{SolveError, SolveErrorKind, Solver, Value, chain_of};
use crate::accounts_of::owner;
use crate::content::{StoreContents, store_layer};
use crate::graph::{MkdirOp, Vertex, VertexId};
use crate::key::KeyWriter;

impl Solver<'_> {
    pub(crate) fn mkdir(
        &self,
        id: VertexId,
        vertex: &Vertex,
        mkdir: &MkdirOp,
        given: &[Value],
    ) -> Result<(Value, bool), SolveError> {
        let below = chain_of(given, 0)?;
        let mut key = KeyWriter::new("mkdir/1");
        key.digest(below.id()).text(&mkdir.path).text(&mkdir.user);
        self.cached(id, vertex, &key.finish(), &below, || {
            let tree = below.tree(self.store).map_err(SolveError::content)?;
            let layer = self.missing_directories(&tree, mkdir)?;
            store_layer(self.store, &layer, &StoreContents::new(self.store))
                .map_err(SolveError::content)
        })
    }

    fn missing_directories(&self, tree: &Arc<Tree>, mkdir: &MkdirOp) -> Result<Layer, SolveError> {
        let place = tree
            .resolve(mkdir.path.as_bytes(), Follow::All)
            .map_err(|error| {
                SolveError::caused(
                    SolveErrorKind::Copy,
                    format!("cannot make {}", mkdir.path),
                    error,
                )
            })?;
        let mut layer = Layer::default();
        if let Some(id) = place.id {
            if !tree[id].is_dir() {
                return Err(SolveError::new(
                    SolveErrorKind::Copy,
                    format!(
                        "cannot use {} as working directory: it is no directory",
                        mkdir.path
                    ),
                ));
            }
            return Ok(layer);
        }
        let owner = owner(self.store, tree, &mkdir.user).map_err(|error| {
            SolveError::caused(
                SolveErrorKind::Copy,
                format!("cannot make {}", mkdir.path),
                error,
            )
        })?;
        let mut at = place.path.clone();
        // `path` is the whole clean path; the names that are missing are its last components.
        for _ in 1..place.missing.len() {
            at = path::parent(&at).to_vec();
        }
        for (index, _) in place.missing.iter().enumerate() {
            if index > 0 {
                path::push(&mut at, &place.missing[index]);
            }
            let mut inode = Inode::dir(0o755);
            inode.meta.uid = owner.uid;
            inode.meta.gid = owner.gid;
            inode.meta.mtime = Time {
                secs: self.now(),
                nanos: 0,
            };
            layer.push(at.clone(), Change::Node(inode));
        }
        Ok(layer)
    }
}
