//! COPY and ADD in the solver: keys, and where the bytes come from.
//!
//! A copy from a stage or an image is looked up twice: by the chains it names, which costs nothing, and then by the content
//! that it selects, which hits although something else in the stage changed.

use std::sync::Arc;

use firebuild_dockerfile::IgnorePatterns;
use firebuild_oci::Digest;
use firebuild_rootfs::layer::Layer;
use firebuild_rootfs::tree::{Content, Contents, Kind, Source, Time, Tree};

use super::{SolveError, SolveErrorKind, Solver, Value, chain_of};
use crate::accounts_of::owner;
use crate::chain::Chain;
use crate::content::{ContentError, StoreContents, Stored, store_layer};
use crate::context::{self, Files};
use crate::copy::{self, Chmod, CopyError, Options, Selected, Selection};
use crate::graph::{CopyOp, CopySource, Unpack, Vertex, VertexId};
use crate::key::{CacheKey, KeyWriter};
use crate::stoppable::StoppableContents;

/// What the sources of one COPY are.
struct Sources<'v> {
    /// By position in the vertex's inputs; the first is the destination and unused.
    trees: Vec<Arc<Tree>>,
    /// The directory that paths in trees are in.
    files: Option<&'v Arc<Files>>,
    /// What was left out of the context.
    ignore: Option<&'v IgnorePatterns>,
}

impl Solver<'_> {
    pub(crate) fn copy(
        &self,
        id: VertexId,
        vertex: &Vertex,
        copy: &CopyOp,
        given: &[Value],
    ) -> Result<(Value, bool), SolveError> {
        let below = chain_of(given, 0)?;
        let by_definition = self.definition_key(copy, &below, given);
        if let Some(key) = &by_definition
            && !self.options.no_cache.applies(vertex)
        {
            if let Some(chain) = self.find(key, &below) {
                return Ok((Value::Chain(chain), true));
            }
            if let Some(chain) = self.find_elsewhere(key, &below)? {
                return Ok((Value::Chain(chain), true));
            }
        }
        let exclude = IgnorePatterns::from_patterns(copy.exclude.iter().map(String::as_str))
            .map_err(|error| {
                SolveError::caused(SolveErrorKind::Copy, "cannot use --exclude", error)
            })?;
        let sources = self.sources(given)?;
        let selected = select(copy, &sources, &exclude)?;
        let key = self.content_key(copy, &below, &sources, &selected, &exclude)?;
        let result = self.cached(id, vertex, &key, &below, || {
            self.copied(copy, &below, &sources, &selected, &exclude)
        })?;
        if let (Some(definition), Value::Chain(chain)) = (&by_definition, &result.0) {
            self.record(vertex, definition, &key, chain)?;
        }
        if let Some(files) = sources.files {
            files.save();
        }
        Ok(result)
    }

    /// A key without looking at any file; nothing for a context, whose content nothing names.
    fn definition_key(&self, copy: &CopyOp, below: &Chain, given: &[Value]) -> Option<CacheKey> {
        let mut key = KeyWriter::new("copy-definition/1");
        options_of(&mut key, copy, below);
        for value in given.iter().skip(1) {
            match value {
                Value::Chain(chain) => key.digest(chain.id()),
                Value::Tree(stored) => key.digest(&stored.id),
                Value::Files(_) => return None,
            };
        }
        for source in &copy.sources {
            if let CopySource::Paths {
                input,
                pattern,
                remote,
            } = source
            {
                key.number(*input as u64).text(pattern).flag(*remote);
            }
        }
        Some(key.finish())
    }

    fn content_key(
        &self,
        copy: &CopyOp,
        below: &Chain,
        sources: &Sources<'_>,
        selected: &[Selected],
        exclude: &IgnorePatterns,
    ) -> Result<CacheKey, SolveError> {
        let mut key = KeyWriter::new("copy/1");
        options_of(&mut key, copy, below);
        let trees: Vec<&Tree> = sources.trees.iter().map(|tree| &**tree).collect();
        if let Some(files) = sources.files {
            let contents = contents_of(&trees, selected, exclude);
            files.hash_all(&contents).map_err(unreadable)?;
        }
        let hash = |_: usize, content: &Content| match sources.files {
            Some(files) if is_path(content) => files.hash(content),
            _ => {
                let opened = StoreContents::new(self.store).open(content)?;
                context::hash(&opened, content.size, self.cancel)
            }
        };
        copy::digest(&mut key, &trees, selected, copy.parents, exclude, &hash).map_err(failed)?;
        Ok(key.finish())
    }

    fn sources<'v>(&self, given: &'v [Value]) -> Result<Sources<'v>, SolveError> {
        let mut trees = Vec::with_capacity(given.len());
        let (mut files, mut ignore) = (None, None);
        for (position, value) in given.iter().enumerate() {
            match value {
                _ if position == 0 => trees.push(Arc::new(Tree::new())),
                Value::Chain(chain) => {
                    self.bring([chain])?;
                    trees.push(chain.tree(self.store).map_err(SolveError::content)?)
                }
                Value::Files(these) => {
                    trees.push(Arc::clone(&these.tree));
                    files = Some(these);
                    ignore = Some(&these.ignore);
                }
                Value::Tree(stored) => {
                    trees.push(Arc::clone(&stored.tree));
                    ignore = ignore.or(Some(&stored.ignore));
                }
            }
        }
        Ok(Sources {
            trees,
            files,
            ignore,
        })
    }

    fn copied(
        &self,
        copy: &CopyOp,
        below: &Arc<Chain>,
        sources: &Sources<'_>,
        selected: &[Selected],
        exclude: &IgnorePatterns,
    ) -> Result<Stored, SolveError> {
        let tree = below.tree(self.store).map_err(SolveError::content)?;
        let wrong = |error: &dyn std::fmt::Display| {
            SolveError::new(SolveErrorKind::Copy, error.to_string())
        };
        let owner = match &copy.chown {
            None => None,
            Some(spec) => Some(owner(self.store, &tree, spec).map_err(|error| wrong(&error))?),
        };
        let chmod = match &copy.chmod {
            None => None,
            Some(text) => Some(Chmod::parse(text).map_err(|error| wrong(&error))?),
        };
        let options = Options {
            dest: &copy.dest,
            owner,
            chmod,
            parents: copy.parents,
            exclude,
            made: Time {
                secs: self.now(),
                nanos: 0,
            },
        };
        let inline: Vec<(&str, &[u8])> = copy
            .sources
            .iter()
            .filter_map(|source| match source {
                CopySource::Inline { name, data } => Some((name.as_str(), data.as_slice())),
                CopySource::Paths { .. } => None,
            })
            .collect();
        let trees: Vec<&Tree> = sources.trees.iter().map(|tree| &**tree).collect();
        let unpack =
            |one: &Selected, content: &Content| self.archive(copy.unpack, one, content, sources);
        let layer =
            copy::apply(&tree, &trees, selected, &inline, &options, &unpack).map_err(failed)?;
        let stored = match sources.files {
            Some(files) => self.store_layer(
                &layer,
                StoreContents::with_paths(self.store, files.as_ref()),
            ),
            None => self.store_layer(&layer, StoreContents::new(self.store)),
        };
        let stored = stored.map_err(SolveError::content)?;
        if let Some(files) = sources.files {
            // The key was made of what was hashed; what was stored must be that, or the cache would lie.
            let contents = contents_of(&trees, selected, exclude);
            files.unchanged(&contents).map_err(unreadable)?;
        }
        Ok(stored)
    }

    /// Writes a layer as a blob, unless the build is stopped meanwhile.
    fn store_layer(&self, layer: &Layer, inner: impl Contents) -> Result<Stored, ContentError> {
        let cancel = self.cancel;
        store_layer(self.store, layer, &StoppableContents { inner, cancel })
    }

    /// The entries of a source that ADD unpacks.
    fn archive(
        &self,
        unpack: Unpack,
        one: &Selected,
        content: &Content,
        sources: &Sources<'_>,
    ) -> Result<Option<Layer>, CopyError> {
        let wanted = match unpack {
            Unpack::Never => false,
            Unpack::Local => !one.remote,
            Unpack::Always => true,
        };
        if !wanted {
            return Ok(None);
        }
        let opened = match sources.files {
            Some(files) if is_path(content) => files.open(content),
            _ => StoreContents::new(self.store).open(content),
        };
        let opened = opened.map_err(|error| CopyError::content(&one.path, error))?;
        crate::archive::open(self.store, &one.path, &opened, content.size, self.cancel)
    }

    /// Files that are no layer as one, for a bind mount.
    pub(crate) fn files_as_chain(
        &self,
        tree: &Tree,
        paths: &dyn Contents,
    ) -> Result<Arc<Chain>, SolveError> {
        let layer = Layer::of_tree(tree);
        let stored = self
            .store_layer(&layer, StoreContents::with_paths(self.store, paths))
            .map_err(SolveError::content)?;
        Ok(Chain::scratch().push(crate::chain::ChainLayer {
            diff_id: stored.diff_id,
            created: None,
        }))
    }
}

/// What a COPY does with what it selects.
fn options_of(key: &mut KeyWriter, copy: &CopyOp, below: &Chain) {
    key.digest(below.id())
        .text(&copy.dest)
        .optional(copy.chown.as_deref())
        .optional(copy.chmod.as_deref());
    key.flag(copy.parents).flag(copy.keep_owner);
    key.list(copy.exclude.iter().map(String::as_str));
    key.number(match copy.unpack {
        Unpack::Never => 0,
        Unpack::Local => 1,
        Unpack::Always => 2,
    });
    key.number(copy.sources.len() as u64);
    for source in &copy.sources {
        match source {
            CopySource::Inline { name, data } => key.number(1).text(name).digest(&Digest::of(data)),
            CopySource::Paths { .. } => key.number(0),
        };
    }
}

fn select(
    copy: &CopyOp,
    sources: &Sources<'_>,
    exclude: &IgnorePatterns,
) -> Result<Vec<Selected>, SolveError> {
    let mut selected = Vec::new();
    for source in &copy.sources {
        if let CopySource::Paths {
            input,
            pattern,
            remote,
        } = source
        {
            let tree = sources
                .trees
                .get(*input)
                .ok_or_else(|| SolveError::internal("a source names an input that is not there"))?;
            let selection = Selection {
                tree: *input,
                pattern,
                remote: *remote,
            };
            let found = copy::select(tree, &selection, copy.parents, exclude)
                .map_err(|error| not_found(error, sources, pattern))?;
            selected.extend(found);
        }
    }
    Ok(selected)
}

/// A missing file of a context may be one that the ignore file hides.
fn not_found(error: CopyError, sources: &Sources<'_>, pattern: &str) -> SolveError {
    let missing = error.kind() == copy::CopyErrorKind::NotFound;
    let result = failed(error);
    let hidden = sources
        .ignore
        .is_some_and(|ignore| ignore.is_ignored(pattern.trim_matches('/').as_bytes()));
    if missing && hidden {
        return result.hint(format!(
            "{pattern} is excluded by the ignore file of the build context"
        ));
    }
    result
}

/// Whether it is in a directory of the user, not in the store.
fn is_path(content: &Content) -> bool {
    matches!(content.source, Source::Path(_))
}

fn contents_of<'t>(
    trees: &[&'t Tree],
    selected: &[Selected],
    exclude: &IgnorePatterns,
) -> Vec<&'t Content> {
    let mut contents = Vec::new();
    for one in selected {
        let tree = trees[one.tree];
        for (path, id) in tree.walk_at(one.id) {
            if let Kind::File(content) = &tree[id].kind
                && is_path(content)
                && (path.is_empty() || !exclude.is_ignored(&path))
            {
                contents.push(content);
            }
        }
    }
    contents
}

fn unreadable(error: std::io::Error) -> SolveError {
    SolveError::caused(
        SolveErrorKind::Source,
        "cannot read the build context",
        error,
    )
}

fn failed(error: CopyError) -> SolveError {
    let message = error.to_string();
    SolveError::caused(SolveErrorKind::Copy, message, error)
}
