//! Making entries below one directory.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    chmodat, chownat, fchmod, fchown, fsetxattr, futimens, linkat, lsetxattr, makedev, mkdirat,
    mknodat, openat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::fill::{Failed, Filler};
use super::{
    Marks, Skipped, SkippedEntry, Unmapped, UnpackError, UnpackErrorKind, UnpackOptions, What,
    is_device,
};
use crate::path;
use crate::tree::{Content, Contents, Device, Inode, Kind, Meta, Opened, Source, Time};
use crate::walk::{ProcPath, open_beneath};

/// How many directories on the way are held open.
const MAX_OPEN: usize = 32;

pub(super) struct Place<'a> {
    root: BorrowedFd<'a>,
    contents: &'a dyn Contents,
    options: UnpackOptions,
    /// Open directories, each within the one before it.
    open: Vec<(Vec<u8>, OwnedFd)>,
    filler: Filler,
    skipped: Skipped,
    /// Nodes that could not be made, for their hard links.
    missing: HashSet<Vec<u8>>,
}

impl<'a> Place<'a> {
    pub(super) fn new(
        root: BorrowedFd<'a>,
        contents: &'a dyn Contents,
        options: UnpackOptions,
    ) -> Self {
        Self {
            root,
            contents,
            options,
            open: Vec::new(),
            filler: Filler::new(),
            skipped: Skipped::default(),
            missing: HashSet::new(),
        }
    }

    pub(super) fn skip(&mut self, path: &[u8], what: What) {
        self.skipped.entries.push(SkippedEntry {
            path: path.to_vec(),
            what,
        });
    }

    /// Opens the directory at a path, making what is missing.
    fn at(&mut self, path: &[u8]) -> Result<usize, UnpackError> {
        let fail = |e| UnpackError::new(UnpackErrorKind::Directory, path, e);
        while self
            .open
            .last()
            .is_some_and(|(top, _)| !path::is_within(path, top))
        {
            self.open.pop();
        }
        if self.open.last().is_some_and(|(top, _)| top == path) {
            return Ok(self.open.len() - 1);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let (base, rest) = match self.open.last() {
            Some((top, fd)) => (
                fd.as_fd(),
                path[top.len()..]
                    .strip_prefix(b"/")
                    .unwrap_or(&path[top.len()..]),
            ),
            None => (self.root, path),
        };
        let fd = match open_beneath(base, rest, flags) {
            Err(Errno::NOENT) => {
                let mut at = open_beneath(base, b"", flags).map_err(fail)?;
                for name in path::components(rest) {
                    match mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(fail(error)),
                    }
                    at = open_beneath(at.as_fd(), name, flags).map_err(fail)?;
                }
                at
            }
            other => other.map_err(fail)?,
        };
        if self.open.len() >= MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push((path.to_vec(), fd));
        Ok(self.open.len() - 1)
    }

    fn parent(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, UnpackError> {
        let at = self.at(path::parent(path))?;
        Ok(self.open[at].1.as_fd())
    }

    /// Makes a directory, without its properties.
    pub(super) fn dir(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        if path.is_empty() {
            return Ok(());
        }
        let name = path::file_name(path);
        let parent = self.parent(path)?;
        let made = make(parent, name, || mkdirat(parent, name, Mode::RWXU));
        // A directory that is there already is kept.
        match made {
            Ok(()) | Err(Errno::ISDIR) => Ok(()),
            Err(error) => Err(UnpackError::new(UnpackErrorKind::Directory, path, error)),
        }
    }

    /// Makes anything else.
    pub(super) fn node(&mut self, path: &[u8], inode: &Inode) -> Result<(), UnpackError> {
        let create = |e| UnpackError::new(UnpackErrorKind::Create, path, e);
        let name = path::file_name(path);
        if let Kind::File(content) = &inode.kind {
            return self.file(path, content, &inode.meta);
        }
        let parent = self.parent(path)?;
        let made = make(parent, name, || match &inode.kind {
            Kind::Symlink(target) => symlinkat(&**target, parent, name),
            Kind::Fifo => mknodat(parent, name, FileType::Fifo, Mode::RUSR, 0),
            Kind::Socket => mknodat(parent, name, FileType::Socket, Mode::RUSR, 0),
            Kind::CharDevice(device) => mknodat(
                parent,
                name,
                FileType::CharacterDevice,
                Mode::RUSR,
                number(*device),
            ),
            Kind::BlockDevice(device) => mknodat(
                parent,
                name,
                FileType::BlockDevice,
                Mode::RUSR,
                number(*device),
            ),
            Kind::Dir(_) | Kind::File(_) => Err(Errno::INVAL),
        });
        match made {
            Ok(()) => {}
            Err(Errno::PERM) if is_device(inode) => {
                self.missing.insert(path.to_vec());
                self.skip(path, What::Node);
                return Ok(());
            }
            Err(error) => return Err(create(error)),
        }
        self.named_properties(path, inode)
    }

    fn file(&mut self, path: &[u8], content: &Content, meta: &Meta) -> Result<(), UnpackError> {
        let fail = |kind, e: io::Error| UnpackError::new(kind, path, e);
        let opened = match &content.source {
            Source::Bytes(bytes) => Opened::Bytes(Arc::clone(bytes)),
            _ => self
                .contents
                .open(content)
                .map_err(|e| fail(UnpackErrorKind::Content, e))?,
        };
        let contents = self.contents;
        self.file_with(path, meta, &mut |filler, file| {
            filler
                .fill(file, &opened, content.size, contents)
                .map_err(|failed| match failed {
                    Failed::Read(e) => fail(UnpackErrorKind::Content, e),
                    Failed::Write(e) => fail(UnpackErrorKind::Write, e),
                })
        })
    }

    /// Makes a file that `fill` writes.
    pub(super) fn file_with<E: From<UnpackError>>(
        &mut self,
        path: &[u8],
        meta: &Meta,
        fill: &mut dyn FnMut(&mut Filler, &OwnedFd) -> Result<(), E>,
    ) -> Result<(), E> {
        let fail = |kind, e: io::Error| UnpackError::new(kind, path, e);
        let name = path::file_name(path);
        let parent = self.parent(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = None;
        make(parent, name, || {
            file = Some(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
            Ok(())
        })
        .map_err(|e| fail(UnpackErrorKind::Create, e.into()))?;
        let file = file.expect("the file was opened");
        fill(&mut self.filler, &file)?;
        Ok(self.open_properties(path, file.as_fd(), meta)?)
    }

    pub(super) fn whiteout(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let name = path::file_name(path);
        let parent = self.parent(path)?;
        // Linux lets every user make this one device (since 5.8 also in user name spaces).
        make(parent, name, || {
            mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
        })
        .map_err(|e| UnpackError::new(UnpackErrorKind::Create, path, e))
    }

    pub(super) fn opaque(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        let name = match self.options.marks {
            Marks::Trusted => "trusted.overlay.opaque",
            Marks::User => "user.overlay.opaque",
        };
        let at = self.at(path)?;
        fsetxattr(&self.open[at].1, name, b"y", XattrFlags::empty())
            .map_err(|e| UnpackError::new(UnpackErrorKind::Properties, path, e))
    }

    /// Makes hard links; links to links in the order in which they become possible.
    pub(super) fn links(&mut self, mut links: Vec<(&[u8], &[u8])>) -> Result<(), UnpackError> {
        while !links.is_empty() {
            let before = links.len();
            let mut later = Vec::new();
            for (path, target) in links {
                if self.missing.contains(target) {
                    self.missing.insert(path.to_vec());
                    self.skip(path, What::Node);
                } else if !self.link(path, target)? {
                    later.push((path, target));
                }
            }
            if later.len() == before {
                return Err(UnpackError::new(
                    UnpackErrorKind::Link,
                    later[0].0,
                    Errno::NOENT,
                ));
            }
            links = later;
        }
        Ok(())
    }

    pub(super) fn link(&mut self, path: &[u8], target: &[u8]) -> Result<bool, UnpackError> {
        let fail = |e| UnpackError::new(UnpackErrorKind::Create, path, e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let from = match open_beneath(self.root, path::parent(target), flags) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(fail)?,
        };
        let (old, new) = (path::file_name(target), path::file_name(path));
        let parent = self.parent(path)?;
        match make(parent, new, || {
            linkat(&from, old, parent, new, AtFlags::empty())
        }) {
            Err(Errno::NOENT) => Ok(false),
            other => other.map(|()| true).map_err(fail),
        }
    }

    /// Sets the properties of directories, the deepest first, and gives the report.
    pub(super) fn finish(mut self, dirs: &[(&[u8], &Meta)]) -> Result<Skipped, UnpackError> {
        for (path, meta) in dirs.iter().rev() {
            let at = self.at(path)?;
            let fd = rustix::io::fcntl_dupfd_cloexec(&self.open[at].1, 0)
                .map_err(|e| UnpackError::new(UnpackErrorKind::Properties, path, e))?;
            self.open_properties(path, fd.as_fd(), meta)?;
        }
        self.skipped
            .entries
            .sort_by(|a, b| crate::layer::compare_paths(&a.path, &b.path));
        Ok(self.skipped)
    }

    /// Owner first, since giving a file away clears set-id bits and capabilities; times last.
    fn open_properties(
        &mut self,
        path: &[u8],
        fd: BorrowedFd<'_>,
        meta: &Meta,
    ) -> Result<(), UnpackError> {
        let fail = |e| UnpackError::new(UnpackErrorKind::Properties, path, e);
        let given = fchown(
            fd,
            Some(Uid::from_raw(meta.uid)),
            Some(Gid::from_raw(meta.gid)),
        );
        self.owner(path, meta, given)?;
        fchmod(fd, Mode::from_raw_mode(u32::from(meta.mode))).map_err(fail)?;
        for (name, value) in &meta.xattrs {
            let set = fsetxattr(fd, &**name, value, XattrFlags::empty());
            self.xattr(path, name, set)?;
        }
        futimens(fd, &times(meta.mtime)).map_err(fail)
    }

    /// As [`Place::open_properties`], for what cannot be opened.
    fn named_properties(&mut self, path: &[u8], inode: &Inode) -> Result<(), UnpackError> {
        let fail = |e| UnpackError::new(UnpackErrorKind::Properties, path, e);
        let meta = &inode.meta;
        let name = path::file_name(path);
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let parent = self.parent(path)?;
        let given = chownat(
            parent,
            name,
            Some(Uid::from_raw(meta.uid)),
            Some(Gid::from_raw(meta.gid)),
            nofollow,
        );
        self.owner(path, meta, given)?;
        let parent = self.parent(path)?;
        if !matches!(inode.kind, Kind::Symlink(_)) {
            chmodat(
                parent,
                name,
                Mode::from_raw_mode(u32::from(meta.mode)),
                AtFlags::empty(),
            )
            .map_err(fail)?;
        }
        if !meta.xattrs.is_empty() {
            let entry = ProcPath::new(parent).entry(name);
            for (name, value) in &meta.xattrs {
                let set = lsetxattr(entry.as_slice(), &**name, value, XattrFlags::empty());
                self.xattr(path, name, set)?;
            }
        }
        let parent = self.parent(path)?;
        utimensat(parent, name, &times(meta.mtime), nofollow).map_err(fail)
    }

    fn owner(
        &mut self,
        path: &[u8],
        meta: &Meta,
        given: Result<(), Errno>,
    ) -> Result<(), UnpackError> {
        match given {
            Ok(()) => Ok(()),
            // INVAL: the id is not mapped. PERM: this process may not give files away.
            Err(Errno::INVAL | Errno::PERM) if self.options.unmapped == Unmapped::SquashToRoot => {
                self.skip(path, What::Owner);
                Ok(())
            }
            Err(error @ (Errno::INVAL | Errno::PERM)) => {
                let kind = UnpackErrorKind::Owner {
                    uid: meta.uid,
                    gid: meta.gid,
                };
                Err(UnpackError::new(kind, path, error))
            }
            Err(error) => Err(UnpackError::new(UnpackErrorKind::Properties, path, error)),
        }
    }

    fn xattr(
        &mut self,
        path: &[u8],
        name: &[u8],
        set: Result<(), Errno>,
    ) -> Result<(), UnpackError> {
        match set {
            Ok(()) => Ok(()),
            // Not allowed, not known here, or too large for this file system (a full disk fails elsewhere as well).
            Err(
                Errno::PERM
                | Errno::ACCESS
                | Errno::OPNOTSUPP
                | Errno::INVAL
                | Errno::TOOBIG
                | Errno::NOSPC
                | Errno::RANGE,
            ) => {
                self.skip(path, What::Xattr(name.to_vec()));
                Ok(())
            }
            Err(error) => Err(UnpackError::new(UnpackErrorKind::Properties, path, error)),
        }
    }
}

/// Makes something, in place of what has the name now. A directory is never removed: `ISDIR` says that there is one.
fn make(
    parent: BorrowedFd<'_>,
    name: &[u8],
    mut create: impl FnMut() -> Result<(), Errno>,
) -> Result<(), Errno> {
    match create() {
        Err(Errno::EXIST) => {}
        other => return other,
    }
    unlinkat(parent, name, AtFlags::empty())?;
    create()
}

fn number(device: Device) -> u64 {
    makedev(device.major, device.minor)
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.secs,
            tv_nsec: mtime.nanos.into(),
        },
    }
}
