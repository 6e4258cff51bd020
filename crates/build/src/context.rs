//! A directory that the user gave: its files as a tree, and what they contain.
//!
//! The scan reads metadata only; a file is read when something copies it. Digests of files are remembered between builds
//! by device, inode, size and change time, so that an unchanged context of thousands of files is not read again. A file
//! that was changed within two seconds before the scan is never remembered and never answered from memory: its change
//! time cannot tell a second change apart.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use firebuild_dockerfile::{IgnoreError, IgnorePatterns};
use firebuild_rootfs::tree::{Content, Contents, Opened, Source, Tree};
use firebuild_rootfs::walk::{
    DirContents, Found, FoundKind, Verdict, WalkError, WalkOptions, open_root, walk,
};
use sha2::{Digest as _, Sha256};

use crate::cancel::Cancel;
use crate::solve::ContextDir;
use crate::stoppable::stopped;

/// Younger changes cannot be told apart by the clock of every file system.
const SETTLED: Duration = Duration::from_secs(2);
/// Bytes that are read at once when a file is hashed.
const CHUNK: usize = 256 << 10;
/// Files are hashed by this many threads at most.
const THREADS: usize = 4;

/// What tells that a file is the same as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, u32),
}

impl Stamp {
    /// The device does not count: some file systems give an open file another number than its name.
    fn is_same(&self, other: &Self) -> bool {
        (self.inode, self.size, self.changed) == (other.inode, other.size, other.changed)
    }
}

/// The files of a context.
#[derive(Debug)]
pub struct Files {
    /// What is there, after the ignore rules; everything belongs to 0:0.
    pub tree: Arc<Tree>,
    /// The patterns that were applied.
    pub ignore: IgnorePatterns,
    contents: DirContents,
    stamps: HashMap<Arc<Path>, Stamp>,
    digests: Mutex<HashMap<Arc<Path>, [u8; 32]>>,
    /// What files without a settled stamp were when they were hashed.
    hashed: Mutex<HashMap<Arc<Path>, Stamp>>,
    memory: Memory,
    cancel: Cancel,
}

/// A context that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The directory is not there or not readable.
    #[error("cannot open the build context {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something below cannot be read.
    #[error("cannot read the build context {}", path.display())]
    Walk {
        /// Which.
        path: PathBuf,
        /// Why.
        source: WalkError,
    },
    /// The build was stopped.
    #[error("the build was stopped")]
    Stopped,
    /// The ignore file is malformed.
    #[error("cannot use {file}")]
    Ignore {
        /// Which.
        file: String,
        /// Why.
        source: IgnoreError,
    },
}

impl Files {
    /// Scans a directory. `memory` is a file that keeps digests between builds; it is made where it is missing, and a
    /// damaged one is as good as none. `cancel` ends the scan, and later the hashing.
    ///
    /// # Errors
    /// When the directory or its ignore file cannot be read, or the build was stopped.
    pub fn scan(dir: &ContextDir, memory: &Path, cancel: &Cancel) -> Result<Self, ContextError> {
        let ignore = match &dir.ignore {
            None => IgnorePatterns::default(),
            Some((file, text)) => {
                IgnorePatterns::parse(text.as_bytes()).map_err(|source| ContextError::Ignore {
                    file: file.clone(),
                    source,
                })?
            }
        };
        let path = || dir.path.clone();
        let root = open_root(&dir.path).map_err(|source| ContextError::Open {
            path: path(),
            source,
        })?;
        let now = SystemTime::now();
        let settled = now
            .checked_sub(SETTLED)
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let settled = settled.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(0));
        let mut stamps = HashMap::new();
        let mut filter = |found: &Found<'_>| {
            if cancel.is_raised() {
                return Verdict::Leave;
            }
            if ignore.is_ignored(found.path) {
                let below = found.kind == FoundKind::Dir && !ignore.skips_below(found.path);
                return if below {
                    Verdict::IfUsed
                } else {
                    Verdict::Leave
                };
            }
            if found.kind == FoundKind::File && found.changed.secs < settled {
                use std::os::unix::ffi::OsStrExt as _;
                let path: Arc<Path> = Path::new(std::ffi::OsStr::from_bytes(found.path)).into();
                let changed = (found.changed.secs, found.changed.nanos);
                let stamp = Stamp {
                    device: found.device,
                    inode: found.inode,
                    size: found.size,
                    changed,
                };
                stamps.insert(path, stamp);
            }
            Verdict::Take
        };
        let options = WalkOptions {
            owner: Some((0, 0)),
            filter: Some(&mut filter),
        };
        use std::os::fd::AsFd as _;
        let tree = walk(root.as_fd(), options).map_err(|source| ContextError::Walk {
            path: path(),
            source,
        })?;
        if cancel.is_raised() {
            return Err(ContextError::Stopped);
        }
        Ok(Self {
            tree: Arc::new(tree),
            ignore,
            contents: DirContents::new(root),
            stamps,
            digests: Mutex::default(),
            hashed: Mutex::default(),
            memory: Memory::load(memory),
            cancel: cancel.clone(),
        })
    }

    /// SHA-256 of a file's content.
    ///
    /// # Errors
    /// When the file cannot be read or is not what it was at the scan.
    pub fn hash(&self, content: &Content) -> io::Result<[u8; 32]> {
        let Source::Path(path) = &content.source else {
            return hash(&self.contents.open(content)?, content.size, &self.cancel);
        };
        if let Some(known) = lock(&self.digests).get(path) {
            return Ok(*known);
        }
        let stamp = self.stamps.get(path);
        let digest = match stamp.and_then(|stamp| self.memory.get(stamp)) {
            Some(known) => known,
            None => {
                let opened = self.contents.open(content)?;
                match (stamp, stamp_of(&opened)?) {
                    (Some(then), Some(now)) if !then.is_same(&now) => return Err(changed(path)),
                    (None, Some(now)) => {
                        lock(&self.hashed).insert(Arc::clone(path), now);
                    }
                    _ => {}
                }
                let digest = hash(&opened, content.size, &self.cancel)?;
                if let Some(stamp) = stamp {
                    self.memory.put(*stamp, digest);
                }
                digest
            }
        };
        lock(&self.digests).insert(Arc::clone(path), digest);
        Ok(digest)
    }

    /// Makes sure that files are still what they were when they were hashed: what was copied since has the digests that
    /// the key of the copy was made of.
    ///
    /// # Errors
    /// For the first one that was changed or replaced meanwhile.
    pub fn unchanged(&self, contents: &[&Content]) -> io::Result<()> {
        for content in contents {
            let Source::Path(path) = &content.source else {
                continue;
            };
            let then = self.stamps.get(path).copied();
            let then = then.or_else(|| lock(&self.hashed).get(path).copied());
            if let (Some(then), Some(now)) = (then, stamp_of(&self.contents.open(content)?)?)
                && !then.is_same(&now)
            {
                return Err(changed(path));
            }
        }
        Ok(())
    }

    /// Hashes many files at once, so that [`Files::hash`] then answers from memory.
    ///
    /// # Errors
    /// As [`Files::hash`], the first one that any thread met.
    pub fn hash_all(&self, contents: &[&Content]) -> io::Result<()> {
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(THREADS)
            .min(contents.len() / 16 + 1);
        let work = || {
            while let Some(content) = contents.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.hash(content) {
                    lock(&failure).get_or_insert(error);
                    return;
                }
            }
        };
        if threads == 1 {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(work);
                }
            });
        }
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Writes what was learnt into the memory file. Failure costs time in the next build, nothing else.
    pub fn save(&self) {
        self.memory.save(&self.stamps);
    }
}

impl Contents for Files {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        self.contents.open(content)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an opened file is now.
fn stamp_of(opened: &Opened) -> io::Result<Option<Stamp>> {
    let Opened::File { file, .. } = opened else {
        return Ok(None);
    };
    use std::os::unix::fs::MetadataExt as _;
    let meta = file.metadata()?;
    Ok(Some(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.len(),
        changed: (
            meta.ctime(),
            u32::try_from(meta.ctime_nsec()).unwrap_or_default(),
        ),
    }))
}

fn changed(path: &Path) -> io::Error {
    let message = format!("{} changed while it was read", path.display());
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// SHA-256 of opened content.
pub(crate) fn hash(opened: &Opened, size: u64, cancel: &Cancel) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK)).max(1)];
    let mut position = 0;
    while position < size {
        if cancel.is_raised() {
            return Err(stopped());
        }
        let count = buffer
            .len()
            .min(usize::try_from(size - position).unwrap_or(usize::MAX));
        opened.read_exact_at(&mut buffer[..count], position)?;
        hasher.update(&buffer[..count]);
        position += count as u64;
    }
    Ok(hasher.finalize().into())
}

/// All bytes of opened content, which the caller knows to be small.
pub(crate) fn read_all(opened: &Opened, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    opened.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Digests by stamp, in a file of records of [`RECORD`] bytes: five little-endian numbers of 8 bytes and the digest.
#[derive(Debug)]
struct Memory {
    path: PathBuf,
    records: Mutex<HashMap<Stamp, [u8; 32]>>,
    changed: AtomicBool,
}

const RECORD: usize = 5 * 8 + 32;
/// A larger memory file is dropped; it would be of some millions of files.
const MAX_MEMORY: u64 = 256 << 20;
/// Records of files that the last scan did not see, which another ignore file may bring back, are kept up to as many as it
/// saw and so many more.
const SPARE: usize = 10_000;

impl Memory {
    fn load(path: &Path) -> Self {
        let small = fs_err::metadata(path).is_ok_and(|meta| meta.len() <= MAX_MEMORY);
        let bytes = if small {
            fs_err::read(path).unwrap_or_default()
        } else {
            Vec::new()
        };
        let records = bytes.chunks_exact(RECORD).map(decode).collect();
        Self {
            path: path.to_owned(),
            records: Mutex::new(records),
            changed: AtomicBool::new(false),
        }
    }

    fn get(&self, stamp: &Stamp) -> Option<[u8; 32]> {
        lock(&self.records).get(stamp).copied()
    }

    fn put(&self, stamp: Stamp, digest: [u8; 32]) {
        lock(&self.records).insert(stamp, digest);
        self.changed.store(true, Ordering::Relaxed);
    }

    fn save(&self, seen: &HashMap<Arc<Path>, Stamp>) {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return;
        }
        let mut records = lock(&self.records);
        if records.len() > 2 * seen.len() + SPARE {
            // What changed leaves its old stamps behind.
            let seen: HashSet<&Stamp> = seen.values().collect();
            records.retain(|stamp, _| seen.contains(stamp));
        }
        let mut bytes = Vec::with_capacity(records.len() * RECORD);
        for (stamp, digest) in records.iter() {
            encode(&mut bytes, stamp, digest);
        }
        drop(records);
        let aside = self.path.with_extension(format!("{}", std::process::id()));
        let _ = self.path.parent().map(fs_err::create_dir_all);
        if fs_err::write(&aside, &bytes)
            .and_then(|()| fs_err::rename(&aside, &self.path))
            .is_err()
        {
            let _ = fs_err::remove_file(&aside);
        }
    }
}

fn encode(bytes: &mut Vec<u8>, stamp: &Stamp, digest: &[u8; 32]) {
    for number in [
        stamp.device,
        stamp.inode,
        stamp.size,
        stamp.changed.0.cast_unsigned(),
        u64::from(stamp.changed.1),
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(digest);
}

fn decode(record: &[u8]) -> (Stamp, [u8; 32]) {
    let number = |index: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&record[index * 8..index * 8 + 8]);
        u64::from_le_bytes(bytes)
    };
    let mut digest = [0; 32];
    digest.copy_from_slice(&record[40..72]);
    let changed = (
        number(3).cast_signed(),
        u32::try_from(number(4)).unwrap_or(u32::MAX),
    );
    (
        Stamp {
            device: number(0),
            inode: number(1),
            size: number(2),
            changed,
        },
        digest,
    )
}

#[cfg(test)]
mod tests;
