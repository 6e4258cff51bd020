//! Build: a Dockerfile becomes an image in the store, a disk to boot, and whatever else was asked for.
//!
//! ```text
//!  find Dockerfile, context, ignore file ▸ parse ▸ (lower ▸ look images up)… ▸ solve ▸ disk ▸ outputs ▸ publish
//! ```

mod cache;
mod check;
mod contexts;
mod error;
mod executor;
mod inputs;
mod layouts;
pub(crate) mod lookup;
mod network;
mod outputs;
mod own_file;
mod platform;
mod request;
mod sources;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use firebuild_build::cancel::Cancel;
use firebuild_build::dump::graph_to_text;
use firebuild_build::event::{Event, Sink};
use firebuild_build::export::{InUse, is_full};
use firebuild_build::history;
use firebuild_build::lower::{self, Entitlements, Lowered, Outcome};
use firebuild_build::remote::Remote;
use firebuild_build::remote_cache::RemoteCache;
use firebuild_build::resolve::{MAX_ROUNDS, Resolved};
use firebuild_build::solve::{self, ContextSource, SolveErrorKind};
use firebuild_dockerfile::{Dockerfile, IgnorePatterns, Span};
use firebuild_oci::{Digest, Reference};
use firebuild_store::Store;

pub use check::{CheckReport, Target, check, outline, targets};
pub use error::{BuildError, BuildErrorKind, Place};
pub use firebuild_build::event::{Event as BuildEvent, Stream, Warned};
pub use firebuild_build::export::{Dest, Exported, Output, OutputError, OutputKind, write_file};
pub use firebuild_build::graph::VertexId;
pub use firebuild_build::lower::{Outline, OutlineArg, OutlineMount};
pub use firebuild_build::remote_cache::{CacheError, CacheFrom, CacheTo};
pub use firebuild_build::sandbox::child_main as sandbox_main;
pub use firebuild_build::solve::NoCache;
pub use inputs::take_stdin;
pub use network::{Network, NetworkError};
pub use outputs::OutputReport;
pub use request::{Isolation, Request, SourcePlace};

use crate::images::attached;
use crate::paths::Paths;
use contexts::Contexts;
use inputs::{agents, find, finder, secrets, time_of};
use sources::Sources;

/// What a build made.
#[derive(Debug)]
pub struct BuildReport {
    /// Digest of the manifest in the store.
    pub manifest: Digest,
    /// Digest of the image configuration.
    pub config: Digest,
    /// Names that stand for it now.
    pub tags: Vec<Reference>,
    /// The ext4 image, if it was made.
    pub disk: Option<PathBuf>,
    /// What was asked for with `--output`, in that order.
    pub outputs: Vec<OutputReport>,
    /// How many steps were computed and not found.
    pub executed: usize,
    /// The image that the last stage is made from, as written; nothing for `scratch` or another stage.
    pub base: Option<Reference>,
}

/// The text of the Dockerfile, for places in it.
struct Source {
    name: String,
    text: String,
}

impl Source {
    fn place(&self, span: Option<Span>) -> Option<Place> {
        span.map(|span| Place {
            file: self.name.clone(),
            text: self.text.clone(),
            span: span.range(),
        })
    }
}

/// Builds.
///
/// # Errors
/// When anything on the way fails; what was finished before stays in the cache.
pub fn build(
    paths: &Paths,
    request: &Request,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<BuildReport, BuildError> {
    let store = open(paths)?;
    let (secrets, agents) = (secrets(request), agents(request));
    let remote = Remote::new(&store, &secrets, &agents, sink, cancel);
    let prepared = prepare(&store, &remote, request, sink, cancel)?;
    let Prepared {
        source,
        lowered,
        contexts,
        base,
    } = prepared;
    let options = solve::Options {
        parallelism: parallelism(),
        no_cache: request.no_cache.clone(),
        contexts,
        secrets: secrets.clone(),
        ssh: request.ssh.clone(),
        epoch: lowered.epoch,
        caches: RemoteCache::open(&request.cache_from, sink, cancel),
    };
    let executor = executor::executor(&store, paths, &request.isolation);
    let solved = solve::solve(&lowered.graph, &store, &*executor, &options, sink, cancel);
    // VMs have no business in what follows.
    drop(executor);
    let solved = solved.map_err(|error| {
        let kind = match error.kind() {
            SolveErrorKind::Cancelled => BuildErrorKind::Cancelled,
            _ => BuildErrorKind::Step,
        };
        let (place, hints) = (source.place(error.span()), error.hints().to_vec());
        let full = is_full(&error).then(no_space_hint);
        let message = error.to_string();
        BuildError::caused(kind, message, error)
            .at(place)
            .hints(hints)
            .hints(full)
    })?;
    let chain = &solved.chain;
    let mut config = lowered.config.clone();
    let times: Vec<Option<i64>> = chain.layers().iter().map(|layer| layer.created).collect();
    history::stamp(&mut config, &times, lowered.epoch);
    config.rootfs.diff_ids = chain.layers().iter().map(|layer| layer.diff_id).collect();

    cache::inline(&mut config, request, &solved);

    let cached = || cache::export(&store, &options.caches, request, &solved, sink, cancel);
    let in_use = attached(paths);
    let outputs = outputs::Finish {
        store: &store,
        in_use: InUse::of(&in_use),
        request,
        sink,
        cancel,
    };
    let made = outputs
        .run(chain, &config, lowered.epoch, &cached)
        .map_err(|error| stopped_or(error, cancel))?;
    Ok(BuildReport {
        manifest: made.manifest,
        config: made.config,
        tags: made.names,
        disk: made.disk,
        outputs: made.outputs,
        executed: solved.executed,
        base,
    })
}

/// The text form of the graph that a build would compute.
///
/// # Errors
/// As [`build`], up to lowering.
pub fn print_graph(paths: &Paths, request: &Request) -> Result<String, BuildError> {
    let store = open(paths)?;
    let cancel = Cancel::new()
        .map_err(|error| BuildError::caused(BuildErrorKind::Source, "cannot begin", error))?;
    let (secrets, agents) = (secrets(request), agents(request));
    let remote = Remote::new(&store, &secrets, &agents, &|_| {}, &cancel);
    let prepared = prepare(&store, &remote, request, &|_| {}, &cancel)?;
    Ok(graph_to_text(&prepared.lowered.graph))
}

/// The image that the last stage of a Dockerfile is made from, as written there; nothing for `scratch` or another stage.
///
/// # Errors
/// When the Dockerfile cannot be read or is wrong.
pub fn base_of(
    paths: &Paths,
    request: &Request,
    cancel: &Cancel,
) -> Result<Option<Reference>, BuildError> {
    let sources = find(&open(paths)?, request, cancel)?;
    let (_, parsed) = parse(sources.name, &sources.dockerfile);
    Ok(base(&parsed?))
}

fn base(file: &Dockerfile) -> Option<Reference> {
    let base = file.stages.last()?.base.text.as_str();
    if base == "scratch" || file.stage_named(base).is_some() {
        return None;
    }
    base.parse().ok()
}

/// The text of a Dockerfile and what it says.
fn parse(name: String, bytes: &[u8]) -> (Source, Result<Dockerfile, BuildError>) {
    let (text, parsed) = Dockerfile::parse_bytes(bytes);
    let source = Source { name, text };
    let parsed = parsed.map_err(|errors| {
        let first = errors.first();
        let more = errors.all().len() - 1;
        let more = (more > 0).then(|| {
            format!(
                "the Dockerfile has {more} more error{}",
                if more == 1 { "" } else { "s" }
            )
        });
        BuildError::new(BuildErrorKind::Dockerfile, first.to_string())
            .at(source.place(Some(first.span())))
            .hints(more)
    });
    (source, parsed)
}

fn open(paths: &Paths) -> Result<Store, BuildError> {
    Store::open(paths.store()).map_err(|error| {
        BuildError::caused(BuildErrorKind::Output, "cannot open the image store", error)
    })
}

/// Everything that is known before anything is computed.
struct Prepared {
    source: Source,
    lowered: Box<Lowered>,
    contexts: BTreeMap<String, ContextSource>,
    base: Option<Reference>,
}

fn prepare(
    store: &Store,
    remote: &Remote<'_>,
    request: &Request,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<Prepared, BuildError> {
    let Sources {
        name,
        dockerfile,
        context,
        ignore,
        time,
        beside,
    } = finder(store, remote, request, cancel).find(request)?;
    let (source, parsed) = parse(name, &dockerfile);
    let file = parsed?;
    let mut contexts = Contexts {
        store,
        remote,
        cancel,
        files: BTreeMap::from([(String::new(), context)]),
        named: BTreeMap::new(),
    };
    for (name, value) in &request.contexts {
        contexts.add(name, value)?;
    }
    let Contexts {
        files: contexts,
        named,
        ..
    } = contexts;
    let mut options = lower::Options {
        build_args: request.build_args.clone(),
        target: request.target.clone(),
        platform: Some(request.platform.clone()),
        labels: request.labels.clone(),
        contexts: named,
        ignore: ignore.and_then(|text| IgnorePatterns::parse(text.as_bytes()).ok()),
        beside,
        all_stages: request.only_check && request.all_stages && request.target.is_none(),
        executable: (!request.only_check).then(platform::executable),
        network: request.network.mode,
        allow: if request.only_check {
            Entitlements::ALL
        } else {
            request.network.allow
        },
        extra_hosts: request.network.extra_hosts.clone(),
        before: request.pre_build_commands.clone(),
        after: request.post_build_commands.clone(),
        ..lower::Options::default()
    };
    let mut resolved = Resolved::default();
    for _ in 0..MAX_ROUNDS {
        let outcome = lower::lower(&file, &resolved, &options).map_err(|error| {
            check::report_before(sink, &source, &file, &error);
            let (place, hint) = (source.place(error.span()), error.hint().map(str::to_owned));
            let message = error.to_string();
            BuildError::caused(BuildErrorKind::Dockerfile, message, error)
                .at(place)
                .hints(hint)
        })?;
        match outcome {
            Outcome::Lowered(lowered) => {
                check::report(sink, &source, &file, &lowered.warnings);
                let unused = lowered.unused_args.iter();
                for name in unused.filter(|name| *name != cache::INLINE_ARGUMENT) {
                    sink(Event::Notice {
                        message: format!(
                            "build argument {name} is declared nowhere and has no effect"
                        ),
                    });
                }
                return Ok(Prepared {
                    base: base(&file),
                    source,
                    lowered,
                    contexts,
                });
            }
            Outcome::NeedsTime(request) => {
                let found = time_of(remote, &request, &contexts, time)?;
                options.times.insert(request.name, found);
            }
            Outcome::Needs(requests) => {
                for (image, span) in requests {
                    let found = if request.only_check {
                        lookup::config(store, &image)
                    } else {
                        lookup::image(store, &image, request.pull, sink, cancel)
                    };
                    let found = found.map_err(|error| {
                        let near = check::near_stage(&file, &source, span);
                        error.at(source.place(Some(span))).hints(near)
                    })?;
                    resolved.images.insert(image, found);
                }
            }
        }
    }
    Err(BuildError::new(
        BuildErrorKind::Dockerfile,
        format!(
            "ONBUILD triggers ask for more images after {MAX_ROUNDS} rounds; they may go in circles"
        ),
    ))
}

/// Steps mostly wait for what they started, so a few more than processors are worth it.
fn parallelism() -> NonZeroUsize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    NonZeroUsize::new(processors.max(2) * 2).unwrap_or(NonZeroUsize::MIN)
}

/// The error, unless the work was stopped: what fails then is no news.
fn stopped_or(error: BuildError, cancel: &Cancel) -> BuildError {
    if cancel.is_raised() { stopped() } else { error }
}

fn stopped() -> BuildError {
    BuildError::new(BuildErrorKind::Cancelled, "the build was stopped")
}

fn no_space_hint() -> String {
    "free some space, or point --home to a larger disk".to_owned()
}
