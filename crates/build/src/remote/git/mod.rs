//! Git repositories.
//!
//! ```text
//!  reference ─▶ ls-remote ─▶ commit          a full commit needs no server; a short one needs all of the history
//!  commit ─▶ record in the store?            then nothing is fetched
//!     no ─▶ fetch into the bare repository of this address (one revision, or all where the server cannot do that)
//!        ─▶ check out beside it ─▶ submodules ─▶ tree ─▶ layer of the store ─▶ record
//! ```
//!
//! The bare repositories under `git/` of the store are a cache: each belongs to one address, is used under a lock, and can be
//! removed at any time. Git's own program does the work, as in BuildKit, with a configuration that is wholly ours
//! ([`program`]).

mod bare;
mod checkout;
mod program;
mod refs;

use firebuild_oci::Digest;
use firebuild_rootfs::tree::Tree;
use serde::{Deserialize, Serialize};

use super::{Fetched, Remote, RemoteError, RemoteErrorKind as Failed};
use crate::content::read_layer;
use crate::graph::GitOp;
use crate::key::{CacheKey, KeyWriter};
use bare::Bare;
use program::Git;
use refs::{Tip, is_commit};

/// What is kept of a checkout.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Record {
    /// What a person knows it by.
    name: String,
    layer: Digest,
    /// Seconds since the epoch.
    time: i64,
}

impl Remote<'_> {
    /// The files of a repository at a reference.
    ///
    /// # Errors
    /// When the repository, the reference or the directory is not there, or the commit is not the one of `checksum`.
    pub fn git(&self, op: &GitOp) -> Result<Fetched, RemoteError> {
        let git = Git::new(self, &op.remote)?;
        let mut name = KeyWriter::new("git-repository/1");
        name.text(git.url());
        let name = name.finish();
        let bare = Bare {
            store: self.store,
            git: &git,
            path: self.store.root().join("git").join(name.to_string()),
        };
        // A build that finds the commit known needs no lock: it only looks at records.
        let tip = match named(op)? {
            Some(tip) => tip,
            None => match refs::choose(&bare.list(&op.reference)?, &op.reference) {
                Some(tip) => tip,
                None if refs::may_be_short(&op.reference) => {
                    let _lock = self.lock(&format!("git-{name}"))?;
                    bare.prepare()?;
                    bare.short(&op.reference)?
                }
                None => return Err(missing(&git, &op.reference)),
            },
        };
        check(op, &tip, &git)?;
        let key = key(op, &tip, &git);
        if let Some(found) = self.recorded(&key)? {
            return Ok(found);
        }
        let _lock = self.lock(&format!("git-{name}"))?;
        if let Some(found) = self.recorded(&key)? {
            return Ok(found);
        }
        bare.prepare()?;
        bare.fetch(&tip)?;
        let (layer, time) = self.check_out(op, &bare, &tip)?;
        let name = format!("git {}#{}", git.url(), tip.commit);
        let record = Record { name, layer, time };
        self.store
            .cache_put(&key.0, &record)
            .map_err(RemoteError::store)?;
        self.read_back(&record, false)
    }

    fn recorded(&self, key: &CacheKey) -> Result<Option<Fetched>, RemoteError> {
        match self.store.cache_get::<Record>(&key.0) {
            Some(record) if self.store.has_blob(&record.layer) => {
                self.read_back(&record, true).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn read_back(&self, record: &Record, cached: bool) -> Result<Fetched, RemoteError> {
        let damaged =
            |error| RemoteError::caused(Failed::Store, "cannot read a fetched repository", error);
        let layer = read_layer(self.store, &record.layer).map_err(damaged)?;
        let mut tree = Tree::new();
        tree.apply(&layer)
            .map_err(|error| damaged(crate::content::ContentError::apply(record.layer, error)))?;
        Ok(Fetched {
            tree: tree.into(),
            id: record.layer,
            time: Some(record.time),
            cached,
        })
    }
}

/// The commit, where the source itself names it.
fn named(op: &GitOp) -> Result<Option<Tip>, RemoteError> {
    refs::check_name(&op.reference)?;
    if op.fetch_by_commit {
        let commit = op.checksum.as_deref().unwrap_or_default();
        if !is_commit(commit) {
            return Err(RemoteError::new(
                Failed::Address,
                "fetch-by-commit needs the whole commit in checksum=",
            ));
        }
        return Ok(Some(Tip::of_commit(commit)));
    }
    Ok(is_commit(&op.reference).then(|| Tip::of_commit(&op.reference)))
}

fn check(op: &GitOp, tip: &Tip, git: &Git<'_>) -> Result<(), RemoteError> {
    let Some(wanted) = &op.checksum else {
        return Ok(());
    };
    let wanted = wanted.to_ascii_lowercase();
    let plain = !wanted.is_empty() && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    if plain && (tip.commit.starts_with(&wanted) || tip.object.starts_with(&wanted)) {
        return Ok(());
    }
    let message = format!(
        "checksum mismatch for {}: expected commit {wanted}, got {}",
        git.url(),
        tip.commit
    );
    Err(RemoteError::new(Failed::Checksum, message))
}

fn missing(git: &Git<'_>, reference: &str) -> RemoteError {
    let message = match reference {
        "" => format!("repository {} has no default branch", git.url()),
        _ => format!("repository {} does not contain ref {reference}", git.url()),
    };
    RemoteError::new(Failed::NotFound, message)
}

/// What a checkout depends on. The address counts where it shows: in `.git`, and in relative submodules.
fn key(op: &GitOp, tip: &Tip, git: &Git<'_>) -> CacheKey {
    let mut key = KeyWriter::new("git/1");
    key.text(&tip.commit)
        .text(&op.subdir)
        .flag(op.keep_git_dir)
        .flag(op.submodules)
        .flag(op.commit_times)
        .text(git.url());
    if op.keep_git_dir {
        key.text(&tip.full).text(&tip.object);
    }
    key.finish()
}
