//! Blobs: immutable content by digest.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use firebuild_oci::{Digest, Hasher};

use crate::error::{At, StoreError, StoreErrorKind};
use crate::store::Store;

/// How many blobs stay open for reading. Layers are opened once for each of their files otherwise.
const OPEN_BLOBS: usize = 128;

/// Descriptors of blobs that were read lately, each with the time of its last use (a counter).
#[derive(Debug, Default)]
pub(crate) struct OpenBlobs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    files: HashMap<Digest, (Arc<File>, u64)>,
    clock: u64,
}

impl OpenBlobs {
    /// Closes all, so that removed blobs give their room back.
    pub(crate) fn forget(&self) {
        self.lock().files.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Where a blob is or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.to_hex())
    }

    /// Whether a blob is there. If it is, it stays as long as this store is open.
    #[must_use]
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.hold(&self.blob_path(digest))
    }

    /// Size of a blob in bytes.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotFound`] if it is not there.
    pub fn blob_size(&self, digest: &Digest) -> Result<u64, StoreError> {
        let path = self.blob_path(digest);
        let _ = self.hold(&path);
        Ok(fs_err::metadata(&path).at("cannot read blob", &path)?.len())
    }

    /// Opens a blob; the descriptor is shared, so read it with `pread`.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotFound`] if it is not there.
    pub fn open_blob(&self, digest: &Digest) -> Result<Arc<File>, StoreError> {
        let mut open = self.open.lock();
        open.clock += 1;
        let now = open.clock;
        if let Some((file, used)) = open.files.get_mut(digest) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        let path = self.blob_path(digest);
        let _ = self.hold(&path);
        let file = Arc::new(File::open(&path).at("cannot open blob", &path)?);
        if open.files.len() >= OPEN_BLOBS {
            let oldest = open
                .files
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(digest, _)| *digest);
            if let Some(oldest) = oldest {
                open.files.remove(&oldest);
            }
        }
        open.files.insert(*digest, (Arc::clone(&file), now));
        Ok(file)
    }

    /// Opens a blob for one reader, with a position of its own.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotFound`] if it is not there.
    pub fn read_blob_file(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        let _ = self.hold(&path);
        File::open(&path).at("cannot open blob", &path)
    }

    /// Reads a small blob (a manifest, a configuration) and verifies it.
    ///
    /// # Errors
    /// When it is not there, larger than `limit` bytes, or not what its name says.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let _ = self.hold(&self.blob_path(digest));
        self.peek_blob(digest, limit)
    }

    /// The same without a lease: the blob may be gone the next moment.
    pub(crate) fn peek_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let file = File::open(&path).at("cannot open blob", &path)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .at("cannot read blob", &path)?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::new(
                StoreErrorKind::Corrupt,
                format!(
                    "blob {digest} has more than {limit} bytes, too many for what it should be"
                ),
            ));
        }
        if Digest::of(&bytes) != *digest {
            return Err(StoreError::new(
                StoreErrorKind::Corrupt,
                format!(
                    "blob {digest} is damaged: remove {} and build or pull again",
                    path.display()
                ),
            ));
        }
        Ok(bytes)
    }

    /// Stores bytes under their digest.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if !self.has_blob(&digest) {
            let path = self.temporary()?;
            if let Err(error) = fs_err::write(&path, bytes) {
                let _ = fs_err::remove_file(&path);
                return Err(StoreError::io("cannot write", &path, error));
            }
            self.adopt_blob(&path, &digest)?;
        }
        Ok(digest)
    }

    /// Begins a blob whose digest is not known yet.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn blob_writer(&self) -> Result<BlobWriter<'_>, StoreError> {
        let path = self.temporary()?;
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .at("cannot make", &path)?;
        Ok(BlobWriter {
            store: self,
            path: Some(path),
            file,
            hasher: Hasher::new(),
            size: 0,
        })
    }

    /// Takes over a file under `tmp/` that the caller wrote and hashed. The file is gone afterwards in any case.
    ///
    /// # Errors
    /// When the rename fails.
    pub fn adopt_blob(&self, file: &Path, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        if self.hold(&path) {
            return fs_err::remove_file(file).at("cannot remove", file);
        }
        let published = self.session.publish(&path, || {
            self.hold_new(&path, || {
                fs_err::rename(file, &path).at("cannot rename to", &path)
            })
        });
        if published.is_err() {
            let _ = fs_err::remove_file(file);
        }
        published
    }
}

/// A blob that is being written. Dropped without [`BlobWriter::commit`] it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a Store,
    path: Option<PathBuf>,
    file: File,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter<'_> {
    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Gives the blob its name. With `expected` the content must have that digest.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`] when the digest is another one.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<Digest, StoreError> {
        let path = self.path.take().unwrap_or_default();
        let digest = std::mem::replace(&mut self.hasher, Hasher::new()).finish();
        // Holes at the end are not written: the length says where the blob ends.
        let result = match expected {
            Some(wanted) if *wanted != digest => Err(StoreError::new(
                StoreErrorKind::Corrupt,
                format!("the content has digest {digest}, expected {wanted}"),
            )),
            _ => self.file.set_len(self.size).at("cannot write", &path),
        };
        match result {
            Ok(()) => self.store.adopt_blob(&path, &digest).map(|()| digest),
            Err(error) => {
                let _ = fs_err::remove_file(&path);
                Err(error)
            }
        }
    }
}

/// Pages of zeros become holes.
const HOLE: usize = 4096;

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() >= HOLE && bytes.iter().all(|byte| *byte == 0) {
            self.file.seek(SeekFrom::Current(
                i64::try_from(bytes.len()).map_err(io::Error::other)?,
            ))?;
        } else {
            self.file.write_all(bytes)?;
        }
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            let _ = fs_err::remove_file(path);
        }
    }
}
