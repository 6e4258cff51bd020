//! Sources: images and contexts.

use std::sync::Arc;

use crate::chain::{Chain, ChainLayer};
use crate::graph::ImageOp;

/// The chain of a resolved image.
pub(crate) fn image(image: &ImageOp) -> Arc<Chain> {
    image
        .layers
        .iter()
        .fold(Chain::scratch(), |chain, layer| chain.push(ChainLayer { diff_id: *layer, created: None }))
}
