//! `firebuild baseos`: a base image from packages or from a Dockerfile.

use std::path::PathBuf;
use std::process::ExitCode;

use firebuild_engine::baseos::{self, Distribution};
use firebuild_engine::build;
use firebuild_engine::cancel::Cancel;
use firebuild_engine::event::Event;
use firebuild_engine::paths::Paths;

use super::{Done, rootfs};
use crate::args::{BaseosArgs, ProgressMode};
use crate::failure::Failure;
use crate::report::output;
use crate::report::table::size;

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &BaseosArgs, cancel: &Cancel) -> Done {
    match (&args.bootstrap, &args.dockerfile) {
        (Some(what), _) => bootstrap(paths, args, what, cancel),
        (None, Some(file)) => from_dockerfile(paths, args, file, cancel),
        (None, None) => Err(Failure::usage(
            "neither --bootstrap nor --dockerfile was given",
        )),
    }
}

fn bootstrap(paths: &Paths, args: &BaseosArgs, what: &str, cancel: &Cancel) -> Done {
    let distribution = Distribution::parse(what)?;
    let request = baseos::Request {
        distribution,
        tag: args.tag.as_deref().map(rootfs::parse_tag).transpose()?,
        mirror: args.mirror.clone(),
        full: args.full,
        include: args.include.clone(),
    };
    let quiet = args.progress == ProgressMode::Quiet;
    let chatty = matches!(args.progress, ProgressMode::Plain);
    let mut events = |event| match event {
        Event::Stage(text) if !quiet => output::note(&format!("{text} …")),
        Event::Output(text) if chatty => output::note(&text),
        Event::Warning(text) => output::note(&format!("warning: {text}")),
        _ => {}
    };
    let created = baseos::create(paths, &request, cancel, &mut events)?;
    output::line(&format!(
        "{} {} {}",
        created.reference.familiar(),
        created.manifest,
        size(created.size)
    ));
    Ok(ExitCode::SUCCESS)
}

/// A base is a build whose name is what it stands for: the tag, or what it was made FROM.
fn from_dockerfile(paths: &Paths, args: &BaseosArgs, file: &str, cancel: &Cancel) -> Done {
    let mut request = build::Request::new(PathBuf::new());
    request.context = None;
    request.dockerfile = Some(PathBuf::from(file));
    let tag = match &args.tag {
        Some(tag) => rootfs::parse_tag(tag)?,
        None => {
            let base = build::base_of(&request).map_err(rootfs::failure)?;
            base.ok_or_else(|| {
                Failure::usage(format!("{file} begins from scratch and says no name"))
                    .hint("give the base a name with --tag")
            })?
        }
    };
    request.tags = vec![tag];
    request.disk = true;
    request.min_size = args
        .filesystem_size_mbs
        .and_then(|mib| mib.checked_mul(1 << 20));
    let report = rootfs::execute(paths, &request, args.progress, cancel)?;
    rootfs::finish(&report, args.progress, false);
    Ok(ExitCode::SUCCESS)
}
