//! What a build is given beside its Dockerfile: standard input, credentials, agents, times of what is elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use firebuild_build::cancel::Cancel;
use firebuild_build::graph::Op;
use firebuild_build::lower::{TimeOf, TimeRequest};
use firebuild_build::remote::Remote;
use firebuild_build::solve::{ContextSource, Secret};
use firebuild_store::Store;

use super::sources::{Finder, Sources};
use super::{BuildError, Request, SourcePlace, open};
use crate::paths::Paths;

/// Reads what the request leaves on standard input, which can be read once only; the request can then be used as often as
/// is wanted. Without such a thing it does nothing.
///
/// # Errors
/// When it cannot be read, or is not what the request says it is.
pub fn take_stdin(paths: &Paths, request: &mut Request, cancel: &Cancel) -> Result<(), BuildError> {
    let is_stdin = |place: &Option<SourcePlace>| matches!(place, Some(SourcePlace::Stdin));
    if !is_stdin(&request.context) && !is_stdin(&request.dockerfile) {
        return Ok(());
    }
    let store = Arc::new(open(paths)?);
    let (secrets, agents) = (secrets(request), agents(request));
    let remote = Remote::new(&store, &secrets, &agents, &|_| {}, cancel);
    let (dockerfile, context) = finder(&store, &remote, request, cancel).stdin(request)?;
    if let Some(text) = dockerfile {
        request.dockerfile = Some(SourcePlace::Text(text));
    }
    request.context = match (context, request.context.take()) {
        (Some(files), _) => Some(SourcePlace::Stored {
            files,
            store: Arc::clone(&store),
        }),
        (None, Some(SourcePlace::Stdin)) => None,
        (None, other) => other,
    };
    Ok(())
}

/// Finds Dockerfile and context, where no work follows for which they are fetched again.
pub(super) fn find(
    store: &Store,
    request: &Request,
    cancel: &Cancel,
) -> Result<Sources, BuildError> {
    let (secrets, agents) = (secrets(request), agents(request));
    let remote = Remote::new(store, &secrets, &agents, &|_| {}, cancel);
    finder(store, &remote, request, cancel).find(request)
}

pub(super) fn finder<'a>(
    store: &'a Store,
    remote: &'a Remote<'a>,
    request: &Request,
    cancel: &'a Cancel,
) -> Finder<'a> {
    let keep = request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
    Finder {
        store,
        remote,
        cancel,
        keep_git_dir: keep.is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true")),
    }
}

/// The agents that contexts are fetched with.
pub(super) fn agents(request: &Request) -> BTreeMap<String, PathBuf> {
    let mut agents = request.ssh.clone();
    if let Some(agent) = &request.context_agent {
        agents
            .entry("default".to_owned())
            .or_insert_with(|| agent.clone());
    }
    agents
}

pub(super) fn secrets(request: &Request) -> BTreeMap<String, Secret> {
    let secrets = request.secrets.iter();
    secrets
        .map(|(id, data)| (id.clone(), Secret(data.clone())))
        .collect()
}

/// A time that `SOURCE_DATE_EPOCH` names. What has it is fetched for that.
pub(super) fn time_of(
    remote: &Remote<'_>,
    request: &TimeRequest,
    contexts: &BTreeMap<String, ContextSource>,
    main: Option<i64>,
) -> Result<Option<i64>, BuildError> {
    let fetched = match &request.of {
        TimeOf::Context(name) if name.is_empty() => return Ok(main),
        TimeOf::Context(name) => match contexts.get(name) {
            Some(ContextSource::Git(op)) => remote.git(op)?,
            Some(ContextSource::Http(op)) => remote.http(op)?,
            _ => return Ok(None),
        },
        TimeOf::Source(op) => match &**op {
            Op::Git(op) => remote.git(op)?,
            Op::Http(op) => remote.http(op)?,
            _ => return Ok(None),
        },
    };
    Ok(fetched.time)
}
