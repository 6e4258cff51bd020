//! Solving: from a graph to layers, with as little work as possible.
//!
//! ```text
//!  for each needed vertex, as soon as its inputs are there (schedule):
//!    key ◀ operation + content of the inputs
//!    record of the key in the store, and its layer still there?  ──▶ CACHED
//!    lock the key (another process may be computing it), look again
//!    execute / copy ──▶ layer blob ──▶ record of the key
//! ```
//!
//! - A key names the *content* that a step is given (chain IDs, digests of the copied files), so a hit is always right, and
//!   a step that was executed again and gave the same files does not disturb the steps after it.
//! - A build that is killed loses nothing that was finished: each record is written as soon as its layer is.
//! - Equal steps run once: within a build because equal keys take the same lock, between processes for the same reason.

mod ahead;
mod clip;
mod copy;
mod exec;
mod mkdir;
mod schedule;
mod source;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use firebuild_dockerfile::IgnorePatterns;
use firebuild_oci::Digest;
use firebuild_rootfs::tree::Tree;
use firebuild_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::chain::{Chain, ChainLayer};
use crate::content::Stored;
use crate::context::Files;
use crate::event::{Event, Sink};
use crate::exec::Executor;
use crate::graph::{GitOp, Graph, HttpOp, Op, Vertex, VertexId};
use crate::key::CacheKey;
use crate::remote::{Remote, RemoteError, RemoteErrorKind};
use crate::remote_cache::{RemoteCache, StepRecord};
use crate::transfer::TransferErrorKind;

use ahead::Ahead;
pub use error::{SolveError, SolveErrorKind};

mod error;

/// Characters of a step's name that a record keeps.
const MAX_LABEL: usize = 200;

/// What a build is solved with.
#[derive(Debug)]
pub struct Options {
    /// How many vertices are computed at the same time.
    pub parallelism: NonZeroUsize,
    /// What the cache may not answer.
    pub no_cache: NoCache,
    /// Contexts by name; the main one has the empty name.
    pub contexts: BTreeMap<String, ContextSource>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Sockets of SSH agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Time that new layers and made directories get instead of now, in seconds since the epoch.
    pub epoch: Option<i64>,
    /// Step results from elsewhere.
    pub caches: RemoteCache,
}

/// Where the files of a context are.
#[derive(Clone, Debug)]
pub enum ContextSource {
    /// In a directory.
    Dir(ContextDir),
    /// In the store, fetched or unpacked before.
    Tree(Arc<StoredTree>),
    /// In a repository, which is fetched when the context is used.
    Git(Box<GitOp>),
    /// At an address: one file, fetched when the context is used.
    Http(HttpOp),
}

/// Files that lie in the store and are no layer.
#[derive(Debug)]
pub struct StoredTree {
    /// What is there, after the ignore rules.
    pub tree: Arc<Tree>,
    /// What names the content, times aside.
    pub id: Digest,
    /// The patterns that were applied.
    pub ignore: IgnorePatterns,
}

/// A directory that the user gave.
#[derive(Clone, Debug)]
pub struct ContextDir {
    /// Where it is.
    pub path: PathBuf,
    /// Text of its ignore file, if there is one, and that file's name for errors.
    pub ignore: Option<(String, String)>,
}

/// A secret that the user gave.
#[derive(Clone)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Secret(…)")
    }
}

/// `--no-cache`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NoCache {
    /// The cache answers.
    #[default]
    Off,
    /// Everything is computed again.
    All,
    /// The steps of these stages are computed again.
    Stages(Vec<String>),
}

impl NoCache {
    fn applies(&self, vertex: &Vertex) -> bool {
        match self {
            Self::Off => false,
            Self::All => true,
            Self::Stages(stages) => stages
                .iter()
                .any(|stage| stage.eq_ignore_ascii_case(&vertex.stage)),
        }
    }
}

/// What was computed.
#[derive(Debug)]
pub struct Solved {
    /// The target's file system.
    pub chain: Arc<Chain>,
    /// The chains of all vertices that have one, for history times.
    pub chains: BTreeMap<VertexId, Arc<Chain>>,
    /// How many vertices were computed and not found.
    pub executed: usize,
    /// The results of all steps by key, for caches elsewhere.
    pub records: Vec<StepRecord>,
}

/// What a vertex gives.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A file system made of layers.
    Chain(Arc<Chain>),
    /// Files of a directory of the user, which are no layer.
    Files(Arc<Files>),
    /// Files that lie in the store and are no layer: something fetched, a context that was an archive.
    Tree(Arc<StoredTree>),
}

/// The result of a key, as it is kept in the store.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Record {
    /// Digest of the layer.
    layer: Digest,
    /// Seconds since the epoch when it was made.
    created: i64,
    /// The step, for people who ask what the store holds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    /// Another key of the same result, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    also: String,
}

/// Everything that the parts of the solver share.
pub(crate) struct Solver<'a> {
    pub(crate) store: &'a Store,
    pub(crate) executor: &'a dyn Executor,
    pub(crate) options: &'a Options,
    pub(crate) sink: Sink<'a>,
    pub(crate) cancel: &'a Cancel,
    pub(crate) remote: Remote<'a>,
    executed: std::sync::atomic::AtomicUsize,
    results: Mutex<BTreeMap<CacheKey, StepRecord>>,
    ahead: Ahead,
}

/// Computes the target of a graph.
///
/// # Errors
/// The first failure; everything that was finished before stays in the cache.
pub fn solve(
    graph: &Graph,
    store: &Store,
    executor: &dyn Executor,
    options: &Options,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<Solved, SolveError> {
    let (ahead, expected) = Ahead::of(graph);
    let solver = Solver {
        store,
        executor,
        options,
        sink,
        cancel,
        remote: Remote::new(store, &options.secrets, &options.ssh, sink, cancel),
        executed: 0.into(),
        results: Mutex::default(),
        ahead,
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if expected.recv().is_ok() {
                executor.expect();
            }
        });
        // The solver ends with it, and with the solver the other thread.
        solver.solve(graph)
    })
}

impl Solver<'_> {
    fn solve(self, graph: &Graph) -> Result<Solved, SolveError> {
        for id in graph.needed() {
            (self.sink)(Event::Planned {
                id,
                name: graph.vertex(id).name.clone(),
                stage: graph.vertex(id).stage.clone(),
                inputs: graph.vertex(id).inputs.clone(),
            });
        }
        loop {
            match attempt(graph, &self) {
                // A cache did not have what it had promised, and is not asked again: what hung on it is computed.
                Err(error) if error.kind() == SolveErrorKind::CacheLost => {
                    let results = self.results.lock();
                    results.unwrap_or_else(PoisonError::into_inner).clear();
                }
                Err(error) => return Err(error),
                Ok((chain, chains)) => {
                    let results = self.results.into_inner();
                    return Ok(Solved {
                        chain,
                        chains,
                        executed: self.executed.into_inner(),
                        records: results
                            .unwrap_or_else(PoisonError::into_inner)
                            .into_values()
                            .collect(),
                    });
                }
            }
        }
    }
}

/// The chain of the target, and those of all vertices that have one.
type Chains = (Arc<Chain>, BTreeMap<VertexId, Arc<Chain>>);

fn attempt(graph: &Graph, solver: &Solver<'_>) -> Result<Chains, SolveError> {
    let needed = graph.needed();
    let inputs: Vec<Vec<usize>> = graph
        .vertices
        .iter()
        .map(|vertex| vertex.inputs.iter().map(|input| input.0 as usize).collect())
        .collect();
    let numbers: Vec<usize> = needed.iter().map(|id| id.0 as usize).collect();
    let work = |number: usize, given: Vec<Value>| {
        let id = VertexId(u32::try_from(number).expect("vertex numbers are u32"));
        solver.vertex(id, graph.vertex(id), &given)
    };
    let mut results = schedule::run(&inputs, &numbers, solver.options.parallelism, work)
        .map_err(|(_, error)| error)?;
    let mut chains = BTreeMap::new();
    for id in needed {
        if let Some(Value::Chain(chain)) = results[id.0 as usize].take() {
            chains.insert(id, chain);
        }
    }
    let chain = chains
        .get(&graph.target)
        .cloned()
        .ok_or_else(|| SolveError::internal("the target is no file system"))?;
    solver.bring([&chain])?;
    Ok((chain, chains))
}

impl Solver<'_> {
    fn vertex(&self, id: VertexId, vertex: &Vertex, given: &[Value]) -> Result<Value, SolveError> {
        if self.cancel.is_raised() {
            return Err(SolveError::cancelled());
        }
        let begin = Instant::now();
        (self.sink)(Event::Started { id });
        let result = self.compute(id, vertex, given);
        match result {
            Ok((value, cached)) => {
                (self.sink)(Event::Finished {
                    id,
                    cached,
                    elapsed: begin.elapsed(),
                });
                Ok(value)
            }
            Err(error) => {
                // Everything else may stop: its result is of no use any more.
                if error.kind() == SolveErrorKind::CacheLost {
                    return Err(error);
                }
                if error.kind() != SolveErrorKind::Cancelled {
                    (self.sink)(Event::Failed {
                        id,
                        message: error.to_string(),
                    });
                }
                self.cancel.raise();
                Err(error.at(vertex))
            }
        }
    }

    fn compute(
        &self,
        id: VertexId,
        vertex: &Vertex,
        given: &[Value],
    ) -> Result<(Value, bool), SolveError> {
        match &vertex.op {
            Op::Scratch => Ok((Value::Chain(Chain::scratch()), true)),
            Op::Image(image) => Ok((Value::Chain(source::image(image)), true)),
            Op::Context(context) => self
                .context(context)
                .map_err(|error| self.stopped_or(error)),
            Op::Http(http) => Ok(source::fetched(self.remote.http(http)?)),
            Op::Git(git) => Ok(source::fetched(self.remote.git(git)?)),
            Op::Merge => {
                let (below, above) = (chain_of(given, 0)?, chain_of(given, 1)?);
                let merged = above
                    .layers()
                    .into_iter()
                    .fold(below, |chain, layer| chain.push(layer));
                Ok((Value::Chain(merged), true))
            }
            Op::Exec(exec) => self.exec(id, vertex, exec, given),
            Op::Copy(copy) => self
                .copy(id, vertex, copy, given)
                .map_err(|error| self.stopped_or(error)),
            Op::Mkdir(mkdir) => self.mkdir(id, vertex, mkdir, given),
        }
    }

    /// An error of reading and writing files, unless it comes of the stop.
    fn stopped_or(&self, error: SolveError) -> SolveError {
        if self.cancel.is_raised() && error.kind() != SolveErrorKind::CacheLost {
            return SolveError::cancelled();
        }
        error
    }

    /// The result of a key if it is there, else what `make` makes, which is then kept.
    pub(crate) fn cached(
        &self,
        id: VertexId,
        vertex: &Vertex,
        key: &CacheKey,
        below: &Arc<Chain>,
        make: impl FnOnce() -> Result<Stored, SolveError>,
    ) -> Result<(Value, bool), SolveError> {
        let fresh = self.options.no_cache.applies(vertex);
        if !fresh && let Some(chain) = self.find(key, below) {
            return Ok((Value::Chain(chain), true));
        }
        if !fresh && let Some(chain) = self.find_elsewhere(key, below)? {
            return Ok((Value::Chain(chain), true));
        }
        let name = format!("key-{key}");
        let Some(lock) = self
            .store
            .lock(&name, &|| self.cancel.is_raised())
            .map_err(SolveError::store)?
        else {
            return Err(SolveError::cancelled());
        };
        // Whoever held the lock may have computed it.
        if !fresh && let Some(chain) = self.find(key, below) {
            return Ok((Value::Chain(chain), true));
        }
        self.executed
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.ahead.computed(id);
        self.bring([below])?;
        let stored = make()?;
        let record = Record {
            layer: stored.diff_id,
            created: self.now(),
            name: label(vertex),
            also: String::new(),
        };
        self.store.cache_put(&key.0, &record)?;
        self.remember(key, &record);
        drop(lock);
        let chain = below.push(ChainLayer {
            diff_id: record.layer,
            created: Some(record.created),
        });
        chain.remember(&stored.layer);
        Ok((Value::Chain(chain), false))
    }

    /// Keeps a second key for a result.
    pub(crate) fn record(
        &self,
        vertex: &Vertex,
        key: &CacheKey,
        first: &CacheKey,
        chain: &Chain,
    ) -> Result<(), SolveError> {
        if let Some(ChainLayer {
            diff_id,
            created: Some(created),
        }) = chain.top()
        {
            let record = Record {
                layer: *diff_id,
                created: *created,
                name: label(vertex),
                also: first.to_string(),
            };
            self.remember(key, &record);
            // Of a layer that was only promised there is no record yet.
            if self.store.has_blob(diff_id) {
                self.store.cache_put(&key.0, &record)?;
            }
        }
        Ok(())
    }

    /// Notes a result for caches elsewhere.
    fn remember(&self, key: &CacheKey, record: &Record) {
        let record = StepRecord {
            key: *key,
            layer: record.layer,
            created: record.created,
            name: record.name.clone(),
            also: Digest::from_hex(&record.also)
                .ok()
                .map(|digest| CacheKey(*digest.as_bytes())),
        };
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(also) = record.also {
            let other = StepRecord {
                key: also,
                also: None,
                ..record.clone()
            };
            results.insert(also, other);
        }
        results.insert(*key, record);
    }

    pub(crate) fn find(&self, key: &CacheKey, below: &Arc<Chain>) -> Option<Arc<Chain>> {
        let record: Record = self.store.cache_get(&key.0)?;
        if !self.store.has_blob(&record.layer) {
            return None;
        }
        self.remember(key, &record);
        Some(below.push(ChainLayer {
            diff_id: record.layer,
            created: Some(record.created),
        }))
    }

    /// The result of a key as a cache elsewhere has it. Its layer stays there until somebody needs the files.
    pub(crate) fn find_elsewhere(
        &self,
        key: &CacheKey,
        below: &Arc<Chain>,
    ) -> Result<Option<Arc<Chain>>, SolveError> {
        let Some(found) = self.options.caches.find(self.store, key) else {
            return Ok(None);
        };
        let record = record_of(&found);
        if self.store.has_blob(&record.layer) {
            self.store.cache_put(&key.0, &record)?;
        }
        self.remember(key, &record);
        Ok(Some(below.push(ChainLayer {
            diff_id: record.layer,
            created: Some(record.created),
        })))
    }

    /// Makes sure that the layers of chains are in the store, and keeps the records that waited for them.
    pub(crate) fn bring<'c>(
        &self,
        chains: impl IntoIterator<Item = &'c Arc<Chain>>,
    ) -> Result<(), SolveError> {
        if self.options.caches.is_empty() {
            return Ok(());
        }
        let layers: Vec<Digest> = chains
            .into_iter()
            .flat_map(|chain| chain.layers())
            .map(|layer| layer.diff_id)
            .collect();
        let brought = self
            .options
            .caches
            .bring(self.store, &layers, self.sink, self.cancel);
        let records = brought.map_err(|error| match error.kind() {
            TransferErrorKind::Cancelled => SolveError::cancelled(),
            TransferErrorKind::NoSpace => SolveError::caused(
                SolveErrorKind::NoSpace,
                "cannot fetch a cached layer",
                error,
            ),
            _ => SolveError::caused(
                SolveErrorKind::CacheLost,
                "cannot fetch a cached layer",
                error,
            ),
        })?;
        for found in &records {
            keep(self.store, found)?;
        }
        Ok(())
    }

    /// The time that goes into records and made directories.
    pub(crate) fn now(&self) -> i64 {
        self.options.epoch.unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
        })
    }
}

/// Keeps a record that came from elsewhere; its layer is in the store.
pub(crate) fn keep(store: &Store, found: &StepRecord) -> Result<(), StoreError> {
    store.cache_put(&found.key.0, &record_of(found))
}

fn record_of(found: &StepRecord) -> Record {
    Record {
        layer: found.layer,
        created: found.created,
        name: found.name.clone(),
        also: found.also.map(|key| key.to_string()).unwrap_or_default(),
    }
}

/// A step's name as it goes into records.
fn label(vertex: &Vertex) -> String {
    vertex.name.chars().take(MAX_LABEL).collect()
}

/// The input at a position as a file system.
pub(crate) fn chain_of(given: &[Value], position: usize) -> Result<Arc<Chain>, SolveError> {
    match given.get(position) {
        Some(Value::Chain(chain)) => Ok(Arc::clone(chain)),
        _ => Err(SolveError::internal("an input is no file system")),
    }
}

impl From<StoreError> for SolveError {
    fn from(error: StoreError) -> Self {
        Self::store(error)
    }
}

impl From<RemoteError> for SolveError {
    fn from(error: RemoteError) -> Self {
        if error.kind() == RemoteErrorKind::Cancelled {
            return Self::cancelled();
        }
        let (message, hints) = (error.to_string(), error.hints().to_vec());
        let error = Self::caused(SolveErrorKind::Source, message, error);
        hints.into_iter().fold(error, Self::hint)
    }
}
