//! The bare repository that caches one address.

use std::path::PathBuf;

use firebuild_store::Store;

use super::program::Git;
use super::refs::Tip;
use super::{Failed, RemoteError, missing};

/// The bare repository that caches one address.
pub(super) struct Bare<'g> {
    pub(super) store: &'g Store,
    pub(super) git: &'g Git<'g>,
    pub(super) path: PathBuf,
}

impl Bare<'_> {
    /// What the server says about a reference.
    pub(super) fn list(&self, reference: &str) -> Result<String, RemoteError> {
        let name = if reference.is_empty() {
            "HEAD"
        } else {
            reference
        };
        let peeled = format!("{name}^{{}}");
        let output = self
            .git
            .at(None)
            .server(&["ls-remote", "--", "source", name, &peeled])?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Makes it where it is missing, and takes away what a killed fetch left.
    pub(super) fn prepare(&self) -> Result<(), RemoteError> {
        let failed = |error: std::io::Error| {
            RemoteError::caused(
                Failed::Store,
                "cannot make a repository in the store",
                error,
            )
        };
        for name in [
            "shallow.lock",
            "packed-refs.lock",
            "config.lock",
            "HEAD.lock",
        ] {
            let _ = fs_err::remove_file(self.path.join(name));
        }
        // Held, so that nobody who makes room takes it away meanwhile.
        if self.store.hold(&self.path) && self.path.join("HEAD").exists() {
            return Ok(());
        }
        let parent = self.path.parent().unwrap_or(&self.path);
        fs_err::create_dir_all(parent).map_err(failed)?;
        let aside = self.path.with_extension("new");
        let _ = fs_err::remove_dir_all(&aside);
        self.store.hold_dir(&aside).map_err(RemoteError::store)?;
        self.git
            .at(Some(&aside))
            .local(&["init", "--quiet", "--bare", "--template=", "."])?;
        // Checkouts fetch from here by commit.
        let config = aside.join("config");
        let mut text = fs_err::read_to_string(&config).map_err(failed)?;
        text += "[uploadpack]\n\tallowAnySHA1InWant = true\n";
        fs_err::write(&config, text).map_err(failed)?;
        let _ = fs_err::remove_dir_all(&self.path);
        fs_err::rename(&aside, &self.path).map_err(failed)?;
        let _ = self.store.hold(&self.path);
        Ok(())
    }

    /// Makes sure that a commit with all its files is here.
    pub(super) fn fetch(&self, tip: &Tip) -> Result<(), RemoteError> {
        let git = self.git.at(Some(&self.path));
        if self.has(tip)? {
            return Ok(());
        }
        let kept = format!("refs/firebuild/{}", tip.object);
        let wanted = match tip.full.as_str() {
            "" => format!("+{}:{kept}", tip.object),
            full => format!("+{full}:{kept}"),
        };
        let one = git.server(&[
            "fetch",
            "--progress",
            "--no-tags",
            "--depth=1",
            "--",
            "source",
            &wanted,
        ]);
        match one {
            Ok(_) if self.has(tip)? => return Ok(()),
            Err(error) if error.kind() == Failed::Cancelled => return Err(error),
            // A server that knows no shallow histories, or gives commits only as a part of all.
            _ => {}
        }
        self.fetch_all()?;
        if self.has(tip)? {
            return Ok(());
        }
        Err(missing(self.git, &tip.object))
    }

    /// Fetches all branches and tags with their histories.
    fn fetch_all(&self) -> Result<(), RemoteError> {
        let mut args = vec!["fetch", "--progress", "--no-tags", "--prune"];
        if self.path.join("shallow").exists() {
            args.push("--unshallow");
        }
        args.extend([
            "--",
            "source",
            "+refs/heads/*:refs/source/heads/*",
            "+refs/tags/*:refs/source/tags/*",
        ]);
        self.git.at(Some(&self.path)).server(&args).map(|_| ())
    }

    fn has(&self, tip: &Tip) -> Result<bool, RemoteError> {
        let git = self.git.at(Some(&self.path));
        Ok(
            git.succeeds(&["cat-file", "-e", &format!("{}^{{commit}}", tip.object)])?
                && git.succeeds(&["cat-file", "-e", &format!("{}^{{tree}}", tip.object)])?,
        )
    }

    /// The commit that a short name stands for, of all branches and tags.
    pub(super) fn short(&self, name: &str) -> Result<Tip, RemoteError> {
        self.fetch_all()?;
        let git = self.git.at(Some(&self.path));
        let found = git.local(&["rev-parse", &format!("--disambiguate={name}")]);
        // What is no commit does not count: git gives names of all kinds of objects.
        let mut commits = Vec::new();
        for object in String::from_utf8_lossy(&found?).split_whitespace() {
            if git.local(&["cat-file", "-t", object])?.trim_ascii() == b"commit" {
                commits.push(object.to_owned());
            }
        }
        match commits.as_slice() {
            [] => Err(missing(self.git, name)),
            [one] => Ok(Tip::of_commit(one)),
            many => {
                let message = format!(
                    "commit {name} of {} is ambiguous: {}",
                    self.git.url(),
                    many.join(", ")
                );
                Err(RemoteError::new(Failed::NotFound, message))
            }
        }
    }
}
