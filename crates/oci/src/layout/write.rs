//! Writing layouts.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::error::{LayoutError, LayoutErrorKind as Kind};
use super::read::blob_name;
use super::{LAYOUT_MARKER, REF_NAME};
use crate::document::MAX_MANIFEST_BYTES;
use crate::{Descriptor, Digest, Document, Hasher, Index};

/// Writes an image layout as a directory or as a tar. The same input gives the same bytes.
///
/// Blobs first, [`LayoutWriter::finish`] last: a directory without it names nothing new.
pub struct LayoutWriter {
    target: Target,
    written: BTreeSet<Digest>,
}

enum Target {
    Directory(PathBuf),
    Archive(Box<tar::Builder<Box<dyn Write + Send>>>),
}

impl fmt::Debug for LayoutWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayoutWriter")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl LayoutWriter {
    /// Writes into a directory, which is made if it is not there. A layout that is there already is added to.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn directory(path: impl AsRef<Path>) -> Result<Self, LayoutError> {
        let path = path.as_ref();
        let blobs = path.join("blobs").join("sha256");
        fs_err::create_dir_all(&blobs)
            .map_err(|error| LayoutError::with(Kind::Io, "cannot make a layout", error))?;
        Ok(Self {
            target: Target::Directory(path.to_owned()),
            written: BTreeSet::new(),
        })
    }

    /// Writes a tar to `out`.
    ///
    /// # Errors
    /// When `out` refuses.
    pub fn archive(out: Box<dyn Write + Send>) -> Result<Self, LayoutError> {
        let mut builder = tar::Builder::new(out);
        builder.sparse(false);
        let mut writer = Self {
            target: Target::Archive(Box::new(builder)),
            written: BTreeSet::new(),
        };
        writer.member(
            "oci-layout",
            LAYOUT_MARKER.len() as u64,
            &mut LAYOUT_MARKER.as_bytes(),
        )?;
        for directory in ["blobs/", "blobs/sha256/"] {
            let Target::Archive(builder) = &mut writer.target else {
                continue;
            };
            let mut header = header(0, 0o755);
            header.set_entry_type(tar::EntryType::Directory);
            builder
                .append_data(&mut header, directory, io::empty())
                .map_err(|error| failed(directory, error))?;
        }
        Ok(writer)
    }

    /// Writes a blob; one that was written before is passed over without reading `content`.
    ///
    /// # Errors
    /// When `content` has another size or digest than `descriptor` says, or the disk refuses.
    pub fn blob(
        &mut self,
        descriptor: &Descriptor,
        content: &mut dyn Read,
    ) -> Result<(), LayoutError> {
        if !self.written.insert(descriptor.digest) {
            return Ok(());
        }
        let name = blob_name(&descriptor.digest);
        let mut verified = Verified {
            inner: content,
            hasher: Hasher::new(),
        };
        self.member(&name, descriptor.size, &mut verified)?;
        let extra = verified
            .read(&mut [0])
            .map_err(|error| failed(&name, error))?;
        let found = verified.hasher.finish();
        if extra != 0 || found != descriptor.digest {
            if let Target::Directory(path) = &self.target {
                let _ = fs_err::remove_file(path.join(&name));
            }
            return Err(LayoutError::new(
                Kind::Corrupt,
                format!(
                    "blob {} does not have the content that its name says",
                    descriptor.digest
                ),
            ));
        }
        Ok(())
    }

    /// Writes a file beside the layout, such as Docker's `manifest.json`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn file(&mut self, name: &str, content: &[u8]) -> Result<(), LayoutError> {
        self.member(name, content.len() as u64, &mut &*content)
    }

    /// Writes `oci-layout` and `index.json`. In a directory, entries of other names that are there already stay.
    ///
    /// # Errors
    /// When the disk refuses, or the index that is there cannot be read.
    pub fn finish(mut self, index: &Index) -> Result<(), LayoutError> {
        let mut index = index.clone();
        if let Target::Directory(path) = &self.target {
            let kept = existing(&path.join("index.json"), &index)?;
            index.manifests.splice(0..0, kept);
            self.file("oci-layout", LAYOUT_MARKER.as_bytes())?;
        }
        self.file("index.json", &index.to_bytes())?;
        match self.target {
            Target::Directory(_) => Ok(()),
            Target::Archive(builder) => {
                let mut out = builder
                    .into_inner()
                    .map_err(|error| failed("the archive", error))?;
                out.flush().map_err(|error| failed("the archive", error))
            }
        }
    }

    /// One file, whole or not at all in a directory.
    fn member(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), LayoutError> {
        match &mut self.target {
            Target::Archive(builder) => {
                let mut exact = Exact {
                    inner: content,
                    left: size,
                };
                builder
                    .append_data(&mut header(size, 0o644), name, &mut exact)
                    .map_err(|error| failed(name, error))
            }
            Target::Directory(path) => {
                let last = path.join(name);
                let first = path.join(format!("{name}.part-{}", std::process::id()));
                let mut exact = Exact {
                    inner: content,
                    left: size,
                };
                let result = fs_err::File::create(&first)
                    .and_then(|mut file| io::copy(&mut exact, &mut file))
                    .and_then(|_| fs_err::rename(&first, &last));
                if let Err(error) = result {
                    let _ = fs_err::remove_file(&first);
                    return Err(failed(name, error));
                }
                Ok(())
            }
        }
    }
}

fn failed(name: &str, error: io::Error) -> LayoutError {
    LayoutError::with(
        Kind::Io,
        format!("cannot write {name} of an image layout"),
        error,
    )
}

/// The same header for everything: owner, times and order must not make a difference.
fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header
}

/// Entries of an index on disk that `new` does not replace by name or by content.
fn existing(path: &Path, new: &Index) -> Result<Vec<Descriptor>, LayoutError> {
    let bytes = match fs_err::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_MANIFEST_BYTES => {
            return Err(LayoutError::new(
                Kind::Corrupt,
                format!("{} is too large", path.display()),
            ));
        }
        Ok(_) => fs_err::read(path).map_err(|error| failed("index.json", error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("index.json", error)),
    };
    let damaged = || {
        LayoutError::new(
            Kind::Corrupt,
            format!("{} is no image index", path.display()),
        )
    };
    let Document::Index(old) = Document::parse(&bytes, "").map_err(|_| damaged())? else {
        return Err(damaged());
    };
    let name = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned();
    Ok(old
        .manifests
        .into_iter()
        .filter(|old| {
            !new.manifests
                .iter()
                .any(|new| match (name(old), name(new)) {
                    (Some(old), Some(new)) => old == new,
                    (None, None) => old.digest == new.digest,
                    _ => false,
                })
        })
        .collect())
}

/// Hashes what passes.
struct Verified<'a> {
    inner: &'a mut dyn Read,
    hasher: Hasher,
}

impl Read for Verified<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Gives exactly so many bytes, or an error: a tar header has promised them.
struct Exact<'a> {
    inner: &'a mut dyn Read,
    left: u64,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the content is shorter than announced",
            ));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
