//! Finding what a build is made of: the Dockerfile, the context, the ignore file.
//!
//! | context | the Dockerfile is, unless given |
//! |---|---|
//! | a directory | `Dockerfile` in it |
//! | an archive: a file, standard input, a document | `Dockerfile` in it |
//! | standard input or a document that is no archive | that; of a document, what is copied lies beside it |
//! | a repository | `Dockerfile` in its directory |
//! | none | must be given; its directory is the context |
//!
//! With a context that is no directory, `--file` is a path in it; an absolute path to a file of this machine is that file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebuild_build::cancel::Cancel;
use firebuild_build::graph::GitOp;
use firebuild_build::remote::{
    Address, Fetched, Polled, Remote, RemoteError, RemoteErrorKind, Stream, parse_address,
};
use firebuild_build::solve::{ContextDir, ContextSource};
use firebuild_oci::Digest;
use firebuild_rootfs::tree::Tree;
use firebuild_store::Store;

use super::own_file;
use super::request::SourcePlace;
use super::{BuildError, BuildErrorKind, Request};

/// A Dockerfile larger than this is none, nor is an ignore file.
const MAX_DOCKERFILE: u64 = 16 << 20;
/// Name of a Dockerfile where nothing says otherwise.
const DOCKERFILE: &str = "Dockerfile";

/// What was found.
#[derive(Debug)]
pub(super) struct Sources {
    /// Name of the Dockerfile as the user knows it.
    pub(super) name: String,
    /// Its bytes.
    pub(super) dockerfile: Vec<u8>,
    /// The main context.
    pub(super) context: ContextSource,
    /// Text of the ignore file of the context.
    pub(super) ignore: Option<String>,
    /// The time of the context, if it has one: seconds since the epoch.
    pub(super) time: Option<i64>,
    /// The address that sources of the context lie below, if they are fetched one by one.
    pub(super) beside: Option<String>,
}

/// Finds and reads them.
pub(super) struct Finder<'a> {
    pub(super) store: &'a Store,
    pub(super) remote: &'a Remote<'a>,
    pub(super) cancel: &'a Cancel,
    pub(super) keep_git_dir: bool,
}

impl Finder<'_> {
    pub(super) fn find(&self, request: &Request) -> Result<Sources, BuildError> {
        let dockerfile = request.dockerfile.as_ref();
        match (&request.context, dockerfile) {
            (None, None) => Err(usage("neither a Dockerfile nor a build context was given")),
            (None, Some(SourcePlace::Path(file))) => {
                let parent = file
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                let dir = parent.map_or_else(|| PathBuf::from("."), Path::to_owned);
                self.directory(&dir, dockerfile)
            }
            (None, Some(SourcePlace::Address(text))) => self.address(text, None),
            (None, Some(SourcePlace::Text(text))) => {
                Ok(alone(DOCKERFILE.to_owned(), text.clone().into_bytes()))
            }
            (Some(SourcePlace::Path(path)), _) if own_file::is_stream(path) => {
                let name = path.display().to_string();
                let file = own_file::open(path, self.cancel).map_err(|error| {
                    let message = format!("cannot read the build context {name}");
                    BuildError::caused(BuildErrorKind::Source, message, error)
                })?;
                self.stream(file, &name, dockerfile)
            }
            (Some(SourcePlace::Path(path)), _) => self.directory(path, dockerfile),
            (Some(SourcePlace::Stored { files, .. }), _) => {
                self.fetched(files.clone(), "standard input", DOCKERFILE, dockerfile)
            }
            (Some(SourcePlace::Address(text)), _) => self.address(text, dockerfile),
            (Some(SourcePlace::Text(_)), _) => Err(usage("a text cannot be a build context")),
            (Some(SourcePlace::Stdin), _)
            | (_, Some(SourcePlace::Stdin | SourcePlace::Stored { .. })) => {
                Err(usage("standard input was not read"))
            }
        }
    }

    /// What is on standard input: a Dockerfile, or a context.
    pub(super) fn stdin(
        &self,
        request: &Request,
    ) -> Result<(Option<String>, Option<Fetched>), BuildError> {
        let as_context = matches!(request.context, Some(SourcePlace::Stdin));
        if as_context && matches!(request.dockerfile, Some(SourcePlace::Stdin)) {
            return Err(usage(
                "standard input cannot be both the build context and the Dockerfile",
            ));
        }
        let name = "standard input";
        let stdin = Polled {
            file: std::io::stdin(),
            cancel: self.cancel,
        };
        match self.remote.stream(stdin, name, MAX_DOCKERFILE)? {
            Stream::Files(files) if as_context => Ok((None, Some(files))),
            Stream::Files(_) => Err(usage(
                "standard input is an archive, and --file - says that it is a Dockerfile",
            )),
            Stream::Text(text) => {
                if as_context {
                    no_second(name, request.dockerfile.as_ref())?;
                }
                Ok((Some(String::from_utf8_lossy(&text).into_owned()), None))
            }
        }
    }

    fn directory(
        &self,
        dir: &Path,
        dockerfile: Option<&SourcePlace>,
    ) -> Result<Sources, BuildError> {
        if !dir.is_dir() {
            let why = if dir.exists() {
                "is no directory"
            } else {
                "does not exist"
            };
            let message = format!("the build context {} {why}", dir.display());
            return Err(BuildError::new(BuildErrorKind::Source, message));
        }
        let inside = SourcePlace::Path(dir.join(DOCKERFILE));
        let place = dockerfile.unwrap_or(&inside);
        let (name, text) = self.given(Some(place), None)?;
        let beside = match place {
            SourcePlace::Path(file) => Some(file.as_path()),
            _ => None,
        };
        let ignore = ignore_file(beside, dir, self.cancel)?;
        Ok(Sources {
            name,
            dockerfile: text,
            ignore: ignore.as_ref().map(|(_, text)| text.clone()),
            context: ContextSource::Dir(ContextDir {
                path: dir.to_owned(),
                ignore,
            }),
            time: None,
            beside: None,
        })
    }

    /// An archive, or a Dockerfile and nothing else.
    fn stream(
        &self,
        reader: impl std::io::Read,
        name: &str,
        dockerfile: Option<&SourcePlace>,
    ) -> Result<Sources, BuildError> {
        match self.remote.stream(reader, name, MAX_DOCKERFILE)? {
            Stream::Files(files) => self.fetched(files, name, DOCKERFILE, dockerfile),
            Stream::Text(text) => {
                no_second(name, dockerfile)?;
                Ok(alone(name.to_owned(), text))
            }
        }
    }

    fn address(&self, text: &str, dockerfile: Option<&SourcePlace>) -> Result<Sources, BuildError> {
        match address(text)? {
            Address::Git {
                mut op,
                dockerfile: named,
            } => {
                op.keep_git_dir |= self.keep_git_dir;
                let files = self.remote.git(&op)?;
                let file = named.as_deref().unwrap_or(DOCKERFILE);
                self.fetched(files, text, file, dockerfile)
            }
            Address::Http(url) => {
                let (document, _) = self.remote.document(&url, None)?;
                match self
                    .remote
                    .document_stream(&document, &url, MAX_DOCKERFILE)?
                {
                    Stream::Files(files) => {
                        let files = Fetched {
                            time: document.modified.or(files.time),
                            ..files
                        };
                        self.fetched(files, &url, DOCKERFILE, dockerfile)
                    }
                    Stream::Text(content) => {
                        no_second(&url, dockerfile)?;
                        Ok(Sources {
                            beside: Some(parent_of(&url)),
                            time: document.modified,
                            ..alone(url, content)
                        })
                    }
                }
            }
        }
    }

    /// A context that lies in the store.
    fn fetched(
        &self,
        files: Fetched,
        context: &str,
        file: &str,
        dockerfile: Option<&SourcePlace>,
    ) -> Result<Sources, BuildError> {
        let inside = SourcePlace::Path(PathBuf::from(file));
        let place = dockerfile.unwrap_or(&inside);
        let (name, text) = self.given(Some(place), Some((&files, context)))?;
        let beside = match place {
            SourcePlace::Path(path) => format!("{}.dockerignore", path.display()),
            _ => String::new(),
        };
        let ignore = match own_ignore(place, self.cancel)? {
            Some(found) => Some(found),
            None => {
                let names = [beside.as_str(), ".dockerignore"];
                let names = if beside.is_empty() {
                    &names[1..]
                } else {
                    &names
                };
                files.ignore_file(self.store, names)?
            }
        };
        let time = files.time;
        let tree = files.into_context(ignore.as_ref())?;
        Ok(Sources {
            name,
            dockerfile: text,
            context: ContextSource::Tree(Arc::new(tree)),
            ignore: ignore.map(|(_, text)| text),
            time,
            beside: None,
        })
    }

    /// The Dockerfile that a place names; a path may lead into a context.
    fn given(
        &self,
        place: Option<&SourcePlace>,
        context: Option<(&Fetched, &str)>,
    ) -> Result<(String, Vec<u8>), BuildError> {
        match (place, context) {
            (Some(SourcePlace::Path(path)), Some((files, context))) if !is_own(path) => {
                let name = path.display().to_string();
                let text = files.read(self.store, &name, MAX_DOCKERFILE)?;
                let text = text.ok_or_else(|| {
                    let message = format!("there is no {name} in the build context {context}");
                    BuildError::new(BuildErrorKind::Source, message).hints([
                        "--file names the Dockerfile, from the root of the context on".to_owned(),
                    ])
                })?;
                Ok((name, text))
            }
            (Some(SourcePlace::Path(path)), _) => {
                Ok((path.display().to_string(), read(path, self.cancel)?))
            }
            (Some(SourcePlace::Text(text)), _) => {
                Ok((DOCKERFILE.to_owned(), text.clone().into_bytes()))
            }
            (Some(SourcePlace::Address(text)), _) => self.dockerfile_at(text),
            (Some(SourcePlace::Stdin | SourcePlace::Stored { .. }) | None, _) => {
                Err(usage("no Dockerfile was given"))
            }
        }
    }

    /// A Dockerfile that is fetched while the context is somewhere else.
    fn dockerfile_at(&self, text: &str) -> Result<(String, Vec<u8>), BuildError> {
        match address(text)? {
            Address::Http(url) => {
                let (document, _) = self.remote.document(&url, None)?;
                match self
                    .remote
                    .document_stream(&document, &url, MAX_DOCKERFILE)?
                {
                    Stream::Text(content) => Ok((url, content)),
                    Stream::Files(_) => {
                        Err(usage(&format!("{url} is an archive and no Dockerfile")))
                    }
                }
            }
            Address::Git { op, dockerfile } => {
                let files = self.remote.git(&op)?;
                let name = dockerfile.as_deref().unwrap_or(DOCKERFILE);
                let found = files.read(self.store, name, MAX_DOCKERFILE)?;
                let found = found.ok_or_else(|| missing_in(text, name, &op))?;
                Ok((text.to_owned(), found))
            }
        }
    }
}

/// A Dockerfile with nothing around it that COPY could see.
fn alone(name: String, dockerfile: Vec<u8>) -> Sources {
    let empty = Fetched {
        tree: Arc::new(Tree::new()),
        id: Digest::of(b""),
        time: None,
        cached: true,
    };
    Sources {
        name,
        dockerfile,
        context: ContextSource::Tree(Arc::new(empty.without_ignore())),
        ignore: None,
        time: None,
        beside: None,
    }
}

fn usage(message: &str) -> BuildError {
    BuildError::new(BuildErrorKind::Usage, message)
}

fn missing_in(text: &str, name: &str, op: &GitOp) -> BuildError {
    let place = if op.subdir.is_empty() {
        "/"
    } else {
        &op.subdir
    };
    let message = format!("there is no {name} in {place} of {text}");
    BuildError::new(BuildErrorKind::Source, message)
}

/// A stream that is a Dockerfile leaves no place for another.
fn no_second(name: &str, dockerfile: Option<&SourcePlace>) -> Result<(), BuildError> {
    if dockerfile.is_some() {
        return Err(usage(&format!(
            "{name} is a Dockerfile and no archive, and another Dockerfile was given"
        )));
    }
    Ok(())
}

/// An address as the user wrote it.
pub(super) fn address(text: &str) -> Result<Address, BuildError> {
    match parse_address(text) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(usage(&format!("{text:?} is no address"))),
        Err(message) => Err(usage(&message)),
    }
}

/// The directory of a document's address, with a slash at its end.
fn parent_of(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let root = url.find("://").map_or(0, |at| at + 3);
    match url[root..].rfind('/') {
        Some(slash) => url[..=root + slash].to_owned(),
        None => format!("{url}/"),
    }
}

/// Whether a path is a file of this machine, although the context is not.
fn is_own(path: &Path) -> bool {
    path.is_absolute() && path.is_file()
}

/// The ignore file beside a Dockerfile of this machine.
fn own_ignore(
    place: &SourcePlace,
    cancel: &Cancel,
) -> Result<Option<(String, String)>, BuildError> {
    match place {
        SourcePlace::Path(path) if is_own(path) => ignore_at(&[beside(path)], cancel),
        _ => Ok(None),
    }
}

fn read(file: &Path, cancel: &Cancel) -> Result<Vec<u8>, BuildError> {
    let shown = file.display();
    if file.is_dir() {
        let message = format!("the Dockerfile {shown} is a directory; give the file in it");
        return Err(BuildError::new(BuildErrorKind::Source, message));
    }
    own_file::read(file, MAX_DOCKERFILE, cancel)
        .map_err(|error| unreadable(format!("cannot read the Dockerfile {shown}"), error, cancel))
}

/// An error of reading a file, unless the build was stopped.
fn unreadable(message: String, error: std::io::Error, cancel: &Cancel) -> BuildError {
    super::stopped_or(
        BuildError::caused(BuildErrorKind::Source, message, error),
        cancel,
    )
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the context.
fn ignore_file(
    dockerfile: Option<&Path>,
    context: &Path,
    cancel: &Cancel,
) -> Result<Option<(String, String)>, BuildError> {
    let mut places: Vec<PathBuf> = dockerfile.map(beside).into_iter().collect();
    places.push(context.join(".dockerignore"));
    ignore_at(&places, cancel)
}

fn beside(dockerfile: &Path) -> PathBuf {
    let mut beside = dockerfile.as_os_str().to_owned();
    beside.push(".dockerignore");
    PathBuf::from(beside)
}

/// The first of these files that is there.
pub(super) fn ignore_at(
    places: &[PathBuf],
    cancel: &Cancel,
) -> Result<Option<(String, String)>, BuildError> {
    for path in places {
        let shown = path.display().to_string();
        match own_file::read(path, MAX_DOCKERFILE, cancel) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Ok(Some((shown, text)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(format!("cannot read {shown}"), error, cancel)),
        }
    }
    Ok(None)
}

impl From<RemoteError> for BuildError {
    fn from(error: RemoteError) -> Self {
        let kind = match error.kind() {
            RemoteErrorKind::Cancelled => BuildErrorKind::Cancelled,
            _ => BuildErrorKind::Source,
        };
        let (message, hints) = (error.to_string(), error.hints().to_vec());
        Self::caused(kind, message, error).hints(hints)
    }
}

#[cfg(test)]
mod tests {
    use super::parent_of;

    #[test]
    fn where_files_beside_a_dockerfile_are() {
        for (url, parent) in [
            ("http://h/a/Dockerfile", "http://h/a/"),
            ("http://h/Dockerfile?x=/y#z/", "http://h/"),
            ("http://h", "http://h/"),
        ] {
            assert_eq!(parent_of(url), parent);
        }
    }
}
