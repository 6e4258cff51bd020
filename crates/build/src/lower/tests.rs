//! From instructions to a graph, rule by rule.

use std::collections::BTreeMap;

use firebuild_dockerfile::Dockerfile;
use firebuild_oci::{Digest, ImageConfig, Platform, Reference};

use super::{Entitlements, LowerError, LowerErrorKind, Lowered, Options, Outcome, lower};
use crate::graph::{ExecOp, MkdirOp, NetworkMode, Op, SecurityMode};
use crate::resolve::{ImageRequest, Resolved, ResolvedImage};

mod arguments;
mod caller;
mod config;
mod messages;
mod stages;

/// Each image has one layer; `edit` changes its configuration.
fn build_with(
    text: &str,
    options: &Options,
    edit: impl Fn(&ImageRequest, &mut ImageConfig),
) -> Result<Lowered, LowerError> {
    let file = Dockerfile::parse(text).unwrap();
    let mut resolved = Resolved::default();
    loop {
        match lower(&file, &resolved, options)? {
            Outcome::Lowered(lowered) => return Ok(*lowered),
            Outcome::NeedsTime(request) => panic!("{request:?}"),
            Outcome::Needs(requests) => {
                for (request, _) in requests {
                    let mut config = ImageConfig::new(request.platform.parse().unwrap());
                    edit(&request, &mut config);
                    let manifest = Digest::of(request.reference.as_bytes());
                    let reference: Reference = request.reference.parse().unwrap();
                    let image = ResolvedImage {
                        reference: reference.with_digest(manifest),
                        manifest,
                        config,
                        layers: vec![manifest],
                    };
                    resolved.images.insert(request, image);
                }
            }
        }
    }
}

fn options(args: &[(&str, &str)]) -> Options {
    Options {
        build_args: args
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        build_platform: Platform::linux("amd64"),
        ..Options::default()
    }
}

fn build(text: &str) -> Lowered {
    build_with(text, &options(&[]), |_, _| {}).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn error(text: &str) -> LowerError {
    match build_with(text, &options(&[]), |_, _| {}) {
        Ok(_) => panic!("{text} is lowered"),
        Err(error) => error,
    }
}

fn execs(lowered: &Lowered) -> Vec<&ExecOp> {
    let ops = lowered.graph.vertices.iter().map(|vertex| &vertex.op);
    ops.filter_map(|op| match op {
        Op::Exec(exec) => Some(exec),
        _ => None,
    })
    .collect()
}

fn env<'a>(exec: &'a ExecOp, name: &str) -> Option<&'a str> {
    exec.env
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

fn history(lowered: &Lowered) -> Vec<&str> {
    lowered
        .config
        .history
        .iter()
        .map(|entry| entry.created_by.as_deref().unwrap_or(""))
        .collect()
}
