//! Results: a chain of layers, and the tree that it makes.
//!
//! A [`Chain`] is what a vertex gives: layers by digest, lowest first. It is immutable and shared; a step on top of it makes
//! a longer one. Its *chain ID* names its content (OCI image specification, `config.md`, "Layer ChainID"): two chains with
//! the same id hold the same files, however they were made. Cache keys are built on it.
//!
//! The [`Tree`] of a chain is made when somebody asks for it, from the tree of the nearest ancestor that has one, by
//! applying the layers between. On the way the image that the chain begins with gets its own, which stays: what begins there
//! next reads none of the image's layers again. A cached build asks for none.

use std::sync::{Arc, Mutex, PoisonError};

use firebuild_oci::Digest;
use firebuild_rootfs::layer::Layer;
use firebuild_rootfs::tree::Tree;

use crate::content::{ContentError, read_layer};
use firebuild_store::Store;

/// One layer of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Seconds since the epoch when it was made; none for layers of an image.
    pub created: Option<i64>,
}

/// A file system as a stack of layers.
#[derive(Debug)]
pub struct Chain {
    parent: Option<Arc<Chain>>,
    layer: Option<ChainLayer>,
    id: Digest,
    depth: usize,
    tree: Mutex<Option<Arc<Tree>>>,
}

impl Chain {
    /// The empty file system.
    #[must_use]
    pub fn scratch() -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            layer: None,
            id: Digest::of(b""),
            depth: 0,
            tree: Mutex::new(None),
        })
    }

    /// This chain with one layer more.
    #[must_use]
    pub fn push(self: &Arc<Self>, layer: ChainLayer) -> Arc<Self> {
        let id = if self.depth == 0 {
            layer.diff_id
        } else {
            Digest::of(format!("{} {}", self.id, layer.diff_id).as_bytes())
        };
        Arc::new(Self {
            parent: Some(Arc::clone(self)),
            layer: Some(layer),
            id,
            depth: self.depth + 1,
            tree: Mutex::new(None),
        })
    }

    /// What names the content of this chain.
    #[must_use]
    pub fn id(&self) -> &Digest {
        &self.id
    }

    /// How many layers it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.depth
    }

    /// Whether it has no layer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.depth == 0
    }

    /// The layer on top.
    #[must_use]
    pub fn top(&self) -> Option<&ChainLayer> {
        self.layer.as_ref()
    }

    /// Its layers, lowest first.
    #[must_use]
    pub fn layers(&self) -> Vec<ChainLayer> {
        let mut layers = Vec::with_capacity(self.depth);
        let mut at = Some(self);
        while let Some(chain) = at {
            layers.extend(chain.layer.clone());
            at = chain.parent.as_deref();
        }
        layers.reverse();
        layers
    }

    /// The ids of all its beginnings: of the empty chain, of the lowest layer alone, and so on up to this one.
    pub(crate) fn ids(&self) -> Vec<Digest> {
        let parents = std::iter::successors(Some(self), |chain| chain.parent.as_deref());
        let mut ids: Vec<Digest> = parents.map(|chain| chain.id).collect();
        ids.reverse();
        ids
    }

    /// The tree that the layers make.
    ///
    /// # Errors
    /// When a layer is missing or damaged, or cannot be applied.
    pub fn tree(&self, store: &Store) -> Result<Arc<Tree>, ContentError> {
        let mut missing: Vec<(Digest, &Self)> = Vec::new();
        let mut at = self;
        let mut found = None;
        loop {
            if let Some(tree) = if missing.is_empty() {
                at.known()
            } else {
                at.hand_over()
            } {
                found = Some(tree);
                break;
            }
            match (&at.layer, &at.parent) {
                (Some(layer), Some(parent)) => {
                    missing.push((layer.diff_id, at));
                    at = parent;
                }
                _ => break,
            }
        }
        let mut tree = match found {
            Some(tree) if missing.is_empty() => return Ok(tree),
            Some(tree) => Arc::unwrap_or_clone(tree),
            None => Tree::new(),
        };
        // The image, if the tree grows beyond it: its topmost layer is the last that nothing has made here.
        let image = missing.iter().position(|(_, chain)| chain.is_image());
        for (index, (diff_id, chain)) in missing.iter().enumerate().rev() {
            let layer = read_layer(store, diff_id)?;
            tree.apply(&layer)
                .map_err(|error| ContentError::apply(*diff_id, error))?;
            if image == Some(index) && index > 0 {
                chain.keep(&Arc::new(tree.clone()));
            }
        }
        let tree = Arc::new(tree);
        self.keep(&tree);
        Ok(tree)
    }

    /// Makes the tree of this chain from its parent's and the layer that its maker has at hand, so that nobody reads the
    /// layer again. Does nothing when the parent has no tree, or when the layer does not apply: whoever asks for the tree
    /// then learns why.
    pub(crate) fn remember(&self, layer: &Layer) {
        if self.known().is_some() {
            return;
        }
        let Some(tree) = self.parent.as_ref().and_then(|parent| parent.hand_over()) else {
            return;
        };
        let mut tree = Arc::unwrap_or_clone(tree);
        if tree.apply(layer).is_ok() {
            self.keep(&Arc::new(tree));
        }
    }

    /// The tree of the longest beginning of this chain, of at most `most` layers, that has one, and how many layers that is.
    pub(crate) fn nearest(&self, most: usize) -> Option<(usize, Arc<Tree>)> {
        let beginnings = std::iter::successors(Some(self), |chain| chain.parent.as_deref());
        beginnings
            .filter(|chain| chain.depth <= most)
            .find_map(|chain| Some((chain.depth, chain.known()?)))
    }

    /// Whether the layer on top is an image's, and was not made by a step here.
    fn is_image(&self) -> bool {
        matches!(&self.layer, Some(layer) if layer.created.is_none())
    }

    fn keep(&self, tree: &Arc<Tree>) {
        *self.tree.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(tree));
    }

    /// The tree, for a longer chain. A build of many steps must not keep a tree for each of them, so the chain gives its
    /// own away; images keep theirs, because several stages begin there.
    fn hand_over(&self) -> Option<Arc<Tree>> {
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.layer {
            Some(layer) if layer.created.is_some() => tree.take(),
            _ => tree.clone(),
        }
    }

    fn known(&self) -> Option<Arc<Tree>> {
        self.tree
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::{Chain, ChainLayer};
    use firebuild_oci::Digest;

    fn layer(text: &str) -> ChainLayer {
        ChainLayer {
            diff_id: Digest::of(text.as_bytes()),
            created: None,
        }
    }

    #[test]
    fn the_id_is_the_chain_id_of_the_image_specification() {
        let one = Chain::scratch().push(layer("a"));
        assert_eq!(*one.id(), Digest::of(b"a"));
        let two = one.push(layer("b"));
        let text = format!("{} {}", Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(*two.id(), Digest::of(text.as_bytes()));
        assert_eq!(two.layers(), [layer("a"), layer("b")]);
        let ids = [*Chain::scratch().id(), *one.id(), *two.id()];
        assert_eq!(two.ids(), ids);
        assert_eq!((two.len(), Chain::scratch().is_empty()), (2, true));
    }
}
