//! Sources: images, contexts, and what is fetched.

use std::sync::Arc;

use super::{ContextDir, ContextSource, SolveError, SolveErrorKind, Solver, Value};
use crate::chain::{Chain, ChainLayer};
use crate::context::Files;
use crate::graph::{ContextOp, ImageOp};
use crate::key::KeyWriter;
use crate::remote::Fetched;

impl Solver<'_> {
    /// The files of a context, and whether they were there already.
    pub(crate) fn context(&self, context: &ContextOp) -> Result<(Value, bool), SolveError> {
        match self.options.contexts.get(&context.name) {
            Some(ContextSource::Dir(dir)) => Ok((Value::Files(self.directory(dir)?), false)),
            Some(ContextSource::Tree(tree)) => Ok((Value::Tree(Arc::clone(tree)), false)),
            Some(ContextSource::Git(git)) => {
                let fetched = self.remote.git(git)?;
                let cached = fetched.cached;
                let ignore = fetched.ignore_file(self.store, &[".dockerignore"])?;
                let tree = fetched.into_context(ignore.as_ref())?;
                Ok((Value::Tree(Arc::new(tree)), cached))
            }
            Some(ContextSource::Http(http)) => Ok(fetched(self.remote.http(http)?)),
            None => {
                let message = format!("there is no build context {:?}", context.name);
                Err(SolveError::new(SolveErrorKind::Source, message)
                    .hint("give a directory as the last argument"))
            }
        }
    }

    fn directory(&self, dir: &ContextDir) -> Result<Arc<Files>, SolveError> {
        let mut name = KeyWriter::new("context/1");
        name.text(&dir.path.to_string_lossy());
        let memory = self
            .store
            .root()
            .join("stat")
            .join(name.finish().to_string());
        // So that a prune by age sees the use.
        let _ = self.store.hold(&memory);
        let files = Files::scan(dir, &memory, self.cancel).map_err(|error| {
            let message = error.to_string();
            SolveError::caused(SolveErrorKind::Source, message, error)
        })?;
        Ok(Arc::new(files))
    }
}

/// What was fetched, as a value.
pub(super) fn fetched(fetched: Fetched) -> (Value, bool) {
    let cached = fetched.cached;
    (Value::Tree(Arc::new(fetched.without_ignore())), cached)
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
