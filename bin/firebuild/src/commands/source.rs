//! What `rootfs` builds from: a file, a text given in place of a file, or an image.

use std::path::{Path, PathBuf};

use firebuild_oci::Reference;
use tempfile::TempDir;

use crate::args::RootfsArgs;
use crate::failure::Failure;

/// Schemes of the original's git sources.
const GIT: [&str; 5] = [
    "git+http://",
    "git+https://",
    "git+ssh://",
    "git://",
    "ssh://",
];
/// Schemes of a single file.
const WEB: [&str; 2] = ["http://", "https://"];

/// Where the Dockerfile and the context are.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) dockerfile: Option<PathBuf>,
    pub(super) context: Option<PathBuf>,
    /// Holds a Dockerfile that was no file; it goes with this value.
    _scratch: Option<TempDir>,
}

/// Finds the source that the flags name.
pub(super) fn find(args: &RootfsArgs) -> Result<Source, Failure> {
    if let Some(image) = &args.docker_image {
        let image: Reference = image.parse().map_err(|error| Failure::new(error).code(2))?;
        return text(&format!("FROM {}\n", image.canonical()));
    }
    let context = args.path.as_ref().or(args.context.as_ref());
    for given in context.into_iter().chain(&args.dockerfile) {
        refuse_remote(given)?;
    }
    match (&args.dockerfile, context) {
        (None, None) => Err(
            Failure::usage("neither a build context nor a Dockerfile was given")
                .hint("firebuild build . builds the Dockerfile in this directory"),
        ),
        // The original takes a text in place of a path. One line cannot build anything, and may be a misspelt path.
        (Some(given), None) if given.contains('\n') && !Path::new(given).exists() => text(given),
        (dockerfile, context) => Ok(Source {
            dockerfile: dockerfile.as_ref().map(PathBuf::from),
            context: context.map(PathBuf::from),
            _scratch: None,
        }),
    }
}

/// A Dockerfile of this text, with nothing around it that COPY could see but itself.
fn text(text: &str) -> Result<Source, Failure> {
    let dir = tempfile::Builder::new().prefix("firebuild-").tempdir()?;
    let file = dir.path().join("Dockerfile");
    fs_err::write(&file, text)?;
    Ok(Source {
        dockerfile: Some(file),
        context: Some(dir.path().to_owned()),
        _scratch: Some(dir),
    })
}

/// Says what to do instead where a Dockerfile or a context is somewhere else.
pub(super) fn refuse_remote(text: &str) -> Result<(), Failure> {
    if GIT.iter().any(|scheme| text.starts_with(scheme)) {
        let failure = Failure::new(format!(
            "cannot build {text:?}: git sources are not supported"
        ));
        return Err(failure.hint(clone(text)));
    }
    if WEB.iter().any(|scheme| text.starts_with(scheme)) {
        let failure = Failure::new(format!(
            "cannot build {text:?}: sources by URL are not supported"
        ));
        return Err(failure.hint("fetch it into a directory and build that"));
    }
    Ok(())
}

/// The commands that do by hand what a git source stands for: `SCHEME://REPOSITORY:/PATH[#REF]`.
fn clone(text: &str) -> String {
    let url = text.strip_prefix("git+").unwrap_or(text);
    let (url, reference) = url
        .split_once('#')
        .map_or((url, None), |(url, reference)| (url, Some(reference)));
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let split = url[after_scheme..].rfind(":/").map(|at| at + after_scheme);
    let (repository, path) = split.map_or((url, "/Dockerfile"), |at| (&url[..at], &url[at + 1..]));
    let name = repository.rsplit('/').next().unwrap_or_default();
    let name = name.strip_suffix(".git").unwrap_or(name);
    let branch = reference
        .map(|reference| format!(" --branch {reference}"))
        .unwrap_or_default();
    format!("git clone{branch} {repository}, then give --dockerfile {name}{path}")
}

#[cfg(test)]
mod tests {
    use super::clone;

    #[test]
    fn git_sources_become_two_commands() {
        for (text, expected) in [
            (
                "git+https://github.com/hashicorp/docker-consul.git:/0.X/Dockerfile#master",
                "git clone --branch master https://github.com/hashicorp/docker-consul.git, then give --dockerfile \
                 docker-consul/0.X/Dockerfile",
            ),
            (
                "git://host:99/a/b",
                "git clone git://host:99/a/b, then give --dockerfile b/Dockerfile",
            ),
            (
                "ssh://git@h/x.git:/D",
                "git clone ssh://git@h/x.git, then give --dockerfile x/D",
            ),
        ] {
            assert_eq!(clone(text), expected);
        }
    }
}
