//! Finding what a build is made of: the Dockerfile, the context, the ignore file.

use std::path::{Path, PathBuf};

use firebuild_build::solve::ContextDir;

use super::{BuildError, BuildErrorKind, Request};

/// A Dockerfile larger than this is none.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// What was found.
#[derive(Debug)]
pub(super) struct Sources {
    /// Name of the Dockerfile as the user knows it.
    pub(super) name: String,
    /// Its bytes.
    pub(super) dockerfile: Vec<u8>,
    /// The main context.
    pub(super) context: ContextDir,
}

/// Finds and reads them.
pub(super) fn find(request: &Request) -> Result<Sources, BuildError> {
    let (file, context) = match (&request.dockerfile, &request.context) {
        (Some(file), Some(context)) => (file.clone(), context.clone()),
        (Some(file), None) => {
            let parent = file
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            (
                file.clone(),
                parent.map_or_else(|| PathBuf::from("."), Path::to_owned),
            )
        }
        (None, Some(context)) => (context.join("Dockerfile"), context.clone()),
        (None, None) => {
            return Err(BuildError::new(
                BuildErrorKind::Usage,
                "neither a Dockerfile nor a build context was given",
            ));
        }
    };
    if !context.is_dir() {
        let why = if context.exists() {
            "is no directory"
        } else {
            "does not exist"
        };
        return Err(BuildError::new(
            BuildErrorKind::Source,
            format!("the build context {} {why}", context.display()),
        ));
    }
    let dockerfile = read(&file)?;
    let ignore = ignore_file(&file, &context)?;
    Ok(Sources {
        name: file.display().to_string(),
        dockerfile,
        context: ContextDir {
            path: context,
            ignore,
        },
    })
}

fn read(file: &Path) -> Result<Vec<u8>, BuildError> {
    let fail = |error| {
        BuildError::caused(
            BuildErrorKind::Source,
            format!("cannot read the Dockerfile {}", file.display()),
            error,
        )
    };
    let meta = fs_err::metadata(file).map_err(fail)?;
    if meta.is_dir() {
        return Err(BuildError::new(
            BuildErrorKind::Source,
            format!(
                "the Dockerfile {} is a directory; give the file in it",
                file.display()
            ),
        ));
    }
    if meta.len() > MAX_DOCKERFILE {
        return Err(BuildError::new(
            BuildErrorKind::Source,
            format!(
                "{} is too large for a Dockerfile: more than {MAX_DOCKERFILE} bytes",
                file.display()
            ),
        ));
    }
    fs_err::read(file).map_err(fail)
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the context.
fn ignore_file(dockerfile: &Path, context: &Path) -> Result<Option<(String, String)>, BuildError> {
    let mut beside = dockerfile.as_os_str().to_owned();
    beside.push(".dockerignore");
    for path in [PathBuf::from(beside), context.join(".dockerignore")] {
        match fs_err::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Ok(Some((path.display().to_string(), text)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(BuildError::caused(
                    BuildErrorKind::Source,
                    format!("cannot read {}", path.display()),
                    error,
                ));
            }
        }
    }
    Ok(None)
}
