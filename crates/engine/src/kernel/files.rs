//! The files of packages or of this host, found by name and read on demand.
//!
//! Names are relative and without `./`: `boot/vmlinuz-6.1.0`, `lib/modules/6.1.0/kernel/…`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::codec::read_bounded;
use super::error::{KernelError, io};

/// Where the content of a file lies.
#[derive(Debug, Clone)]
pub(crate) enum Location {
    /// In an uncompressed archive.
    Archive {
        archive: Rc<File>,
        offset: u64,
        length: u64,
    },
    /// In a file of its own.
    File(PathBuf),
}

/// A set of named files.
#[derive(Debug, Default)]
pub(crate) struct FileSet {
    entries: BTreeMap<String, Location>,
}

/// No kernel package comes near this many files; a walk that does has left the right track.
const MOST_FILES: usize = 200_000;

impl FileSet {
    pub(crate) fn insert(&mut self, name: String, location: Location) {
        self.entries.insert(name, location);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds the regular files below a directory of this host, named `prefix/…`. Symlinks (`build`,
    /// `source`) are not followed.
    pub(crate) fn add_directory(&mut self, root: &Path, prefix: &str) -> Result<(), KernelError> {
        let mut pending = vec![(root.to_owned(), prefix.to_owned())];
        while let Some((dir, prefix)) = pending.pop() {
            for entry in fs_err::read_dir(&dir).map_err(|error| io("list", &dir, error))? {
                let entry = entry.map_err(|error| io("list", &dir, error))?;
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                let kind = entry
                    .file_type()
                    .map_err(|error| io("look at", &entry.path(), error))?;
                let name = format!("{prefix}/{name}");
                if kind.is_dir() {
                    pending.push((entry.path(), name));
                } else if kind.is_file() {
                    self.insert(name, Location::File(entry.path()));
                }
            }
            if self.len() + pending.len() > MOST_FILES {
                return Err(io(
                    "list",
                    root,
                    std::io::Error::other("too many files for a directory of modules"),
                ));
            }
        }
        Ok(())
    }

    /// The names that start with `prefix`, in byte order.
    pub(crate) fn names<'a, 'p>(
        &'a self,
        prefix: &'p str,
    ) -> impl Iterator<Item = &'a str> + use<'a, 'p> {
        self.entries
            .range(prefix.to_owned()..)
            .map(|(name, _)| name.as_str())
            .take_while(move |name| name.starts_with(prefix))
    }

    /// The content of a file of at most `limit` bytes, `None` when there is no such file.
    pub(crate) fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, KernelError> {
        let Some(location) = self.entries.get(name) else {
            return Ok(None);
        };
        let bytes = match location {
            Location::File(path) => {
                let file = fs_err::File::open(path).map_err(|error| io("read", path, error))?;
                read_bounded(file, limit, name)?
            }
            Location::Archive {
                archive,
                offset,
                length,
            } => {
                let mut archive = archive.as_ref();
                archive
                    .seek(SeekFrom::Start(*offset))
                    .map_err(|error| io("read", Path::new(name), error))?;
                read_bounded(archive.take(*length), limit, name)?
            }
        };
        Ok(Some(bytes))
    }
}
