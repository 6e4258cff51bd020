//! `firebuild baseos`: a base image from packages or from a Dockerfile.

use std::path::PathBuf;
use std::process::ExitCode;

use firebuild_engine::baseos::{self, Distribution};
use firebuild_engine::build;
use firebuild_engine::cancel::Cancel;
use firebuild_engine::event::Event;
use firebuild_engine::paths::Paths;
use firebuild_engine::profile::Profile;

use super::{Done, publish, rootfs, source};
use crate::args::{BaseosArgs, ProgressMode};
use crate::failure::Failure;
use crate::flags::Roots;
use crate::report::output;
use crate::report::table::size;

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &BaseosArgs, profile: &Profile, cancel: &Cancel) -> Done {
    let roots = args.storage.roots(profile);
    match (&args.bootstrap, &args.dockerfile) {
        (Some(what), _) => bootstrap(paths, args, what, &roots, cancel),
        (None, Some(file)) => from_dockerfile(paths, args, file, &roots, cancel),
        (None, None) => Err(Failure::usage(
            "neither --bootstrap nor --dockerfile was given",
        )),
    }
}

fn bootstrap(paths: &Paths, args: &BaseosArgs, what: &str, roots: &Roots, cancel: &Cancel) -> Done {
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
    publish::base(paths, roots, &created.reference, min_size(args), cancel)?;
    output::line(&format!(
        "{} {} {}",
        created.reference.familiar(),
        created.manifest,
        size(created.size)
    ));
    Ok(ExitCode::SUCCESS)
}

/// A base is a build whose name is what it stands for: the tag, or what it was made FROM.
fn from_dockerfile(
    paths: &Paths,
    args: &BaseosArgs,
    file: &str,
    roots: &Roots,
    cancel: &Cancel,
) -> Done {
    let mut request = build::Request::new(PathBuf::new());
    request.context = None;
    request.dockerfile = Some(source::dockerfile(file)?);
    build::take_stdin(paths, &mut request, cancel).map_err(rootfs::failure)?;
    let tag = match &args.tag {
        Some(tag) => rootfs::parse_tag(tag)?,
        None => {
            let base = build::base_of(paths, &request, cancel).map_err(rootfs::failure)?;
            base.ok_or_else(|| {
                Failure::usage(format!("{file} begins from scratch and says no name"))
                    .hint("give the base a name with --tag")
            })?
        }
    };
    request.tags = vec![tag];
    request.disk = true;
    request.min_size = min_size(args);
    let report = rootfs::execute(paths, &request, roots, args.progress, None, cancel)?;
    for tag in &report.tags {
        publish::base(paths, roots, tag, request.min_size, cancel)?;
    }
    rootfs::finish(&report, args.progress, false);
    Ok(ExitCode::SUCCESS)
}

/// The least size of the ext4 image in bytes.
fn min_size(args: &BaseosArgs) -> Option<u64> {
    args.filesystem_size_mbs
        .and_then(|mib| mib.checked_mul(1 << 20))
}
