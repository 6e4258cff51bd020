//! From a commit to a layer.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use firebuild_oci::Digest;
use firebuild_rootfs::layer::Layer;
use firebuild_rootfs::tree::{InodeId, Kind, Time, Tree};
use firebuild_rootfs::walk::{
    DirContents, Found, FoundKind, Verdict, WalkOptions, open_root, walk,
};

use super::bare::Bare;
use super::program::Run;
use super::refs::Tip;
use super::{Failed, Remote, RemoteError};
use crate::content::{StoreContents, store_layer};
use crate::graph::GitOp;

/// A directory that goes away with its holder.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is the next process's to remove: its name says whose it was.
        let _ = fs_err::remove_dir_all(&self.0);
    }
}

impl Remote<'_> {
    /// Checks a commit out and stores its files; gives the layer and the time of the commit.
    pub(super) fn check_out(
        &self,
        op: &GitOp,
        bare: &Bare<'_>,
        tip: &Tip,
    ) -> Result<(Digest, i64), RemoteError> {
        let git = bare.git.at(Some(&bare.path));
        let time = git.local(&[
            "log",
            "-1",
            "--no-show-signature",
            "--format=%ct",
            &tip.object,
        ])?;
        let time: i64 = String::from_utf8_lossy(&time).trim().parse().unwrap_or(0);
        let part = self.check_part(op, git, tip)?;
        let submodules = op.submodules
            && git.succeeds(&["cat-file", "-e", &format!("{}:.gitmodules", tip.commit)])?;
        let keep = op.keep_git_dir && op.subdir.is_empty();
        let failed = |error: std::io::Error| {
            RemoteError::caused(Failed::Store, "cannot check a repository out", error)
        };
        let dir = Scratch(self.store.temporary().map_err(RemoteError::store)?);
        fs_err::create_dir(&dir.0).map_err(failed)?;
        let work = bare.git.at(Some(&dir.0));
        work.local(&["init", "--quiet", "--template=", "."])?;
        work.local(&["remote", "add", "origin", bare.git.url()])?;
        if keep {
            fetch_kept(work, bare, tip)?;
        } else {
            borrow(&dir.0, &bare.path).map_err(failed)?;
        }
        if part.is_some() && !submodules {
            work.local(&[
                "checkout",
                "--quiet",
                "--force",
                &tip.commit,
                "--",
                &op.subdir,
            ])?;
        } else {
            work.local(&["checkout", "--quiet", "--force", "--detach", &tip.commit])?;
        }
        if submodules {
            update_submodules(work)?;
        }
        if keep {
            let _ = fs_err::remove_file(dir.0.join(".git/FETCH_HEAD"));
        }
        let root = dir.0.join(&op.subdir);
        let layer = self.layer_of(&root, keep, op.commit_times.then_some(time))?;
        Ok((layer, time))
    }

    /// Whether only a part is taken, and that it is a directory; that all of it is within the limits.
    ///
    /// Git's own names are asked, so a symbolic link in the repository leads nowhere.
    fn check_part<'o>(
        &self,
        op: &'o GitOp,
        git: Run<'_>,
        tip: &Tip,
    ) -> Result<Option<&'o str>, RemoteError> {
        let part = Some(op.subdir.as_str()).filter(|subdir| !subdir.is_empty());
        let object = match part {
            None => tip.commit.clone(),
            Some(subdir) => format!("{}:{subdir}", tip.commit),
        };
        if let Some(subdir) = part {
            let is_dir = git.succeeds(&["cat-file", "-e", &object])?
                && git.local(&["cat-file", "-t", &object])?.trim_ascii() == b"tree";
            if !is_dir {
                let message = format!(
                    "{} has no directory {subdir} at commit {}",
                    op.remote, tip.commit
                );
                return Err(RemoteError::new(Failed::NotFound, message));
            }
        }
        let mut count = Count::default();
        git.each(
            &["ls-tree", "-r", "-z", "--long", &object],
            false,
            &mut |bytes| {
                count.add(bytes);
                if count.entries > self.limits.entries || count.bytes > self.limits.files {
                    let message = format!(
                        "{} has more than {} files or {} bytes at commit {}",
                        op.remote, self.limits.entries, self.limits.files, tip.commit
                    );
                    return Err(RemoteError::new(Failed::TooLarge, message));
                }
                Ok(())
            },
        )?;
        Ok(part)
    }

    /// Stores the files of a checkout.
    fn layer_of(&self, root: &Path, keep: bool, time: Option<i64>) -> Result<Digest, RemoteError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            RemoteError::caused(Failed::Store, "cannot read a checked out repository", error)
        };
        let root = open_root(root).map_err(|error| failed(error.into()))?;
        let mut filter = |found: &Found<'_>| {
            let is_git = found.path.rsplit(|byte| *byte == b'/').next() == Some(b".git");
            // Git tracks nothing of that name: it is the repository's own, or a submodule's.
            if is_git && !keep {
                return Verdict::Leave;
            }
            match found.kind {
                FoundKind::Socket | FoundKind::Special => Verdict::Leave,
                _ => Verdict::Take,
            }
        };
        let options = WalkOptions {
            owner: Some((0, 0)),
            filter: Some(&mut filter),
        };
        let mut tree = walk(root.as_fd(), options).map_err(|error| failed(error.into()))?;
        settle(&mut tree, time);
        let layer = Layer::of_tree(&tree);
        let contents = DirContents::new(root);
        let stored = store_layer(
            self.store,
            &layer,
            &StoreContents::with_paths(self.store, &contents),
        )
        .map_err(|error| failed(error.into()))?;
        Ok(stored.diff_id)
    }
}

/// Modes as git knows them, whatever the umask is, and the time of the commit where it is asked for.
fn settle(tree: &mut Tree, time: Option<i64>) {
    let all: Vec<InodeId> = tree.walk().map(|(_, id)| id).collect();
    for id in all {
        let mode = match &tree[id].kind {
            Kind::Dir(_) => 0o755,
            Kind::File(_) if tree[id].meta.mode & 0o100 == 0 => 0o644,
            Kind::File(_) => 0o755,
            _ => tree[id].meta.mode,
        };
        let meta = tree.meta_mut(id);
        meta.mode = mode;
        if let Some(secs) = time {
            meta.mtime = Time { secs, nanos: 0 };
        }
    }
}

/// Lets a checkout use the objects of the bare repository where they are.
fn borrow(work: &Path, bare: &Path) -> std::io::Result<()> {
    let info = work.join(".git/objects/info");
    fs_err::create_dir_all(&info)?;
    let bare = std::path::absolute(bare)?;
    let mut line = bare.join("objects").into_os_string();
    line.push("\n");
    use std::os::unix::ffi::OsStrExt as _;
    fs_err::write(info.join("alternates"), line.as_bytes())?;
    let shallow = bare.join("shallow");
    if shallow.exists() {
        fs_err::copy(shallow, work.join(".git/shallow"))?;
    }
    Ok(())
}

/// Gives a checkout whose `.git` stays the objects of its one revision, and its branch or tag.
fn fetch_kept(work: Run<'_>, bare: &Bare<'_>, tip: &Tip) -> Result<(), RemoteError> {
    let source = std::path::absolute(&bare.path)
        .map_err(|error| RemoteError::caused(Failed::Store, "cannot find the store", error))?;
    let source = format!("file://{}", source.display());
    let name = match tip.full.as_str() {
        full if full.starts_with("refs/") => full.to_owned(),
        _ => "refs/firebuild/source".to_owned(),
    };
    let wanted = format!("+{}:{name}", tip.object);
    work.with_files().local(&[
        "fetch",
        "--quiet",
        "--no-tags",
        "--depth=1",
        "--update-head-ok",
        "--",
        &source,
        &wanted,
    ])?;
    Ok(())
}

/// Fetches submodules; one revision of each, or all where a server cannot do that.
fn update_submodules(work: Run<'_>) -> Result<(), RemoteError> {
    let shallow = work.server(&[
        "submodule",
        "update",
        "--progress",
        "--init",
        "--recursive",
        "--force",
        "--depth=1",
    ]);
    match shallow {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == Failed::Cancelled => Err(error),
        Err(_) => work
            .server(&[
                "submodule",
                "update",
                "--progress",
                "--init",
                "--recursive",
                "--force",
            ])
            .map(|_| ()),
    }
}

/// Counts the entries of `git ls-tree -r -z --long`: `MODE TYPE OBJECT SIZE\tPATH\0`.
#[derive(Debug, Default)]
struct Count {
    entries: u64,
    bytes: u64,
    /// The line so far, up to its tab; nothing after that.
    line: Vec<u8>,
    in_path: bool,
}

impl Count {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                0 => {
                    self.entries += 1;
                    self.in_path = false;
                    self.line.clear();
                }
                b'\t' if !self.in_path => {
                    let size = self.line.rsplit(|byte| *byte == b' ').next();
                    let size = size.and_then(|size| std::str::from_utf8(size).ok());
                    let size: u64 = size.and_then(|size| size.parse().ok()).unwrap_or(0);
                    self.bytes = self.bytes.saturating_add(size);
                    self.in_path = true;
                }
                _ if self.in_path => {}
                _ if self.line.len() < 256 => self.line.push(byte),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn entries_are_counted_wherever_the_output_is_cut() {
        let text = b"100644 blob 0123      12\ta\tb\x00120000 blob 4567       3\tl\x00160000 commit 89       -\ts\x00";
        for cut in 0..text.len() {
            let mut count = Count::default();
            count.add(&text[..cut]);
            count.add(&text[cut..]);
            assert_eq!((count.entries, count.bytes), (3, 15), "{cut}");
        }
    }
}
