//! Sources: images and contexts.

use std::sync::Arc;

use super::{SolveError, SolveErrorKind, Solver};
use crate::chain::{Chain, ChainLayer};
use crate::context::Files;
use crate::graph::{ContextOp, ImageOp};
use crate::key::KeyWriter;

impl Solver<'_> {
    /// The files of a context.
    pub(crate) fn context(&self, context: &ContextOp) -> Result<Arc<Files>, SolveError> {
        let Some(dir) = self.options.contexts.get(&context.name) else {
            let message = format!("there is no build context {:?}", context.name);
            return Err(SolveError::new(SolveErrorKind::Source, message)
                .hint("give a directory as the last argument"));
        };
        let mut name = KeyWriter::new("context/1");
        name.text(&dir.path.to_string_lossy());
        let memory = self
            .store
            .root()
            .join("stat")
            .join(name.finish().to_string());
        let files = Files::scan(dir, &memory).map_err(|error| {
            let message = error.to_string();
            SolveError::caused(SolveErrorKind::Source, message, error)
        })?;
        Ok(Arc::new(files))
    }
}

/// The chain of a resolved image.
pub(crate) fn image(image: &ImageOp) -> Arc<Chain> {
    image.layers.iter().fold(Chain::scratch(), |chain, layer| {
        chain.push(ChainLayer {
            diff_id: *layer,
            created: None,
        })
    })
}
