//! Garbage collection: mark what is reachable, sweep the rest.
//!
//! ```text
//!   references ──▶ manifests ──▶ configurations, layers ──▶ snapshots of these layers
//!   cache records used lately ──▶ every digest that stands in them
//! ```
//!
//! Everything reachable stays. All else stays as long as it was used lately ([`GcPolicy::unused_for`]): a cache record or
//! an artifact is used when it is found, the rest when it was made. It runs alone, with the store's lock held exclusively,
//! so it needs no account of what other processes are about to use.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use firebuild_oci::document::MAX_MANIFEST_BYTES;
use firebuild_oci::{Digest, Document};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::error::{At, StoreError, StoreErrorKind};
use crate::recover::{changed, held};
use crate::store::Store;
use crate::usage::{Part, entries, tree_bytes};

/// How often it looks whether others have closed the store.
const LOOK: Duration = Duration::from_millis(50);
/// A record is only read as one up to this size, bytes.
const MAX_RECORD: u64 = 4 << 20;

/// What may go.
pub struct GcPolicy<'a> {
    /// What no image needs stays if it was used within this time.
    pub unused_for: Duration,
    /// Only say what would go.
    pub dry_run: bool,
    /// Removes a directory with all in it. Files of snapshots may belong to sub-ids, which only some process may remove.
    pub remove_tree: &'a dyn Fn(&Path) -> io::Result<()>,
}

impl std::fmt::Debug for GcPolicy<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("GcPolicy")
            .field("unused_for", &self.unused_for)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// What went.
#[derive(Debug, Default)]
pub struct GcReport {
    /// Blobs.
    pub blobs: Part,
    /// Snapshots, stale ones included.
    pub snapshots: Part,
    /// Exported images.
    pub artifacts: Part,
    /// Results of build steps.
    pub cache: Part,
    /// What dead processes left.
    pub temporary: Part,
    /// What could not be removed, and why. It is tried again the next time.
    pub failed: Vec<(PathBuf, io::Error)>,
}

impl GcReport {
    /// Bytes on the disk that went.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        [
            self.blobs,
            self.snapshots,
            self.artifacts,
            self.cache,
            self.temporary,
        ]
        .iter()
        .map(|part| part.bytes)
        .sum()
    }
}

impl Store {
    /// Removes what nothing needs. Waits until no other process has the store open, or `stop` says so.
    ///
    /// # Errors
    /// [`StoreErrorKind::Busy`] when `stop` ended the wait. When the references or a manifest cannot be read nothing is
    /// removed: what they need is not known then. What cannot be removed is in the report.
    pub fn collect_garbage(
        &mut self,
        policy: &GcPolicy<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<GcReport, StoreError> {
        loop {
            match flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if !stop() => std::thread::sleep(LOOK),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    // The attempt to convert may have cost the shared lock.
                    flock(&self.lock, FlockOperation::LockShared).at("cannot lock", &self.root)?;
                    return Err(StoreError::new(
                        StoreErrorKind::Busy,
                        format!(
                            "the store at {} is in use: try again when no build or pull runs",
                            self.root.display()
                        ),
                    ));
                }
                Err(error) => return Err(error).at("cannot lock", &self.root),
            }
        }
        let result = self.collect(policy);
        flock(&self.lock, FlockOperation::LockShared).at("cannot lock", &self.root)?;
        result
    }

    fn collect(&self, policy: &GcPolicy<'_>) -> Result<GcReport, StoreError> {
        let mut sweep = Sweep {
            policy,
            since: SystemTime::now()
                .checked_sub(policy.unused_for)
                .unwrap_or(SystemTime::UNIX_EPOCH),
            report: GcReport::default(),
        };
        let mut live = self.marked_by_references()?;
        // Records first: those that stay keep their layers.
        let mut part = Part::default();
        entries(&self.root.join("cache"), 1, &mut |path| {
            if sweep.is_old(path) {
                sweep.remove(path, &mut part);
            } else {
                mark_record(path, &mut live);
            }
        });
        sweep.report.cache = part;
        let named = |path: &Path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| Digest::from_hex(name).ok())
        };
        for (directory, depth, slot) in [
            ("snapshots", 0, 0),
            ("artifacts", 1, 1),
            ("blobs", 1, 2),
            ("tmp", 0, 3),
            ("locks", 0, 4),
        ] {
            let mut part = Part::default();
            entries(&self.root.join(directory), depth, &mut |path| {
                let keep = match slot {
                    // Nobody else has the store open, so what is not ours under a temporary name is nobody's.
                    0 if path
                        .file_name()
                        .is_some_and(|name| name.to_string_lossy().starts_with("active-")) =>
                    {
                        self.is_ours(path, "active-")
                    }
                    3 => self.is_ours(path, ""),
                    4 => held(path),
                    _ => {
                        named(path).is_some_and(|digest| live.contains(&digest))
                            || !sweep.is_old(path)
                    }
                };
                if !keep {
                    sweep.remove(path, &mut part);
                }
            });
            match slot {
                0 => sweep.report.snapshots = part,
                1 => sweep.report.artifacts = part,
                2 => sweep.report.blobs = part,
                3 => sweep.report.temporary = part,
                _ => {}
            }
        }
        if !policy.dry_run {
            self.open.forget();
        }
        Ok(sweep.report)
    }

    fn is_ours(&self, path: &Path, prefix: &str) -> bool {
        let mine = format!("{prefix}{}.", self.session.id());
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&mine))
    }

    fn marked_by_references(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let mut live = BTreeSet::new();
        for record in self.list_refs()? {
            live.insert(record.manifest);
            let bytes = match self.read_blob(&record.manifest, MAX_MANIFEST_BYTES) {
                Ok(bytes) => bytes,
                // The image is lost already, and needs nothing.
                Err(error) if error.kind() == StoreErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match Document::parse(&bytes, "") {
                Ok(Document::Manifest(manifest)) => {
                    live.insert(manifest.config.digest);
                    live.extend(manifest.layers.iter().map(|layer| layer.digest));
                }
                Ok(Document::Index(index)) => {
                    live.extend(index.manifests.iter().map(|entry| entry.digest))
                }
                Err(error) => {
                    return Err(StoreError::new(
                        StoreErrorKind::Corrupt,
                        format!("cannot tell what image {} needs: {error}", record.name),
                    ));
                }
            }
        }
        Ok(live)
    }
}

/// Every `sha256:…` that stands in a record keeps the blob of that name; the store knows no more about records.
fn mark_record(path: &Path, live: &mut BTreeSet<Digest>) {
    if fs_err::symlink_metadata(path).map_or(u64::MAX, |meta| meta.len()) > MAX_RECORD {
        return;
    }
    let Some(value) = fs_err::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
    else {
        return;
    };
    let mut todo = vec![&value];
    while let Some(value) = todo.pop() {
        match value {
            Value::String(text) => live.extend(text.parse::<Digest>()),
            Value::Array(values) => todo.extend(values),
            Value::Object(values) => todo.extend(values.values()),
            _ => {}
        }
    }
}

struct Sweep<'a> {
    policy: &'a GcPolicy<'a>,
    since: SystemTime,
    report: GcReport,
}

impl Sweep<'_> {
    /// Whether something was neither made nor used lately.
    fn is_old(&self, path: &Path) -> bool {
        fs_err::symlink_metadata(path).is_ok_and(|meta| changed(&meta) <= self.since)
    }

    fn remove(&mut self, path: &Path, part: &mut Part) {
        let Ok(meta) = fs_err::symlink_metadata(path) else {
            return;
        };
        let bytes = if meta.is_dir() {
            tree_bytes(path)
        } else {
            meta.blocks() * 512
        };
        if !self.policy.dry_run {
            let removed = if meta.is_dir() {
                self.remove_tree(path)
            } else {
                fs_err::remove_file(path)
            };
            if let Err(error) = removed {
                self.report.failed.push((path.to_owned(), error));
                return;
            }
        }
        part.add(bytes);
    }

    /// Takes the name away first: a snapshot that is half removed must not be found.
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let named = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| !name.starts_with("active-"));
        match path.parent() {
            Some(parent) if named && parent.ends_with("snapshots") => {
                let stale = parent.join(format!("active-gone-{}.0", crate::session::unique_id()));
                fs_err::rename(path, &stale)?;
                (self.policy.remove_tree)(&stale)
            }
            _ => (self.policy.remove_tree)(path),
        }
    }
}
