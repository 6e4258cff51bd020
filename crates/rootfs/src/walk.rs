//! From a directory on disk to a tree, and back to the bytes of its files.
//!
//! Every open is confined to the directory that was given (`openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`),
//! so a file that turns into a link while it is looked at is an error and never a way out. A file that vanishes or
//! changes its size is an error too; it names the path.
//!
//! Kept: mode, owner, mtime, device numbers, hard links (by device and inode), symbolic links, and the extended
//! attributes that are content: `user.*`, `trusted.*` where they may be read, `security.capability` and POSIX ACLs. Other
//! `security.*` attributes are labels of the host's policy and stay behind.

mod xattr;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::path::{self, MAX_TARGET, Shown};
pub(crate) use xattr::ProcPath;

use crate::tree::{
    Content, Contents, Device, Inode, InodeId, Kind, Meta, Opened, Source, Time, Tree, TreeError,
    Xattrs,
};

/// Why a directory cannot be read.
#[derive(Debug)]
pub struct WalkError {
    kind: WalkErrorKind,
    path: Vec<u8>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalkErrorKind {
    /// A directory cannot be opened or read.
    Directory,
    /// A file's properties cannot be read, or it vanished.
    Properties,
    /// A symbolic link cannot be read.
    Link,
    /// Extended attributes cannot be read.
    Xattrs,
    /// The tree does not take the entry.
    Tree,
}

impl WalkError {
    fn new(
        kind: WalkErrorKind,
        path: &[u8],
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            path: path.to_vec(),
            source: Some(source.into()),
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> WalkErrorKind {
        self.kind
    }

    /// The path, relative to the directory that was walked.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            WalkErrorKind::Directory => "cannot read the directory",
            WalkErrorKind::Properties => "cannot read the properties of",
            WalkErrorKind::Link => "cannot read the symbolic link",
            WalkErrorKind::Xattrs => "cannot read the extended attributes of",
            WalkErrorKind::Tree => "cannot take over",
        };
        write!(f, "{what} {}", Shown(&self.path))
    }
}

impl std::error::Error for WalkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// What a filter is shown of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The path, relative to the directory that is walked.
    pub path: &'a [u8],
    /// Its kind, without content.
    pub kind: FoundKind,
    /// Device of the file system it is on.
    pub device: u64,
    /// Inode number there.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change of content or properties (`ctime`).
    pub changed: Time,
    /// Time of the last change of the content (`mtime`).
    pub modified: Time,
}

/// The kind of an entry that a filter is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundKind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A Unix socket.
    Socket,
    /// A device or pipe.
    Special,
}

/// What a filter wants done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It belongs to the tree; a directory is walked.
    Take,
    /// It does not, nor does anything below it.
    Leave,
    /// A directory that belongs to the tree only if something below it does. Other entries: as `Leave`.
    IfUsed,
}

/// How to walk.
#[derive(Default)]
pub struct WalkOptions<'a> {
    /// Everything belongs to this user and group, whatever the disk says.
    pub owner: Option<(u32, u32)>,
    /// Asked about each entry but the root.
    pub filter: Option<&'a mut dyn FnMut(&Found<'_>) -> Verdict>,
}

impl fmt::Debug for WalkOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalkOptions")
            .field("owner", &self.owner)
            .field("filter", &self.filter.is_some())
            .finish()
    }
}

/// Opens a directory to be walked.
///
/// # Errors
/// When it is not there, no directory, or may not be read.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Walks a directory. Contents are [`Source::Path`]s relative to it; [`DirContents`] opens them.
///
/// # Errors
/// When something cannot be read, vanishes meanwhile, or does not fit into a tree; the error names the path.
pub fn walk(root: BorrowedFd<'_>, options: WalkOptions<'_>) -> Result<Tree, WalkError> {
    let mut walker = Walker {
        root,
        tree: Tree::new(),
        links: HashMap::new(),
        owner: options.owner,
        filter: options.filter,
    };
    let stat =
        rustix::fs::fstat(root).map_err(|e| WalkError::new(WalkErrorKind::Properties, b"", e))?;
    let xattrs = xattr::of_fd(root).map_err(|e| WalkError::new(WalkErrorKind::Xattrs, b"", e))?;
    *walker.tree.meta_mut(InodeId::ROOT) = meta(&stat, xattrs, walker.owner);
    // Directories whose entries are still to be read, and those that stay only if they are used.
    let mut todo = vec![(Vec::new(), InodeId::ROOT)];
    let mut doubtful = Vec::new();
    while let Some((path, id)) = todo.pop() {
        walker.directory(&path, id, &mut todo, &mut doubtful)?;
    }
    // What is deeper was found later.
    while let Some((parent, name, id)) = doubtful.pop() {
        if walker.tree[id]
            .children()
            .is_some_and(std::collections::BTreeMap::is_empty)
        {
            let name: Vec<u8> = name;
            walker
                .tree
                .remove(parent, &name)
                .map_err(|e| WalkError::new(WalkErrorKind::Tree, &name, e))?;
        }
    }
    Ok(walker.tree)
}

struct Walker<'r, 'f> {
    root: BorrowedFd<'r>,
    tree: Tree,
    links: HashMap<(u64, u64), InodeId>,
    owner: Option<(u32, u32)>,
    filter: Option<&'f mut dyn FnMut(&Found<'_>) -> Verdict>,
}

type Todo = Vec<(Vec<u8>, InodeId)>;
type Doubtful = Vec<(InodeId, Vec<u8>, InodeId)>;

impl Walker<'_, '_> {
    fn directory(
        &mut self,
        path: &[u8],
        id: InodeId,
        todo: &mut Todo,
        doubtful: &mut Doubtful,
    ) -> Result<(), WalkError> {
        let fail = |e| WalkError::new(WalkErrorKind::Directory, path, io::Error::from(e));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = open_beneath(self.root, path, flags).map_err(fail)?;
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 32 << 10];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let name = entry.map_err(fail)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        // Which name of a hard link comes first, and the numbers of inodes, do not depend on the file system.
        names.sort_unstable();
        let proc = xattr::ProcPath::new(fd.as_fd());
        let first = todo.len();
        for name in names {
            self.entry(&fd, &proc, path, id, name, todo, doubtful)?;
        }
        todo[first..].reverse();
        Ok(())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the state of one directory, not worth a struct"
    )]
    fn entry(
        &mut self,
        dir: &OwnedFd,
        proc: &xattr::ProcPath,
        parent: &[u8],
        parent_id: InodeId,
        name: Vec<u8>,
        todo: &mut Todo,
        doubtful: &mut Doubtful,
    ) -> Result<(), WalkError> {
        let path = path::join(parent, &name);
        let stat = rustix::fs::statat(dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| WalkError::new(WalkErrorKind::Properties, &path, e))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let verdict = match &mut self.filter {
            Some(filter) => filter(&found(&path, kind, &stat)),
            None => Verdict::Take,
        };
        if verdict == Verdict::Leave || (verdict == Verdict::IfUsed && kind != FileType::Directory)
        {
            return Ok(());
        }
        let refused = |e: TreeError| WalkError::new(WalkErrorKind::Tree, &path, e);
        let key = (stat.st_dev, stat.st_ino);
        let linked = stat.st_nlink > 1 && kind != FileType::Directory;
        if linked && let Some(&known) = self.links.get(&key) {
            return self.tree.link(parent_id, &name, known).map_err(refused);
        }
        let xattrs = xattr::of_entry(proc, &name)
            .map_err(|e| WalkError::new(WalkErrorKind::Xattrs, &path, e))?;
        let kind = match kind {
            FileType::Directory => Kind::Dir(std::collections::BTreeMap::new()),
            FileType::RegularFile => Kind::File(Content {
                source: Source::Path(Arc::from(Path::new(OsStr::from_bytes(&path)))),
                size: u64::try_from(stat.st_size).unwrap_or(0),
            }),
            FileType::Symlink => {
                let fail = |e| WalkError::new(WalkErrorKind::Link, &path, e);
                let target = rustix::fs::readlinkat(dir, name.as_slice(), Vec::new())
                    .map_err(|e| fail(e.into()))?;
                let target = target.into_bytes();
                if target.is_empty() || target.len() > MAX_TARGET {
                    return Err(fail(io::Error::from(io::ErrorKind::InvalidData)));
                }
                Kind::Symlink(target.into())
            }
            FileType::CharacterDevice => Kind::CharDevice(device(stat.st_rdev)),
            FileType::BlockDevice => Kind::BlockDevice(device(stat.st_rdev)),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => {
                let error = io::Error::new(io::ErrorKind::Unsupported, "a file of unknown type");
                return Err(WalkError::new(WalkErrorKind::Properties, &path, error));
            }
        };
        let is_dir = matches!(kind, Kind::Dir(_));
        let inode = Inode::new(meta(&stat, xattrs, self.owner), kind);
        let id = self.tree.insert(parent_id, &name, inode).map_err(refused)?;
        if linked {
            self.links.insert(key, id);
        }
        if is_dir {
            if verdict == Verdict::IfUsed {
                doubtful.push((parent_id, name, id));
            }
            todo.push((path, id));
        }
        Ok(())
    }
}

fn found<'a>(path: &'a [u8], kind: FileType, stat: &Stat) -> Found<'a> {
    Found {
        path,
        kind: match kind {
            FileType::Directory => FoundKind::Dir,
            FileType::RegularFile => FoundKind::File,
            FileType::Symlink => FoundKind::Symlink,
            FileType::Socket => FoundKind::Socket,
            _ => FoundKind::Special,
        },
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        changed: time(stat.st_ctime, stat.st_ctime_nsec),
        modified: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn meta(stat: &Stat, xattrs: Xattrs, owner: Option<(u32, u32)>) -> Meta {
    let (uid, gid) = owner.unwrap_or((stat.st_uid, stat.st_gid));
    Meta {
        mode: u16::try_from(stat.st_mode & 0o7777).expect("twelve bits fit"),
        uid,
        gid,
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        xattrs,
    }
}

fn time(secs: i64, nanos: impl TryInto<u32>) -> Time {
    Time {
        secs,
        nanos: nanos.try_into().unwrap_or(0),
    }
}

fn device(number: u64) -> Device {
    Device {
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
    }
}

/// Opens a clean path below a directory without following any link. The empty path is the directory itself.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename elsewhere raced with the look-up of `..`, or a signal came.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens the [`Source::Path`]s of a walked directory.
#[derive(Debug)]
pub struct DirContents {
    root: OwnedFd,
    /// The directory of the file that was opened last, so that its neighbours are looked up in it.
    last: Mutex<Option<(Vec<u8>, Arc<OwnedFd>)>>,
}

impl DirContents {
    /// For the directory that was walked.
    #[must_use]
    pub fn new(root: OwnedFd) -> Self {
        Self {
            root,
            last: Mutex::default(),
        }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl DirContents {
    fn open_file(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let parent = path::parent(path);
        if parent.is_empty() {
            return open_beneath(self.root(), path, flags);
        }
        let known = {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.as_ref()
                .filter(|(name, _)| name == parent)
                .map(|(_, directory)| Arc::clone(directory))
        };
        let directory = match known {
            Some(directory) => directory,
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let directory = Arc::new(open_beneath(self.root(), parent, flags)?);
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((parent.to_vec(), Arc::clone(&directory)));
                directory
            }
        };
        open_beneath(directory.as_fd(), path::file_name(path), flags)
    }
}

impl Contents for DirContents {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        let path = match &content.source {
            Source::Path(path) => path,
            Source::Bytes(bytes) => return Ok(Opened::Bytes(Arc::clone(bytes))),
            Source::Blob { .. } | Source::SparseBlob { .. } => {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "the content is in a blob, not in this directory",
                ));
            }
        };
        let shown = || Shown(path.as_os_str().as_bytes()).to_string();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = self
            .open_file(path.as_os_str().as_bytes(), flags)
            .map_err(|e| {
                let error = io::Error::from(e);
                io::Error::new(error.kind(), format!("cannot open {}: {error}", shown()))
            })?;
        let file = File::from(fd);
        let meta = file.metadata()?;
        if !meta.is_file() || meta.len() != content.size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} changed while it was read", shown()),
            ));
        }
        Ok(Opened::File {
            file: Arc::new(file),
            offset: 0,
        })
    }
}

#[cfg(test)]
mod tests;
