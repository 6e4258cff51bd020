//! Chains as directories.
//!
//! Each layer of a chain is a directory that holds what the layer changes, in the form that overlayfs reads. It is
//! computed from trees, not from the archive: the difference between the tree below and the tree above, with every
//! directory on the way, so that whatever an archive may say, the overlay shows exactly the tree. Its name comes from the
//! chain that it completes, and in a user namespace from the maps as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebuild_oci::Digest;
use firebuild_rootfs::diff::snapshot_layer;
use firebuild_rootfs::layer::{Change, Entry, Layer};
use firebuild_rootfs::tree::{Content, Follow, Inode, InodeId, Kind, Meta, Tree};
use firebuild_rootfs::unpack::Skipped;
use firebuild_store::StoreError;

use super::Sandbox;
use crate::cancel::Cancel;
use crate::chain::{Chain, ChainLayer};
use crate::content::read_layer;
use crate::exec::{ExecError, ExecErrorKind};
use firebuild_sandbox::job::{Job, Reply, UPPER, UnpackJob};
use firebuild_sandbox::{codec, skipped};

/// Beside a snapshot's files: what of them could not be made.
pub(super) const SKIPPED: &str = "skipped";

/// Longer chains are made flat up to a multiple of half of this. Overlayfs takes 500 layers one by one, since Linux 6.7;
/// before, the names of all have to fit on a page.
pub(super) fn most_lowers() -> usize {
    match kernel(&rustix::system::uname().release().to_string_lossy()) {
        Some(version) if version >= (6, 7) => 400,
        _ => 128,
    }
}

/// The first two numbers of a kernel's release.
fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn base(
    context: impl Into<String>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ExecError {
    ExecError::caused(ExecErrorKind::Base, context, source)
}

/// The snapshots that one step needs.
pub(super) struct Snapshots<'a> {
    sandbox: &'a Sandbox<'a>,
    cancel: &'a Cancel,
}

impl<'a> Snapshots<'a> {
    pub(super) fn new(sandbox: &'a Sandbox<'a>, cancel: &'a Cancel) -> Self {
        Self { sandbox, cancel }
    }

    /// The tree of a chain.
    pub(super) fn tree(&self, chain: &Chain) -> Result<Arc<Tree>, ExecError> {
        chain
            .tree(self.sandbox.store)
            .map_err(|error| base("cannot read the layers below the step", error))
    }

    /// The lower directories that show a chain, lowest first, and what they lack. Those that are missing are made.
    pub(super) fn chain(&self, chain: &Arc<Chain>) -> Result<(Vec<PathBuf>, Skipped), ExecError> {
        let layers = chain.layers();
        let ids = chain.ids();
        let most = self.sandbox.most_lowers;
        let flat = if layers.len() > most {
            (layers.len() - 1) / (most / 2) * (most / 2)
        } else {
            0
        };
        // Which prefixes of the chain a directory completes. The empty chain is one, too: an empty directory.
        let stops: Vec<usize> = if flat > 0 {
            (flat..=layers.len()).collect()
        } else if layers.is_empty() {
            vec![0]
        } else {
            (1..=layers.len()).collect()
        };
        let names: Vec<Digest> = stops
            .iter()
            .map(|stop| self.name(&ids[*stop], flat > 0 && *stop == flat))
            .collect::<Result<_, _>>()?;
        self.make_missing(chain, &layers, &stops, &names)?;

        let mut lacking = Skipped::default();
        let mut lowers = Vec::with_capacity(names.len());
        for name in &names {
            skipped::from_text(&self.sandbox.lacking(name), &mut lacking);
            lowers.push(self.sandbox.store.snapshot_path(name).join(UPPER));
        }
        Ok((lowers, lacking))
    }

    /// A layer to lie below all others: the places of what every step is shown. Where an image lacks them, nothing has
    /// to be made and removed again for each of its steps, and no place is left behind; where it has them, it hides these.
    pub(super) fn places(&self) -> Result<PathBuf, ExecError> {
        let store = self.sandbox.store;
        let maps = &self.sandbox.namespace()?.maps;
        let name = Digest::of(format!("places/1 {maps}"));
        if !self.sandbox.has_used(&name) && store.snapshot(&name).is_none() {
            self.make(&name, &places())?;
        }
        self.sandbox.lacking(&name);
        Ok(store.snapshot_path(&name).join(UPPER))
    }

    /// What a snapshot is called.
    fn name(&self, chain: &Digest, flat: bool) -> Result<Digest, ExecError> {
        let maps = &self.sandbox.namespace()?.maps;
        if maps.is_empty() && !flat {
            return Ok(*chain);
        }
        let kind = if flat { "flat" } else { "layer" };
        Ok(Digest::of(format!("{kind} {chain} {maps}")))
    }

    fn make_missing(
        &self,
        chain: &Arc<Chain>,
        layers: &[ChainLayer],
        stops: &[usize],
        names: &[Digest],
    ) -> Result<(), ExecError> {
        let store = self.sandbox.store;
        let missing = |index: &usize| {
            let name = &names[*index];
            !self.sandbox.has_used(name) && store.snapshot(name).is_none()
        };
        let Some(first) = (0..stops.len()).find(missing) else {
            return Ok(());
        };
        // Another process may be at it; what it has made by then is not made again.
        let stop = || self.cancel.is_raised();
        let lock_name = format!("snapshot-{}", names[first].to_hex());
        let Some(_lock) = store
            .lock(&lock_name, &stop)
            .map_err(|error| base("cannot lock a snapshot", error))?
        else {
            return Err(ExecError::new(
                ExecErrorKind::Cancelled,
                "the step was stopped",
            ));
        };
        if !(0..stops.len()).any(|index| missing(&index)) {
            return Ok(());
        }
        if stops.len() == 1 {
            // The usual case, an image of one layer: the chain's own tree is at hand.
            return self.make(
                &names[first],
                &snapshot_layer(&Tree::new(), &*self.tree(chain)?),
            );
        }

        // Mostly only the last ones are missing, and the image at the bottom has its tree.
        let most = first.checked_sub(1).map_or(0, |before| stops[before]);
        let (mut done, tree) = chain.nearest(most).unwrap_or_default();
        let mut below = Arc::unwrap_or_clone(tree);
        let known = stops.partition_point(|stop| *stop <= done);
        for (index, stop) in stops.iter().enumerate().skip(known) {
            let is_missing = missing(&index);
            let mut above = if is_missing {
                below.clone()
            } else {
                std::mem::take(&mut below)
            };
            for layer in &layers[done..*stop] {
                if self.cancel.is_raised() {
                    return Err(ExecError::new(
                        ExecErrorKind::Cancelled,
                        "the step was stopped",
                    ));
                }
                let entries = read_layer(store, &layer.diff_id)
                    .map_err(|error| base("cannot read a layer", error))?;
                above.apply(&entries).map_err(|error| {
                    base(format!("cannot apply layer {}", layer.diff_id), error)
                })?;
            }
            done = *stop;
            if is_missing {
                self.make(&names[index], &snapshot_layer(&below, &above))?;
            }
            below = above;
        }
        Ok(())
    }

    /// Makes one snapshot.
    fn make(&self, name: &Digest, layer: &Layer) -> Result<(), ExecError> {
        let store = self.sandbox.store;
        let fail = |error: StoreError| base("cannot store a snapshot", error);
        let active = store.prepare_snapshot().map_err(fail)?;
        let made = self
            .unpack(layer, &active.path().join(UPPER))
            .and_then(|skipped| {
                self.note(active.path(), &skipped)?;
                store.commit_snapshot(active.path(), name).map_err(fail)
            });
        match made {
            Ok(None) => Ok(()),
            Ok(Some(duplicate)) => self.sandbox.remove(&[duplicate]),
            Err(error) => {
                let _ = self.sandbox.remove(&[active.path().to_owned()]);
                Err(error)
            }
        }
    }

    fn note(&self, snapshot: &Path, text: &str) -> Result<(), ExecError> {
        if text.is_empty() {
            return Ok(());
        }
        fs_err::write(snapshot.join(SKIPPED), text)
            .map_err(|error| base("cannot complete a snapshot", error))
    }

    /// Makes files in a directory, and gives the text of what could not be made.
    fn unpack(&self, layer: &Layer, directory: &Path) -> Result<String, ExecError> {
        let blobs = self.sandbox.store.blob_path(&Digest::of(b""));
        let blobs = blobs.parent().map(Path::to_owned).unwrap_or_default();
        let job = Job::Unpack(UnpackJob {
            directory: directory.to_owned(),
            blobs,
        });
        let mut running = self.sandbox.start(job)?;
        let sent = codec::send(&running.link, layer);
        // Why it stopped to listen is the better reason.
        let (reply, _) = running.reply_unless(self.cancel)?;
        sent.map_err(|error| base("cannot tell the sandbox what to unpack", error))?;
        match reply {
            Reply::Unpacked { skipped } => {
                running.finish()?;
                Ok(skipped)
            }
            other => Err(ExecError::new(
                ExecErrorKind::Host,
                format!("the sandbox answered with {other:?}"),
            )),
        }
    }

    /// Makes a complete copy of a tree, for a step that runs without overlay.
    pub(super) fn copy(&self, tree: &Tree, directory: &Path) -> Result<Skipped, ExecError> {
        let text = self.unpack(&Layer::of_tree(tree), directory)?;
        let mut lacking = Skipped::default();
        skipped::from_text(&text, &mut lacking);
        Ok(lacking)
    }

    /// Fills a new cache directory with what `source` of a chain holds. One that is there already stays as it is.
    pub(super) fn seed(
        &self,
        chain: &Arc<Chain>,
        source: &str,
        directory: &Path,
    ) -> Result<(), ExecError> {
        let target = directory.join(UPPER);
        if rustix::fs::lstat(&target).is_ok() {
            return Ok(());
        }
        let tree = self.tree(chain)?;
        let step = |error| {
            ExecError::caused(
                ExecErrorKind::Step,
                format!("cannot seed a cache with {source}"),
                error,
            )
        };
        let id = tree.lookup(source.as_bytes(), Follow::All).map_err(step)?;
        if !tree[id].is_dir() {
            let message = format!("cannot seed a cache with {source}, which is no directory");
            return Err(ExecError::new(ExecErrorKind::Step, message));
        }
        // Whole or not at all: two builds may be at it at the same time.
        let temporary = directory.join(format!(
            "seed-{}",
            rustix::process::getpid().as_raw_nonzero()
        ));
        self.unpack(&below(&tree, id), &temporary)?;
        match fs_err::rename(&temporary, &target) {
            Ok(()) => Ok(()),
            Err(_) => self.sandbox.remove(&[temporary]),
        }
    }

    /// Makes the upper directory of a step the snapshot of its layer; gives a directory that nobody needs, if there is
    /// one. A snapshot that cannot be kept is made again when it is needed.
    pub(super) fn adopt(
        &self,
        directory: &Path,
        below: &Arc<Chain>,
        diff_id: Digest,
    ) -> Option<PathBuf> {
        let above = below.push(ChainLayer {
            diff_id,
            created: None,
        });
        // Beyond that the chain will be flattened and this snapshot never be looked for.
        let adopted = self
            .name(above.id(), false)
            .ok()
            .and_then(|name| self.sandbox.store.commit_snapshot(directory, &name).ok());
        match adopted {
            Some(None) => None,
            Some(Some(duplicate)) => Some(duplicate),
            None => Some(directory.to_owned()),
        }
    }
}

fn places() -> Layer {
    let meta = |mode| Meta {
        mode,
        ..Meta::default()
    };
    let mut layer = Layer::default();
    for path in ["", "dev", "etc", "proc", "sys"] {
        let node = Inode::new(meta(0o755), Kind::Dir(BTreeMap::new()));
        layer.push(path, Change::Node(node));
    }
    for path in ["etc/hosts", "etc/resolv.conf"] {
        let node = Inode::new(meta(0o644), Kind::File(Content::from_bytes(Vec::new())));
        layer.push(path, Change::Node(node));
    }
    layer.sort();
    layer
}

/// A directory of a tree as a tree of its own.
#[must_use]
pub fn below(tree: &Tree, directory: InodeId) -> Layer {
    let mut first: std::collections::HashMap<InodeId, Vec<u8>> = std::collections::HashMap::new();
    let mut layer = Layer::default();
    for (path, id) in tree.walk_at(directory) {
        let inode = &tree[id];
        let change = match first.get(&id) {
            Some(target) => Change::HardLink(target.clone()),
            None => {
                if inode.names > 1 {
                    first.insert(id, path.clone());
                }
                Change::Node(Inode::new(inode.meta.clone(), inode.kind.bare()))
            }
        };
        layer.entries.push(Entry { path, change });
    }
    layer
}

#[cfg(test)]
mod tests {
    use super::{below, kernel};
    use firebuild_rootfs::dump::{layer_to_text, parse_tree};
    use firebuild_rootfs::tree::Follow;

    #[test]
    fn releases_of_kernels() {
        assert_eq!(kernel("6.18.44-cloud-amd64"), Some((6, 18)));
        assert_eq!(kernel("5.10"), Some((5, 10)));
        assert_eq!(kernel("next"), None);
    }

    #[test]
    fn a_directory_becomes_a_root() {
        let tree = parse_tree("/a/b dir 0700 1:2 5\n/a/b/x file 0644 0:0 0 1 data:x\n/a/b/y link /a/b/x\n/z fifo 0600 0:0 0")
            .unwrap();
        let id = tree.lookup(b"a/b", Follow::All).unwrap();
        let text = layer_to_text(&below(&tree, id));
        assert_eq!(
            text,
            "/ dir 0700 1:2 5\n/x file 0644 0:0 0 1 data:x\n/y link /x\n"
        );
    }
}
