//! `--build-context`: what a name stands for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebuild_build::cancel::Cancel;
use firebuild_build::graph::HttpOp;
use firebuild_build::lower::NamedContext;
use firebuild_build::remote::{Address, Remote, Stream, parse_address, url_file_name};
use firebuild_build::solve::{ContextDir, ContextSource};
use firebuild_store::Store;

use super::sources::{self, ignore_at};
use super::{BuildError, BuildErrorKind, own_file};

/// The contexts of a build so far, and what is needed to add to them.
pub(super) struct Contexts<'a> {
    pub(super) store: &'a Store,
    pub(super) remote: &'a Remote<'a>,
    pub(super) cancel: &'a Cancel,
    pub(super) files: BTreeMap<String, ContextSource>,
    pub(super) named: BTreeMap<String, NamedContext>,
}

impl Contexts<'_> {
    /// Adds one. What is at an address is fetched when it is used.
    pub(super) fn add(&mut self, name: &str, value: &str) -> Result<(), BuildError> {
        for prefix in ["docker-image://", super::layouts::SCHEME] {
            if let Some(reference) = value.strip_prefix(prefix) {
                // An image is told from a layout by the scheme.
                let reference = if prefix == super::layouts::SCHEME {
                    value
                } else {
                    reference
                };
                let image = NamedContext::Image(reference.to_owned());
                self.named.insert(name.to_owned(), image);
                return Ok(());
            }
        }
        let source = match parse_address(value) {
            Ok(Some(_)) => remote(value)?,
            Err(message) => return Err(wrong(name, &message)),
            Ok(None) => self.local(name, Path::new(value))?,
        };
        self.files.insert(name.to_owned(), source);
        self.named.insert(name.to_owned(), NamedContext::Files);
        Ok(())
    }

    fn local(&self, name: &str, path: &Path) -> Result<ContextSource, BuildError> {
        if own_file::is_stream(path) {
            let file = own_file::open(path, self.cancel).map_err(|error| {
                BuildError::caused(
                    BuildErrorKind::Source,
                    format!("--build-context {name}"),
                    error,
                )
            })?;
            let shown = path.display().to_string();
            return match self.remote.stream(file, &shown, 0) {
                Ok(Stream::Files(files)) => {
                    let ignore = files.ignore_file(self.store, &[".dockerignore"])?;
                    let tree = files.into_context(ignore.as_ref())?;
                    Ok(ContextSource::Tree(Arc::new(tree)))
                }
                Ok(Stream::Text(_)) => Err(wrong(name, &format!("{shown} is no archive"))),
                Err(error) => Err(error.into()),
            };
        }
        if !path.is_dir() {
            let what = format!(
                "{} is none of: a directory, an archive, docker-image://REFERENCE, oci-layout://PATH, an address of a git repository or a file",
                path.display()
            );
            return Err(wrong(name, &what));
        }
        Ok(ContextSource::Dir(ContextDir {
            path: PathBuf::from(path),
            ignore: ignore_at(&[path.join(".dockerignore")], self.cancel)?,
        }))
    }
}

fn remote(value: &str) -> Result<ContextSource, BuildError> {
    Ok(match sources::address(value)? {
        Address::Git { op, .. } => ContextSource::Git(Box::new(op)),
        Address::Http(url) => ContextSource::Http(HttpOp {
            file_name: url_file_name(&url),
            url,
            checksum: None,
            beside: false,
        }),
    })
}

fn wrong(name: &str, what: &str) -> BuildError {
    BuildError::new(
        BuildErrorKind::Source,
        format!("--build-context {name}: {what}"),
    )
}
