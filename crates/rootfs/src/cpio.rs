//! Writing initrds: cpio archives in the `newc` format (`Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! The kernel takes several archives one after another. Each archive ends with its trailer and is padded to 512 bytes, so
//! that the next one (the configuration of a guest after its init) can simply be appended.
//!
//! ```text
//!  "070701" ino mode uid gid nlink mtime size devmajor devminor rdevmajor rdevminor namesize check   8 hex digits each
//!  name NUL  ─ to 4 ─  data  ─ to 4 ─ … TRAILER!!!  ─ to 512 ─
//! ```
//!
//! The format has no attributes, no nanoseconds and no files of 4 GiB; times before 1970 and after 2106 become the nearest
//! one it has.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use crate::path::Shown;
use crate::tree::{Content, Contents, Device, Inode, InodeId, Kind, Meta, Opened, Source, Tree};
use crate::unpack::{Skipped, SkippedEntry, What};

const TRAILER: &[u8] = b"TRAILER!!!";
/// Longest name with its NUL that the kernel takes (`PATH_MAX`).
const MAX_NAME: usize = 4096;
const ALIGN: u64 = 512;

/// Why an archive cannot be written.
#[derive(Debug)]
pub struct CpioError {
    kind: CpioErrorKind,
    path: Vec<u8>,
    source: Option<io::Error>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CpioErrorKind {
    /// The output cannot be written.
    Write,
    /// The content of a file cannot be read.
    Content,
    /// A file has 4 GiB or more.
    TooLarge,
    /// A path has 4,096 bytes or more, or is the name of the trailer.
    Name,
}

impl CpioError {
    fn new(kind: CpioErrorKind, path: &[u8], source: Option<io::Error>) -> Self {
        Self {
            kind,
            path: path.to_vec(),
            source,
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> CpioErrorKind {
        self.kind
    }

    /// The entry; empty for the archive's end.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}

impl fmt::Display for CpioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = Shown(&self.path);
        match self.kind {
            CpioErrorKind::Write => write!(f, "cannot write {path} into the initrd"),
            CpioErrorKind::Content => write!(f, "cannot read the content of {path}"),
            CpioErrorKind::TooLarge => {
                write!(f, "{path} has 4 GiB or more, which an initrd cannot hold")
            }
            CpioErrorKind::Name => write!(f, "{path} is no name that an initrd can hold"),
        }
    }
}

impl std::error::Error for CpioError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

/// Writes one archive.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    position: u64,
    next_ino: u32,
    skipped: Skipped,
}

/// The numbers of a header that do not come from [`Meta`].
struct Numbers {
    ino: u32,
    kind: u32,
    names: u32,
    size: u32,
    device: Device,
}

impl<W: Write> Writer<W> {
    /// Begins an archive. `out` should be buffered and stand at a multiple of 512 bytes.
    pub fn new(out: W) -> Self {
        Self {
            out,
            position: 0,
            next_ino: 1,
            skipped: Skipped::default(),
        }
    }

    /// Adds one entry; parents have to come first. The path is a clean one; the root is the empty path.
    ///
    /// # Errors
    /// When the name or size does not fit, content cannot be read, or the output cannot be written.
    pub fn add(
        &mut self,
        path: &[u8],
        inode: &Inode,
        contents: &dyn Contents,
    ) -> Result<(), CpioError> {
        let ino = self.ino();
        self.entry(path, inode, ino, 1, contents)
    }

    /// Adds a directory of root.
    ///
    /// # Errors
    /// As [`Writer::add`].
    pub fn dir(&mut self, path: &[u8], mode: u16) -> Result<(), CpioError> {
        self.add(path, &Inode::dir(mode), &NoContents)
    }

    /// Adds a file of root with these bytes.
    ///
    /// # Errors
    /// As [`Writer::add`].
    pub fn file(&mut self, path: &[u8], mode: u16, bytes: &[u8]) -> Result<(), CpioError> {
        self.file_by(path, mode, bytes.len(), |out| out.write_all(bytes))
    }

    /// Adds a file of root whose `size` bytes `put` writes to the output, no more and no fewer.
    ///
    /// # Errors
    /// As [`Writer::add`].
    pub fn file_by(
        &mut self,
        path: &[u8],
        mode: u16,
        size: usize,
        put: impl FnOnce(&mut W) -> io::Result<()>,
    ) -> Result<(), CpioError> {
        let meta = Meta {
            mode,
            ..Meta::default()
        };
        let too_large = |_| CpioError::new(CpioErrorKind::TooLarge, path, None);
        let numbers = Numbers {
            ino: self.ino(),
            kind: 0o100_000,
            names: 1,
            size: u32::try_from(size).map_err(too_large)?,
            device: Device::default(),
        };
        self.header(path, &meta, &numbers)?;
        put(&mut self.out)
            .map_err(|error| CpioError::new(CpioErrorKind::Write, path, Some(error)))?;
        self.position += size as u64;
        self.pad(path, 4)
    }

    /// Adds a complete tree, the root included.
    ///
    /// # Errors
    /// As [`Writer::add`].
    pub fn tree(&mut self, tree: &Tree, contents: &dyn Contents) -> Result<(), CpioError> {
        // The number of a file with several names, and how many of them are still to come.
        let mut linked: HashMap<InodeId, (u32, u32)> = HashMap::new();
        for (path, id) in tree.walk() {
            let inode = &tree[id];
            if inode.names == 1 {
                self.add(&path, inode, contents)?;
                continue;
            }
            let (ino, left) = match linked.get(&id) {
                Some(&known) => known,
                None => (self.ino(), inode.names),
            };
            linked.insert(id, (ino, left - 1));
            // The last name brings the content: so GNU cpio writes and expects it, and the kernel takes it either way.
            match &inode.kind {
                Kind::File(_) if left > 1 => {
                    let bare = Kind::File(Content::from_bytes(Vec::new()));
                    let bare = Inode::new(inode.meta.clone(), bare);
                    self.entry(&path, &bare, ino, inode.names, contents)?;
                }
                _ => self.entry(&path, inode, ino, inode.names, contents)?,
            }
        }
        Ok(())
    }

    /// Ends the archive: trailer and padding. Gives back the output and what the format could not hold.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn finish(mut self) -> Result<(W, Skipped), CpioError> {
        let numbers = Numbers {
            ino: 0,
            kind: 0,
            names: 1,
            size: 0,
            device: Device::default(),
        };
        self.raw_header(TRAILER, &Meta::default(), &numbers)
            .map_err(|e| CpioError::new(CpioErrorKind::Write, b"", Some(e)))?;
        self.pad(b"", ALIGN)?;
        self.out
            .flush()
            .map_err(|e| CpioError::new(CpioErrorKind::Write, b"", Some(e)))?;
        Ok((self.out, self.skipped))
    }

    fn ino(&mut self) -> u32 {
        self.next_ino = self.next_ino.wrapping_add(1).max(1);
        self.next_ino
    }

    fn entry(
        &mut self,
        path: &[u8],
        inode: &Inode,
        ino: u32,
        names: u32,
        contents: &dyn Contents,
    ) -> Result<(), CpioError> {
        let (kind, size, device) = match &inode.kind {
            Kind::Dir(_) => (0o040_000, 0, Device::default()),
            Kind::File(content) => (0o100_000, content.size, Device::default()),
            Kind::Symlink(target) => (0o120_000, target.len() as u64, Device::default()),
            Kind::Fifo => (0o010_000, 0, Device::default()),
            Kind::Socket => (0o140_000, 0, Device::default()),
            Kind::CharDevice(device) => (0o020_000, 0, *device),
            Kind::BlockDevice(device) => (0o060_000, 0, *device),
        };
        let size =
            u32::try_from(size).map_err(|_| CpioError::new(CpioErrorKind::TooLarge, path, None))?;
        // A directory counts itself and its `.`.
        let names = if inode.is_dir() { 2 } else { names };
        self.header(
            path,
            &inode.meta,
            &Numbers {
                ino,
                kind,
                names,
                size,
                device,
            },
        )?;
        match &inode.kind {
            Kind::Symlink(target) => self.bytes(path, target)?,
            Kind::File(content) => self.content(path, content, contents)?,
            _ => {}
        }
        for name in inode.meta.xattrs.keys() {
            self.skipped.entries.push(SkippedEntry {
                path: path.to_vec(),
                what: What::Xattr(name.to_vec()),
            });
        }
        self.pad(path, 4)
    }

    fn content(
        &mut self,
        path: &[u8],
        content: &Content,
        contents: &dyn Contents,
    ) -> Result<(), CpioError> {
        let unreadable = |e| CpioError::new(CpioErrorKind::Content, path, Some(e));
        let opened = match &content.source {
            Source::Bytes(bytes) => Opened::Bytes(Arc::clone(bytes)),
            _ => contents.open(content).map_err(unreadable)?,
        };
        let mut buffer = vec![0; 256 << 10];
        let mut at = 0;
        while at < content.size {
            let n = usize::try_from(content.size - at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            opened
                .read_exact_at(&mut buffer[..n], at)
                .map_err(unreadable)?;
            self.bytes(path, &buffer[..n])?;
            at += n as u64;
        }
        Ok(())
    }

    fn header(&mut self, path: &[u8], meta: &Meta, numbers: &Numbers) -> Result<(), CpioError> {
        let name = if path.is_empty() { b"." } else { path };
        if name.len() >= MAX_NAME || name == TRAILER {
            return Err(CpioError::new(CpioErrorKind::Name, path, None));
        }
        self.raw_header(name, meta, numbers)
            .map_err(|e| CpioError::new(CpioErrorKind::Write, path, Some(e)))
    }

    fn raw_header(&mut self, name: &[u8], meta: &Meta, numbers: &Numbers) -> io::Result<()> {
        let mtime = u32::try_from(meta.mtime.secs.max(0)).unwrap_or(u32::MAX);
        let len = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let mut header = b"070701".to_vec();
        for field in [
            numbers.ino,
            numbers.kind | u32::from(meta.mode),
            meta.uid,
            meta.gid,
            numbers.names,
            mtime,
            numbers.size,
            0,
            0,
            numbers.device.major,
            numbers.device.minor,
            len,
            0,
        ] {
            header.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        header.extend_from_slice(name);
        header.push(0);
        header.resize(header.len().next_multiple_of(4), 0);
        self.out.write_all(&header)?;
        self.position += header.len() as u64;
        Ok(())
    }

    fn bytes(&mut self, path: &[u8], bytes: &[u8]) -> Result<(), CpioError> {
        self.out
            .write_all(bytes)
            .map_err(|e| CpioError::new(CpioErrorKind::Write, path, Some(e)))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, path: &[u8], align: u64) -> Result<(), CpioError> {
        const ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];
        let missing = self.position.next_multiple_of(align) - self.position;
        self.bytes(path, &ZEROS[..usize::try_from(missing).unwrap_or(0)])
    }
}

/// For entries without content.
struct NoContents;

impl Contents for NoContents {
    fn open(&self, _: &Content) -> io::Result<Opened> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Writes a complete tree as one archive. Gives back what the format could not hold (extended attributes).
///
/// # Errors
/// As [`Writer::add`].
pub fn write_tree(
    tree: &Tree,
    contents: &dyn Contents,
    out: impl Write,
) -> Result<Skipped, CpioError> {
    let mut writer = Writer::new(out);
    writer.tree(tree, contents)?;
    Ok(writer.finish()?.1)
}

#[cfg(test)]
mod tests;
