//! Artifacts that nobody needs any more, as material for new ones.
//!
//! An artifact may have a *note* beside it, `<key>.note`, in which its maker says what is in it. It belongs to the artifact:
//! it counts as part of it, and goes when the artifact goes. A note without artifact says nothing.
//!
//! ```text
//!  artifacts/<kind>/<key>  ──take: alone, not leased──▶  tmp/<session>.<n>  ──adopt──▶  artifacts/<kind>/<other key>
//! ```
//!
//! From the first rename to the second the file is a temporary one like any other: a process that is killed in between
//! leaves what the next one removes.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use firebuild_oci::Digest;
use firebuild_sys::solitude::is_alone;

use crate::error::StoreError;
use crate::inventory::entries;
use crate::lease;
use crate::store::Store;

/// How the name of a note ends.
const NOTE: &str = "note";
/// A longer note is not read.
const MAX_NOTE: u64 = 256 << 20;
/// How long a moment without uses is waited for: it only saves work.
const PATIENCE: Duration = Duration::from_millis(200);

/// Where the note of an artifact is or would be.
pub(crate) fn note_of(artifact: &Path) -> PathBuf {
    artifact.with_extension(NOTE)
}

/// Whether a path in `artifacts/` is that of a note.
pub(crate) fn is_note(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == NOTE)
}

/// An artifact with a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its key.
    pub key: [u8; 32],
    /// When it was made or used last, to some minutes.
    pub last_used: SystemTime,
}

impl Store {
    /// Keeps a note beside an artifact. Best effort: without one, nothing is made of the artifact.
    pub fn put_note(&self, kind: &str, key: &[u8; 32], note: &[u8]) {
        let path = note_of(&self.artifact_path(kind, key));
        // The artifact is found without it, so it may be lost, but not torn: who reads it checks that it is whole.
        let _ = self.replace(&path, note, false);
    }

    /// The first `most` bytes of an artifact's note.
    #[must_use]
    pub fn note(&self, kind: &str, key: &[u8; 32], most: u64) -> Option<Vec<u8>> {
        let file = File::open(note_of(&self.artifact_path(kind, key))).ok()?;
        let mut bytes = Vec::new();
        let most = most.min(MAX_NOTE);
        file.take(most).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// The artifacts of a kind that have a note, the latest first.
    #[must_use]
    pub fn noted(&self, kind: &str) -> Vec<Noted> {
        let mut found = Vec::new();
        entries(&self.root.join("artifacts").join(kind), 0, &mut |path| {
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(key) = name.and_then(|name| Digest::from_hex(name).ok())
                && note_of(path).exists()
                && let Ok(meta) = fs_err::symlink_metadata(path)
            {
                found.push(Noted {
                    key: *key.as_bytes(),
                    last_used: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                });
            }
        });
        found.sort_by_key(|noted| (std::cmp::Reverse(noted.last_used), noted.key));
        found
    }

    /// Takes an artifact's name away and gives its file, under `tmp/`, to be made into something else. Nothing where some
    /// process uses it or has it open, where it has another name besides, or where `in_use` says so. That is asked in a
    /// moment in which no process can begin to use anything, after the leases were read: what a process notes elsewhere
    /// before it gives its lease up is seen.
    ///
    /// # Errors
    /// When the session cannot be begun.
    pub fn take_artifact(
        &self,
        kind: &str,
        key: &[u8; 32],
        in_use: &dyn Fn(&Path) -> bool,
    ) -> Result<Option<(PathBuf, File)>, StoreError> {
        let path = self.artifact_path(kind, key);
        let aside = self.temporary()?;
        let deadline = Instant::now() + PATIENCE;
        let Some(gate) = self.leases.shut_out(&|| Instant::now() > deadline)? else {
            return Ok(None);
        };
        let name = path.strip_prefix(&self.root).unwrap_or(&path);
        if lease::of_the_living(&self.root).contains_key(name)
            || gate.own_uses().contains(name)
            || in_use(&path)
        {
            return Ok(None);
        }
        let Ok(file) = File::options().read(true).write(true).open(&path) else {
            return Ok(None);
        };
        // The name goes first: who looks after that finds nothing to open.
        if fs_err::rename(&path, &aside).is_err() {
            return Ok(None);
        }
        let single = file
            .metadata()
            .is_ok_and(|meta| meta.is_file() && meta.nlink() == 1);
        if !single || !is_alone(&file) {
            // Where it cannot go back it is made again.
            let _ = fs_err::rename(&aside, &path);
            return Ok(None);
        }
        drop(gate);
        let _ = fs_err::remove_file(note_of(&path));
        Ok(Some((aside, file)))
    }
}
