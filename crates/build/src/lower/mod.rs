//! Lowering: from a Dockerfile and resolved images to a [`Graph`] and an image configuration. Pure.
//!
//! ```text
//!  Dockerfile ─ plan: FROM lines, names, platforms ─▶ [StagePlan]
//!                 reach: from the target backwards ─▶ stages that count, triggers, images that are still needed
//!                 stage: instruction by instruction ─▶ vertices + ImageConfig with history
//! ```
//!
//! - Only stages that the target needs are lowered; the others may refer to images that do not exist.
//! - What the text leaves open (variables, `--from`, ONBUILD) is settled here; a [`Graph`] has no names but contexts.
//! - When images are missing the answer is [`Outcome::Needs`]: look them up, put them into the [`Resolved`], lower again.
//!
//! The rules and the texts of history are those of BuildKit (`frontend/dockerfile/dockerfile2llb`).

mod config;
mod copy;
mod env;
mod error;
mod expose;
mod mounts;
mod outline;
mod plan;
mod reach;
mod run;
mod stage;
mod text;
mod time;
mod warn;

use std::collections::{BTreeMap, BTreeSet};

use firebuild_dockerfile::{CheckOptions, Dockerfile, IgnorePatterns, Span, Warning, lint};
use firebuild_oci::{ImageConfig, Platform};

use crate::graph::{Graph, NetworkMode, Op, Vertex, VertexId};
use crate::history::rfc3339;
use crate::resolve::{ImageRequest, Resolved};

pub(crate) use stage::join_dir;
pub use time::{TimeOf, TimeRequest};

pub use error::{LowerError, LowerErrorKind};
pub use outline::{Outline, OutlineArg, OutlineMount};

/// `PATH` of a stage whose base sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Host name of a step unless `BUILDKIT_SANDBOX_HOSTNAME` says otherwise.
const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// What the caller of a build chooses.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--build-arg`, by name.
    pub build_args: BTreeMap<String, String>,
    /// `--target`; the last stage when there is none.
    pub target: Option<String>,
    /// `--platform`; without one the build platform is wanted, and an image of another one keeps its own.
    pub platform: Option<Platform>,
    /// What this machine is.
    pub build_platform: Platform,
    /// `--label`, set on the target last.
    pub labels: BTreeMap<String, String>,
    /// `--build-context`, by name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// The ignore file of the main context, for the check `CopyIgnoredFile`.
    pub ignore: Option<IgnorePatterns>,
    /// Lower every stage, needed or not: how a file is checked without a target.
    pub all_stages: bool,
    /// Platforms whose programs RUN can execute here; without a list none is refused.
    pub executable: Option<Vec<Platform>>,
    /// Network of steps that ask for none in particular.
    pub network: NetworkMode,
    /// What steps may ask for.
    pub allow: Entitlements,
    /// Further lines of every step's `/etc/hosts`: address and name.
    pub extra_hosts: Vec<(String, String)>,
    /// Shell commands that run as root in `/` before the first instruction of the target stage.
    pub before: Vec<String>,
    /// The same behind its last instruction.
    pub after: Vec<String>,
    /// The address, with a slash at its end, that sources of the main context lie below: the Dockerfile was fetched
    /// from there, and they are fetched one by one.
    pub beside: Option<String>,
    /// Answers to [`Outcome::NeedsTime`], by name; nothing for what has no time.
    pub times: BTreeMap<String, Option<i64>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            build_args: BTreeMap::new(),
            target: None,
            platform: None,
            build_platform: Platform::host(),
            labels: BTreeMap::new(),
            contexts: BTreeMap::new(),
            ignore: None,
            all_stages: false,
            executable: None,
            network: NetworkMode::default(),
            allow: Entitlements::default(),
            extra_hosts: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            beside: None,
            times: BTreeMap::new(),
        }
    }
}

/// What only the caller can give to a Dockerfile (`--allow`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `network.host`: RUN may ask for the host's network.
    pub network_host: bool,
    /// `security.insecure`: RUN may ask for all that the builder may do.
    pub security_insecure: bool,
}

impl Entitlements {
    /// Everything.
    pub const ALL: Self = Self {
        network_host: true,
        security_insecure: true,
    };
}

/// What a `--build-context` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// Files: a [`ContextOp`](crate::graph::ContextOp) of that name.
    Files,
    /// An image; the text goes into [`ImageRequest::reference`] as it is.
    Image(String),
}

/// The answer of [`lower`].
#[derive(Clone, Debug)]
pub enum Outcome {
    /// These images must be looked up first; each with the place in the Dockerfile that wants it.
    Needs(Vec<(ImageRequest, Span)>),
    /// This time must be looked up first and put into [`Options::times`].
    NeedsTime(TimeRequest),
    /// All is known.
    Lowered(Box<Lowered>),
}

/// A lowered target.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// What must be computed.
    pub graph: Graph,
    /// The image configuration. `rootfs` is empty: the layers are not known yet. History entries of this build have a
    /// time only when there is an epoch; [`history::stamp`](crate::history::stamp) sets the others.
    pub config: ImageConfig,
    /// The name of the target stage; empty when it has none.
    pub stage: String,
    /// `SOURCE_DATE_EPOCH` in seconds, if the build has one.
    pub epoch: Option<i64>,
    /// What the checks found, in order of position.
    pub warnings: Vec<Warning>,
    /// Build arguments that nothing declared.
    pub unused_args: Vec<String>,
    /// What a caller may give to this build.
    pub outline: Outline,
}

/// Lowers the target of a Dockerfile.
///
/// # Errors
/// The first error of a stage that the target needs, or of the structure of all stages.
pub fn lower(
    file: &Dockerfile,
    resolved: &Resolved,
    options: &Options,
) -> Result<Outcome, LowerError> {
    let checks = check_options(file, options)?;
    if let Some(request) = plan::time_request(file, options)? {
        return Ok(Outcome::NeedsTime(request));
    }
    let plan = plan::Plan::new(file, options)?;
    let reach = reach::Reach::new(&plan, resolved)?;
    if !reach.missing.is_empty() {
        return Ok(Outcome::Needs(reach.missing));
    }
    let mut output = Output::new(plan.stages.len());
    let done = lower_stages(&plan, &reach, resolved, &checks, &mut output);
    let warnings = warn::sorted(std::mem::take(&mut output.warnings));
    let target = match done.and_then(|target| warn::fail(&checks, &warnings).map(|()| target)) {
        Ok(target) => target,
        Err(error) => return Err(error.with_warnings(warnings)),
    };
    let graph = output.vertices.finish(target.vertex);
    let lowered = Lowered {
        config: finish_config(target.config, &plan, options),
        graph,
        stage: plan.name(plan.target).to_owned(),
        epoch: plan.epoch,
        warnings,
        unused_args: unused_args(options, &plan, &output.declared),
        outline: output.outline,
    };
    Ok(Outcome::Lowered(Box::new(lowered)))
}

/// Lowers what is needed, in order, and gives the target.
fn lower_stages(
    plan: &plan::Plan<'_>,
    reach: &reach::Reach,
    resolved: &Resolved,
    checks: &CheckOptions,
    output: &mut Output,
) -> Result<stage::Done, LowerError> {
    output.warnings = lint(plan.file, checks);
    plan.warn(checks, &mut output.warnings);
    for index in 0..plan.stages.len() {
        if reach.is_needed(index) {
            plan.outline_from(index, &mut output.outline);
            let done = stage::lower_stage(plan, reach, resolved, checks, index, output)?;
            output.stages[index] = Some(done);
            output.forget(reach, index);
        }
    }
    let target = output.stages[plan.target].take();
    Ok(target.expect("the target is always needed"))
}

/// What the checks are asked for: the build argument replaces the directive.
fn check_options(file: &Dockerfile, options: &Options) -> Result<CheckOptions, LowerError> {
    let from_args = options.build_args.get("BUILDKIT_DOCKERFILE_CHECK");
    let directive = file.directives.check.as_ref();
    let (text, span) = match (from_args, directive) {
        (Some(text), _) => (text.as_str(), None),
        (None, Some(word)) => (word.text.as_str(), Some(word.span)),
        (None, None) => return Ok(CheckOptions::default()),
    };
    CheckOptions::parse(text).map_err(|error| {
        let cause = LowerError::new(
            LowerErrorKind::Check,
            "cannot read the options of the checks",
        );
        cause.at_maybe(span).caused_by(error)
    })
}

/// The parts of the configuration that are settled last.
fn finish_config(mut config: ImageConfig, plan: &plan::Plan<'_>, options: &Options) -> ImageConfig {
    for (name, value) in &options.labels {
        config.config.labels.insert(name.clone(), value.clone());
    }
    if let Some(wanted) = &options.platform {
        let same =
            config.platform.os == wanted.os && config.platform.architecture == wanted.architecture;
        let keep = std::mem::replace(&mut config.platform, wanted.clone());
        if same {
            // What was not asked for stays as the image says.
            let platform = &mut config.platform;
            platform.variant = platform.variant.take().or(keep.variant);
            platform.os_version = platform.os_version.take().or(keep.os_version);
            if platform.os_features.is_empty() {
                platform.os_features = keep.os_features;
            }
        }
    }
    config.platform = config.platform.normalised();
    config.created = plan.epoch.map(rfc3339);
    config.rootfs.diff_ids.clear();
    config
}

/// Names that mean something without a declaration.
fn is_special_arg(name: &str) -> bool {
    const PROXIES: [&str; 5] = [
        "http_proxy",
        "https_proxy",
        "ftp_proxy",
        "no_proxy",
        "all_proxy",
    ];
    name.starts_with("BUILDKIT_")
        || name == "SOURCE_DATE_EPOCH"
        || PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
}

fn unused_args(
    options: &Options,
    plan: &plan::Plan<'_>,
    declared: &BTreeSet<String>,
) -> Vec<String> {
    let names = options.build_args.keys();
    names
        .filter(|name| {
            !declared.contains(*name) && !plan.globals.contains(name) && !is_special_arg(name)
        })
        .cloned()
        .collect()
}

/// What lowering makes, stage by stage.
struct Output {
    vertices: Vertices,
    stages: Vec<Option<stage::Done>>,
    warnings: Vec<Warning>,
    /// Arguments that some lowered stage declares.
    declared: BTreeSet<String>,
    /// What a caller may give.
    outline: Outline,
    /// Bytes of environments, history and inline files so far.
    bytes: usize,
}

impl Output {
    fn new(stages: usize) -> Self {
        Self {
            vertices: Vertices::default(),
            stages: (0..stages).map(|_| None).collect(),
            warnings: Vec::new(),
            declared: BTreeSet::new(),
            outline: Outline::default(),
            bytes: 0,
        }
    }

    /// Forgets stages that no later one uses: of a long chain only the last is kept.
    fn forget(&mut self, reach: &reach::Reach, done: usize) {
        for index in 0..=done {
            if reach.last_user(index) <= done {
                self.stages[index] = None;
            }
        }
    }
}

/// The vertices so far.
#[derive(Default)]
struct Vertices {
    list: Vec<Vertex>,
    /// Those without inputs, which are shared.
    sources: Vec<VertexId>,
}

impl Vertices {
    fn push(&mut self, vertex: Vertex) -> VertexId {
        let id = VertexId(
            u32::try_from(self.list.len()).expect("a Dockerfile has fewer than 2^32 instructions"),
        );
        self.list.push(vertex);
        id
    }

    /// An operation without inputs: made once, however often it is used.
    fn source(&mut self, op: Op, name: impl FnOnce() -> String, span: Option<Span>) -> VertexId {
        let known = |id: &&VertexId| self.list[id.0 as usize].op == op;
        if let Some(id) = self.sources.iter().find(known) {
            return *id;
        }
        let id = self.push(Vertex {
            op,
            inputs: Vec::new(),
            name: name(),
            stage: String::new(),
            span,
        });
        self.sources.push(id);
        id
    }

    /// The graph of a target, with the vertices that it needs and no others.
    fn finish(self, target: VertexId) -> Graph {
        let whole = Graph {
            vertices: self.list,
            target,
        };
        let needed = whole.needed();
        let mut renamed = BTreeMap::new();
        for (position, id) in (0_u32..).zip(&needed) {
            renamed.insert(*id, VertexId(position));
        }
        let mut vertices = whole.vertices.into_iter().map(Some).collect::<Vec<_>>();
        let kept = needed
            .iter()
            .filter_map(|id| vertices[id.0 as usize].take());
        let vertices = kept
            .map(|mut vertex| {
                for input in &mut vertex.inputs {
                    *input = renamed[input];
                }
                vertex
            })
            .collect();
        Graph {
            vertices,
            target: renamed[&target],
        }
    }
}

#[cfg(test)]
mod tests;
