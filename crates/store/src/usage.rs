//! How much room the store takes.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::store::Store;

/// One part of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Blobs, snapshots, artifacts or records; not the files in a snapshot.
    pub count: u64,
    /// Bytes on the disk (allocated, not apparent).
    pub bytes: u64,
}

impl Part {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What takes how much room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Layers, configurations, manifests.
    pub blobs: Part,
    /// Layers as directories. What belongs to sub-ids and cannot be looked into is not counted.
    pub snapshots: Part,
    /// Exported images.
    pub artifacts: Part,
    /// Results of build steps.
    pub cache: Part,
    /// What is being written, or was left.
    pub temporary: Part,
}

impl Usage {
    /// Bytes of everything.
    #[must_use]
    pub fn total(&self) -> u64 {
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
    /// Adds up what is there. Others may add and remove meanwhile, so this is a picture of a moment only.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let part = |name: &str, depth: usize| {
            let mut part = Part::default();
            entries(&self.root.join(name), depth, &mut |path| {
                part.add(tree_bytes(path))
            });
            part
        };
        Usage {
            blobs: part("blobs", 1),
            snapshots: part("snapshots", 0),
            artifacts: part("artifacts", 1),
            cache: part("cache", 1),
            temporary: part("tmp", 0),
        }
    }
}

/// Calls back for everything `depth` levels below `directory`.
pub(crate) fn entries(directory: &Path, depth: usize, each: &mut dyn FnMut(&Path)) {
    let Ok(list) = fs_err::read_dir(directory) else {
        return;
    };
    for path in list.flatten().map(|entry| entry.path()) {
        if depth == 0 {
            each(&path);
        } else {
            entries(&path, depth - 1, each);
        }
    }
}

/// Bytes on the disk of a file or of everything below a directory; a list instead of recursion, since others made it.
pub(crate) fn tree_bytes(path: &Path) -> u64 {
    let mut bytes = 0;
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(meta) = fs_err::symlink_metadata(&path) else {
            continue;
        };
        bytes += meta.blocks() * 512;
        if meta.is_dir() {
            entries(&path, 0, &mut |path| todo.push(path.to_owned()));
        }
    }
    bytes
}
