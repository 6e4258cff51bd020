//! Making room: which things go, and taking them away while others work.
//!
//! What can go is chosen from an [`crate::Item`] list without any lock. Then names are taken away in small batches, each
//! under the store's lock for a moment in which nobody can begin to use anything: what was used, renewed or named by an
//! image since the list was made stays. Removing the content, which may take long, follows without a lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use firebuild_oci::Digest;

use crate::error::{At, StoreError, StoreErrorKind};
use crate::inventory::{Identity, Item, Kind, entries};
use crate::lease;
use crate::reuse::note_of;
use crate::store::Store;

/// Names that are taken away in one moment.
const BATCH: usize = 64;
/// How long a moment without uses is waited for. Only a process that could write no lease keeps the lock for longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Removes a directory with all in it. Files of snapshots may belong to sub-ids, which only some process may remove.
pub type RemoveTree<'a> = &'a dyn Fn(&Path) -> io::Result<()>;

/// What shall go.
pub struct Policy<'a> {
    /// Also what an image could use again: its step records, exported images, cache mounts.
    pub all: bool,
    /// Only what was not used for this long.
    pub unused_for: Duration,
    /// Only these kinds; none means every kind.
    pub kinds: Vec<Kind>,
    /// Stop when the store takes no more than this; what was used longest ago goes first.
    pub keep_bytes: Option<u64>,
    /// Only say what would go.
    pub dry_run: bool,
    /// How directories are removed.
    pub remove_tree: RemoveTree<'a>,
}

impl fmt::Debug for Policy<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Policy")
            .field("all", &self.all)
            .field("unused_for", &self.unused_for)
            .field("kinds", &self.kinds)
            .field("keep_bytes", &self.keep_bytes)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// What went.
#[derive(Debug, Default)]
pub struct Pruned {
    /// What is gone, or would be.
    pub items: Vec<Item>,
    /// What could not be removed, and why. It is tried again the next time.
    pub failed: Vec<(PathBuf, io::Error)>,
}

impl Pruned {
    /// Bytes on the disk that went.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }
}

/// What images need, read again when the references have changed.
#[derive(Default)]
struct Needed {
    index: Option<Identity>,
    digests: BTreeMap<Digest, BTreeSet<String>>,
}

impl Needed {
    fn now(&mut self, store: &Store) -> Result<&BTreeMap<Digest, BTreeSet<String>>, StoreError> {
        let index = fs_err::symlink_metadata(store.root.join("index.json"))
            .ok()
            .map(|meta| Identity::of(&meta));
        if index.is_none() || index != self.index {
            self.digests = store.needed_by_references()?;
            self.index = index;
        }
        Ok(&self.digests)
    }
}

/// What goes together: a layer and the records that name it.
struct Unit {
    items: Vec<usize>,
    last_used: SystemTime,
    bytes: u64,
}

impl Store {
    /// Removes what `policy` says of `items`, which [`Store::inventory`] gave; callers may have added images and users to
    /// them. What is used, or what an image needs, stays in any case.
    ///
    /// # Errors
    /// [`StoreErrorKind::Busy`] when some process uses the store without being able to say what. When the references
    /// cannot be read nothing more is removed. What cannot be removed is in the report.
    pub fn prune(
        &self,
        items: &[Item],
        policy: &Policy<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Pruned, StoreError> {
        let mut gone = Pruned::default();
        let chosen = choose(items, policy, SystemTime::now());
        if policy.dry_run {
            gone.items = chosen.iter().map(|index| items[*index].clone()).collect();
            return Ok(gone);
        }
        let mut needed = Needed::default();
        for batch in chosen.chunks(BATCH) {
            if stop() {
                break;
            }
            let batch: Vec<&Item> = batch.iter().map(|index| &items[*index]).collect();
            let trash = self.take_names(&batch, &mut needed, &mut gone, stop)?;
            for (path, item) in trash {
                let is_dir = fs_err::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
                let removed = if is_dir {
                    (policy.remove_tree)(&path)
                } else {
                    fs_err::remove_file(&path)
                };
                match removed {
                    Ok(()) => gone.items.push(item.clone()),
                    Err(error) => gone.failed.push((item.path.clone(), error)),
                }
            }
        }
        // Whoever died left them; one that is taken again in between stays.
        entries(&self.root.join("locks"), 0, &mut |path| {
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                drop(self.try_lock(name));
            }
        });
        self.open.forget();
        Ok(gone)
    }

    /// Renames what may still go, and gives the new names.
    fn take_names<'i>(
        &self,
        batch: &[&'i Item],
        needed: &mut Needed,
        gone: &mut Pruned,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<(PathBuf, &'i Item)>, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        // Names are made before, so that the moment is short.
        let aside: Vec<PathBuf> = batch
            .iter()
            .map(|item| {
                let name = self.session.unique()?;
                Ok(match item.kind {
                    Kind::Snapshot => self.root.join("snapshots").join(format!("active-{name}")),
                    _ => self.root.join("tmp").join(name),
                })
            })
            .collect::<Result<_, StoreError>>()?;
        let Some(gate) = self
            .leases
            .shut_out(&|| stop() || Instant::now() > deadline)?
        else {
            return Err(StoreError::new(
                StoreErrorKind::Busy,
                format!(
                    "the store at {} is used by a process that cannot say what it uses; try again when it has ended",
                    self.root.display()
                ),
            ));
        };
        let users = lease::of_the_living(&self.root);
        let own = gate.own_uses();
        let needed = needed.now(self)?;
        let mut trash = Vec::new();
        for (item, aside) in batch.iter().copied().zip(aside) {
            let same = fs_err::symlink_metadata(&item.path)
                .is_ok_and(|meta| Identity::of(&meta) == item.identity);
            let name = item.path.strip_prefix(&self.root).unwrap_or(&item.path);
            let wanted = item
                .name
                .parse::<Digest>()
                .is_ok_and(|digest| needed.contains_key(&digest));
            if !same || wanted || users.contains_key(name) || own.contains(name) {
                continue;
            }
            match fs_err::rename(&item.path, &aside) {
                Ok(()) => {
                    if item.kind == Kind::Artifact {
                        let _ = fs_err::remove_file(note_of(&item.path));
                    }
                    trash.push((aside, item));
                }
                Err(error) => gone.failed.push((item.path.clone(), error)),
            }
        }
        drop(gate);
        Ok(trash)
    }

    /// Makes a directory, if it is not there, and holds it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn hold_dir(&self, path: &Path) -> Result<(), StoreError> {
        if self.hold(path) {
            return Ok(());
        }
        self.hold_new(path, || {
            fs_err::create_dir_all(path).at("cannot make directory", path)
        })
    }
}

/// What goes, what was used longest ago first; positions in `items`.
fn choose(items: &[Item], policy: &Policy<'_>, now: SystemTime) -> Vec<usize> {
    let since = now
        .checked_sub(policy.unused_for)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let mut by_key: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        if item.kind == Kind::Record {
            for key in &item.records {
                by_key.entry(key).or_default().push(index);
            }
        }
    }
    let mut units: Vec<Unit> = Vec::new();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if item.kind != Kind::Record && may_go(item, policy) {
            let mut unit = Unit {
                items: Vec::new(),
                last_used: item.last_used,
                bytes: item.bytes,
            };
            // Records first: one without its layer is of no use, a layer without records still is.
            for key in &item.records {
                taken.insert(key);
                for record in by_key.get(key.as_str()).into_iter().flatten() {
                    unit.items.push(*record);
                    unit.bytes += items[*record].bytes;
                }
            }
            unit.items.push(index);
            units.push(unit);
        }
    }
    for (index, item) in items.iter().enumerate() {
        let alone = item.kind == Kind::Record
            && !item.records.iter().any(|key| taken.contains(key.as_str()));
        if alone && may_go(item, policy) {
            units.push(Unit {
                items: vec![index],
                last_used: item.last_used,
                bytes: item.bytes,
            });
        }
    }
    units.retain(|unit| unit.last_used <= since);
    units.sort_by_key(|unit| unit.last_used);
    let mut left: u64 = items.iter().map(|item| item.bytes).sum();
    let mut chosen = Vec::new();
    let mut seen = BTreeSet::new();
    for unit in units {
        if policy.keep_bytes.is_some_and(|keep| left <= keep) {
            break;
        }
        left = left.saturating_sub(unit.bytes);
        chosen.extend(unit.items.into_iter().filter(|index| seen.insert(*index)));
    }
    chosen
}

/// Whether something may go at all.
fn may_go(item: &Item, policy: &Policy<'_>) -> bool {
    if !item.users.is_empty() {
        return false;
    }
    let asked_for = policy.kinds.contains(&item.kind);
    if !policy.kinds.is_empty() && !asked_for {
        return false;
    }
    let useful = policy.all || asked_for;
    match item.kind {
        Kind::Image | Kind::Layer => item.images.is_empty(),
        Kind::Record => useful || item.dangling || item.images.is_empty(),
        Kind::Artifact => useful || item.images.is_empty(),
        Kind::Mount => useful,
        Kind::Snapshot | Kind::Source | Kind::Temporary => true,
    }
}

#[cfg(test)]
mod tests;
