//! `firebuild rootfs`, alias `build`: a Dockerfile becomes an image and a bootable disk.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use firebuild_engine::build::{
    self, BuildReport, CacheFrom, CacheTo, NoCache, Output, OutputKind, Request,
};
use firebuild_engine::cancel::Cancel;
use firebuild_engine::paths::Paths;
use firebuild_engine::profile::Profile;
use firebuild_oci::{Platform, Reference};

use super::source::{self, Source};
use super::{Done, check, isolation, publish, results};
use crate::args::{ProgressMode, RootfsArgs};
use crate::failure::Failure;
use crate::flags::{Log, Roots};
use crate::report::diagnostic::Snippet;
use crate::report::{output, progress::Progress, timeline};
use crate::sizes;

/// Runs the command.
pub(crate) fn run(
    paths: &Paths,
    args: &RootfsArgs,
    profile: &Profile,
    log: &Log,
    cancel: &Cancel,
) -> Done {
    let roots = args.build_vm.storage.roots(profile);
    let source = source::find(args)?;
    let mut request = request(args, &source)?;
    build::take_stdin(paths, &mut request, cancel).map_err(failure)?;
    if let Some((call, format)) = check::wanted(args)? {
        return check::run(paths, &request, call, format, cancel);
    }
    request.isolation = isolation::of(args, &roots, log)?;
    log.mention(
        &args.docker.unmet(),
        "on the result: firebuild writes no attestations",
    );
    if args.docker_image_base.is_some() {
        log.mention(
            &["--docker-image-base"],
            "on the build: an image needs no other base",
        );
    }
    if args.print.is_some() {
        output::raw(
            build::print_graph(paths, &request)
                .map_err(failure)?
                .as_bytes(),
        );
        return Ok(ExitCode::SUCCESS);
    }
    let mode = if args.quiet {
        ProgressMode::Quiet
    } else {
        args.progress
    };
    let picture = args.timeline.as_deref();
    let report = execute(paths, &request, &roots, mode, picture, cancel)?;
    // Outputs add to the entry of a tag in a catalogue; only what leaves no image adds nothing there.
    if !report.tags.is_empty() {
        publish::application(paths, &roots, args, &request, report.base.as_ref(), cancel)?;
    }
    results::files(args, &report)?;
    // An archive on standard output stays an archive.
    if !request.outputs.iter().any(Output::is_stream) {
        finish(&report, mode, args.quiet);
    }
    Ok(ExitCode::SUCCESS)
}

/// The network of steps, and what they may ask for.
fn network(args: &RootfsArgs) -> Result<build::Network, build::NetworkError> {
    let mut network = build::Network::default();
    for value in &args.allow {
        network.allow(value)?;
    }
    for value in &args.add_host {
        network.add_host(value)?;
    }
    network.set_mode(&args.network)?;
    Ok(network)
}

/// Builds with progress.
pub(super) fn execute(
    paths: &Paths,
    request: &Request,
    roots: &Roots,
    mode: ProgressMode,
    picture: Option<&Path>,
    cancel: &Cancel,
) -> Result<BuildReport, Failure> {
    let progress = Progress::new(mode);
    let built = build::build(paths, request, &|event| progress.event(event), cancel);
    progress.finish();
    let drawn = picture.map(|file| {
        let title = title(request);
        timeline::write(file, &progress.record(), &title, built.is_err()).map_err(|error| {
            Failure::new(error).hint(format!("--timeline {} cannot be written", file.display()))
        })
    });
    let report = built.map_err(|error| {
        let missing = error.kind() == build::BuildErrorKind::Image;
        let base = missing
            .then(|| build::base_of(paths, request, cancel).ok().flatten())
            .flatten();
        let failure = failure(error);
        match base.and_then(|base| publish::hint(roots, &base)) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    drawn.transpose()?;
    Ok(report)
}

/// What a build is called in a picture of it.
fn title(request: &Request) -> String {
    let tag = request.tags.first().map(Reference::familiar);
    let file = request.dockerfile.as_ref().or(request.context.as_ref());
    tag.or_else(|| file.map(|file| file.to_string()))
        .unwrap_or_else(|| "build".to_owned())
}

/// Prints what came of it.
pub(super) fn finish(report: &BuildReport, mode: ProgressMode, quiet: bool) {
    if quiet {
        output::line(&results::image_id(report));
    } else if mode == ProgressMode::Json {
        let names: Vec<String> = report.tags.iter().map(Reference::familiar).collect();
        output::line(
            &serde_json::json!({
                "manifest": report.manifest.to_string(), "config": report.config.to_string(), "tags": names,
                "executed": report.executed, "disk": report.disk, "outputs": results::outputs(report),
            })
            .to_string(),
        );
    } else {
        for tag in &report.tags {
            output::line(&format!("{} {}", tag.familiar(), report.manifest));
        }
        if report.tags.is_empty() {
            output::line(&report.manifest.to_string());
        }
    }
}

/// A build error with its place and hints.
pub(super) fn failure(error: build::BuildError) -> Failure {
    let place = error.place().map(snippet);
    let hints = error.help().to_vec();
    let cancelled = error.kind() == build::BuildErrorKind::Cancelled;
    let failure = hints
        .into_iter()
        .fold(Failure::new(error), Failure::hint)
        .snippet(place);
    // As a shell says it of a program that Ctrl+C ended.
    if cancelled {
        failure.code(130)
    } else {
        failure
    }
}

pub(super) fn snippet(place: &build::Place) -> Snippet {
    Snippet {
        file: place.file.clone(),
        text: place.text.clone(),
        span: place.span.clone(),
    }
}

fn request(args: &RootfsArgs, source: &Source) -> Result<Request, Failure> {
    let mut request = Request::new(PathBuf::new());
    request.context.clone_from(&source.context);
    request.dockerfile.clone_from(&source.dockerfile);
    request.tags = args
        .tag
        .iter()
        .map(|tag| parse_tag(tag))
        .collect::<Result<_, _>>()?;
    request.build_args = build_args(&args.build_arg)?;
    request.target.clone_from(&args.target);
    request.outputs = results::requested(args, &request.tags)?;
    // The disk of the catalogue is what a build makes when nothing else was said, or when it was asked for.
    request.disk = !request.tags.is_empty()
        && (request.outputs.is_empty()
            || args.load
            || request
                .outputs
                .iter()
                .any(|output| output.kind == OutputKind::Ext4));
    request.min_size = match (&args.size, args.filesystem_size_mbs) {
        (Some(text), _) => Some(sizes::bytes(text, "--size")?),
        (None, Some(mib)) => Some(
            mib.checked_mul(1 << 20)
                .ok_or_else(|| Failure::usage("--filesystem-size-mbs is too large"))?,
        ),
        (None, None) => None,
    };
    request.contexts = pairs(&args.build_context, "--build-context")?;
    request.secrets = args
        .secret
        .iter()
        .map(|text| secret(text))
        .collect::<Result<_, _>>()?;
    request.ssh = args
        .ssh
        .iter()
        .map(|text| ssh(text))
        .collect::<Result<_, _>>()?;
    if source.is_over_ssh() {
        request.context_agent = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
    }
    request.no_cache = no_cache(args);
    request.cache_from = args
        .cache_from
        .iter()
        .map(|text| CacheFrom::parse(text))
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::new(error).code(2))?;
    request.cache_to = args
        .cache_to
        .iter()
        .map(|text| CacheTo::parse(text))
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::new(error).code(2))?;
    request.pull = args.pull;
    request.sync = args.sync;
    if let Some(platform) = &args.platform {
        request.platform = platform.parse::<Platform>()?;
    }
    request.labels = pairs(&args.label, "--label")?;
    request.network = network(args).map_err(|error| Failure::usage(error.to_string()))?;
    request
        .pre_build_commands
        .clone_from(&args.pre_build_command);
    request
        .post_build_commands
        .clone_from(&args.post_build_command);
    let only_tells = args.print.is_some() || args.check || args.call.is_some();
    if request.tags.is_empty() && request.outputs.is_empty() && !only_tells {
        output::note("note: without --tag or --output the result only stays in the cache");
    }
    Ok(request)
}

/// `--no-cache`, `--no-cache=STAGES` and `--no-cache-filter`.
fn no_cache(args: &RootfsArgs) -> NoCache {
    let mut stages = args.no_cache_filter.clone();
    match args.no_cache.as_deref() {
        Some("" | "true") => return NoCache::All,
        None | Some("false") => {}
        Some(more) => stages.extend(more.split(',').map(str::to_owned)),
    }
    if stages.is_empty() {
        NoCache::Off
    } else {
        NoCache::Stages(stages)
    }
}

/// A `--tag`.
pub(super) fn parse_tag(text: &str) -> Result<Reference, Failure> {
    let reference: Reference = text.parse().map_err(|error| {
        Failure::new(error)
            .hint("a tag looks like org/name:version, in lower case")
            .code(2)
    })?;
    if reference.digest().is_some() {
        return Err(Failure::usage(format!(
            "--tag {text} has a digest; a digest is the result of a build"
        )));
    }
    Ok(reference)
}

/// `NAME=VALUE`, or `NAME` with the value of the environment; a name without a value there is left out, as Docker does.
fn build_args(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut args = BTreeMap::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if name.is_empty() {
            return Err(Failure::usage(format!("--build-arg {text:?} has no name")));
        }
        if let Some(value) = value {
            args.insert(name.to_owned(), value);
        }
    }
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert(epoch);
    }
    Ok(args)
}

fn pairs(texts: &[String], flag: &str) -> Result<BTreeMap<String, String>, Failure> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Failure::usage(format!("{flag} {text:?} is not NAME=VALUE"))),
        })
        .collect()
}

/// `id=NAME[,src=FILE|,env=VARIABLE]`; without a source it is the variable of that name if there is one, else the file.
/// With `type=env` the source is a variable, as in buildx.
fn secret(text: &str) -> Result<(String, Vec<u8>), Failure> {
    let (mut id, mut file, mut variable) = (None, None, None);
    let mut is_variable = false;
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => file = Some(value.to_owned()),
            Some(("env", value)) => variable = Some(value.to_owned()),
            Some(("type", kind @ ("file" | "env"))) => is_variable = kind == "env",
            _ => {
                return Err(Failure::usage(format!(
                    "--secret {text:?}: {field:?} is not understood"
                )));
            }
        }
    }
    let id = id
        .or_else(|| file.clone())
        .ok_or_else(|| Failure::usage(format!("--secret {text:?} has no id")))?;
    if is_variable {
        variable = variable.or(file.take()).or_else(|| Some(id.clone()));
    }
    let data = match (file, variable) {
        (Some(file), _) => fs_err::read(&file)?,
        (None, Some(name)) => variable_bytes(&name)
            .ok_or_else(|| Failure::new(format!("--secret {text:?}: {name} is not set")))?,
        (None, None) => match variable_bytes(&id) {
            Some(value) => value,
            None => fs_err::read(&id)?,
        },
    };
    /// BuildKit's limit.
    const MAX: usize = 500 << 10;
    if data.len() > MAX {
        return Err(Failure::new(format!(
            "--secret {id} has more than {MAX} bytes"
        )));
    }
    Ok((id, data))
}

fn variable_bytes(name: &str) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt as _;
    std::env::var_os(name).map(std::ffi::OsString::into_vec)
}

/// `default`, `NAME` or `NAME=SOCKET`; without a socket it is the running agent's.
fn ssh(text: &str) -> Result<(String, PathBuf), Failure> {
    let (id, socket) = match text.split_once('=') {
        Some((id, socket)) => (id, PathBuf::from(socket)),
        None => match std::env::var_os("SSH_AUTH_SOCK") {
            Some(socket) => (text, PathBuf::from(socket)),
            None => {
                return Err(Failure::new(format!(
                    "--ssh {text}: no agent is running (SSH_AUTH_SOCK is not set)"
                )));
            }
        },
    };
    if !fs_err::metadata(&socket)?.file_type().is_socket() {
        let message = format!("--ssh {text}: {} is no agent's socket", socket.display());
        return Err(Failure::new(message).hint(
            "keys are used through an agent only: eval $(ssh-agent); ssh-add KEY; firebuild build --ssh default",
        ));
    }
    Ok((id.to_owned(), socket))
}

#[cfg(test)]
mod tests {
    use super::secret;

    #[test]
    fn secrets_come_from_files_and_variables() {
        let path = std::env::var("PATH").expect("there is one").into_bytes();
        for text in [
            "id=PATH",
            "id=x,env=PATH",
            "id=x,type=env,src=PATH",
            "type=env,id=PATH",
        ] {
            let (id, data) = secret(text).expect(text);
            assert_eq!((id.len() <= 4, &data), (true, &path), "{text}");
        }
        assert_eq!(secret("id=x,src=/dev/null").expect("a file").1, b"");
        for text in ["src=", "id=x,type=env,src=NO_SUCH_VARIABLE", "id=x,what=y"] {
            assert!(secret(text).is_err(), "{text}");
        }
    }
}
