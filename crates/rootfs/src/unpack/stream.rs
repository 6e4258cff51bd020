//! Unpacking an archive while it comes, for copies between a host and a guest. Neither trusts the other: what is made
//! lies beneath the directory that was given, and there is no more of it than was agreed.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use rustix::fs::ftruncate;
use rustix::io::pwrite;

use super::place::Place;
use super::{
    Marks, Skipped, Unmapped, UnpackError, UnpackErrorKind, UnpackOptions, What, is_device,
};
use crate::layer::{Change, Entry};
use crate::tar::{EntryData, Limits, ReadOptions, TarError, Whiteouts, read_entries};
use crate::tree::{Content, Contents, Kind, Meta, Opened};

/// Bits of a mode that give rights to others: set-user-id and set-group-id.
const SET_IDS: u16 = 0o6000;
/// Most bytes of names that are kept to set the times of directories and to know which files are ours to link.
const MAX_NAMES: usize = 256 << 20;

/// How to unpack a stream.
pub struct StreamOptions<'a> {
    /// Owners, set-id bits, attributes beside `user.*` and device nodes are those of the archive. Without it everything
    /// belongs to this user and group, and what would give rights is left out.
    pub keep_owners: bool,
    /// The owner without `keep_owners`.
    pub owner: (u32, u32),
    /// Most bytes of content.
    pub max_bytes: u64,
    /// Most entries.
    pub max_entries: usize,
    /// Where an entry goes: a clean path beneath the root, or nowhere.
    pub place: &'a dyn Fn(&[u8]) -> Option<Vec<u8>>,
}

impl fmt::Debug for StreamOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamOptions")
            .field("max_bytes", &self.max_bytes)
            .field("max_entries", &self.max_entries)
            .finish_non_exhaustive()
    }
}

/// Why a stream cannot be unpacked.
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamError {
    /// It is no archive, or is cut off.
    Tar(TarError),
    /// Something of it cannot be made.
    Unpack(UnpackError),
    /// It holds more bytes than was agreed.
    TooLarge(u64),
    /// It holds more names than can be kept.
    TooMany,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tar(_) => f.write_str("the archive is damaged or cut off"),
            Self::Unpack(error) => error.fmt(f),
            Self::TooLarge(most) => {
                write!(
                    f,
                    "the archive holds more than {most} bytes, which is the limit"
                )
            }
            Self::TooMany => f.write_str("the archive holds too many names"),
        }
    }
}

impl std::error::Error for StreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Tar(error) => Some(error),
            Self::Unpack(error) => std::error::Error::source(error),
            Self::TooLarge(_) | Self::TooMany => None,
        }
    }
}

impl From<TarError> for StreamError {
    fn from(error: TarError) -> Self {
        Self::Tar(error)
    }
}

impl From<UnpackError> for StreamError {
    fn from(error: UnpackError) -> Self {
        Self::Unpack(error)
    }
}

/// Unpacks an archive beneath a directory. Existing directories are kept, other files replaced; no link is followed, and
/// hard links lead to files of the same archive only.
///
/// # Errors
/// A damaged archive, one that holds more than the options allow, or an entry that cannot be made; what was made until
/// then stays.
pub fn unpack_stream(
    reader: impl Read,
    root: BorrowedFd<'_>,
    options: &StreamOptions<'_>,
) -> Result<Skipped, StreamError> {
    let unpack = UnpackOptions {
        unmapped: Unmapped::Refuse,
        marks: Marks::Trusted,
    };
    let mut work = Work {
        place: Place::new(root, &Nothing, unpack),
        options,
        left: options.max_bytes,
        names: 0,
        dirs: Vec::new(),
        files: HashSet::new(),
    };
    let read = ReadOptions {
        limits: Limits {
            entries: options.max_entries,
            ..Limits::default()
        },
        whiteouts: Whiteouts::Keep,
    };
    read_entries(reader, &read, &mut |entry, data| work.entry(entry, data))?;
    let Work {
        place, mut dirs, ..
    } = work;
    // A directory that came twice is as it came last.
    dirs.sort_by(|(a, _), (b, _)| crate::layer::compare_paths(a, b));
    let dirs: Vec<(&[u8], &Meta)> = dirs
        .iter()
        .map(|(path, meta)| (path.as_slice(), meta))
        .collect();
    Ok(place.finish(&dirs)?)
}

struct Work<'a, 'o> {
    place: Place<'a>,
    options: &'o StreamOptions<'o>,
    left: u64,
    names: usize,
    dirs: Vec<(Vec<u8>, Meta)>,
    files: HashSet<Vec<u8>>,
}

impl Work<'_, '_> {
    fn entry(&mut self, entry: Entry, data: &mut EntryData<'_>) -> Result<(), StreamError> {
        let Some(path) = (self.options.place)(&entry.path) else {
            return Ok(());
        };
        self.names += path.len();
        if self.names > MAX_NAMES {
            return Err(StreamError::TooMany);
        }
        match entry.change {
            Change::Node(mut node) => {
                if !self.options.keep_owners {
                    modest(&mut node.meta, self.options.owner);
                    if is_device(&node) {
                        self.place.skip(&path, What::Node);
                        return Ok(());
                    }
                }
                match &node.kind {
                    Kind::Dir(_) => {
                        self.place.dir(&path)?;
                        self.dirs.push((path, node.meta));
                    }
                    Kind::File(content) => {
                        self.file(&path, &node.meta, content.size, data)?;
                        self.files.insert(path);
                    }
                    _ => {
                        self.place.node(&path, &node)?;
                        self.files.insert(path);
                    }
                }
                Ok(())
            }
            Change::HardLink(target) => {
                let target = (self.options.place)(&target).unwrap_or_default();
                if !self.files.contains(&target) || !self.place.link(&path, &target)? {
                    let error = io::Error::from(io::ErrorKind::NotFound);
                    return Err(UnpackError::new(UnpackErrorKind::Link, &path, error).into());
                }
                self.files.insert(path);
                Ok(())
            }
            // Names that begin with `.wh.` are names here.
            Change::Whiteout | Change::Opaque => Ok(()),
        }
    }

    fn file(
        &mut self,
        path: &[u8],
        meta: &Meta,
        size: u64,
        data: &mut EntryData<'_>,
    ) -> Result<(), StreamError> {
        let failed = |error: rustix::io::Errno| {
            StreamError::from(UnpackError::new(UnpackErrorKind::Write, path, error))
        };
        let (left, most) = (&mut self.left, self.options.max_bytes);
        self.place.file_with(path, meta, &mut |_, file| {
            data.read(&mut |position, piece| {
                *left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or(StreamError::TooLarge(most))?;
                let mut done = 0;
                while done < piece.len() {
                    match pwrite(file, &piece[done..], position + done as u64) {
                        Ok(0) => return Err(failed(rustix::io::Errno::IO)),
                        Ok(count) => done += count,
                        Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(failed(error)),
                    }
                }
                Ok(())
            })?;
            // A hole at the end has no data.
            ftruncate(file, size).map_err(failed)
        })
    }
}

/// Takes away what gives rights on this side.
fn modest(meta: &mut Meta, owner: (u32, u32)) {
    (meta.uid, meta.gid) = owner;
    meta.mode &= !SET_IDS;
    meta.xattrs.retain(|name, _| name.starts_with(b"user."));
}

/// The contents of entries come with them.
struct Nothing;

impl Contents for Nothing {
    fn open(&self, _: &Content) -> io::Result<Opened> {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;
    use std::process::Command;

    use super::{StreamError, StreamOptions, unpack_stream};
    use crate::layer::{Change, Layer};
    use crate::tar::{Output, WriteOptions, write_layer};
    use crate::tree::{Content, Inode, Kind, Meta, Source};
    use crate::walk::{DirContents, open_root};

    fn owner() -> (u32, u32) {
        (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )
    }

    fn unpack(archive: &[u8], to: &Path, max_bytes: u64) -> Result<(), StreamError> {
        let root = open_root(to).unwrap();
        let options = StreamOptions {
            keep_owners: false,
            owner: owner(),
            max_bytes,
            max_entries: 1000,
            place: &|path| Some(path.to_vec()),
        };
        unpack_stream(archive, root.as_fd(), &options).map(drop)
    }

    fn file(text: &[u8], mode: u16) -> Change {
        let content = Content {
            source: Source::Bytes(text.into()),
            size: text.len() as u64,
        };
        let (uid, gid) = owner();
        let meta = Meta {
            mode,
            uid,
            gid,
            ..Meta::default()
        };
        Change::Node(Inode::new(meta, Kind::File(content)))
    }

    fn archive(entries: &[(&[u8], Change)]) -> Vec<u8> {
        let mut out = Vec::new();
        let here = tempfile::tempdir().unwrap();
        let contents = DirContents::new(open_root(here.path()).unwrap());
        // One archive for each, ends cut off, so that the order stays.
        for (path, change) in entries {
            let mut layer = Layer::default();
            layer.push(*path, change.clone());
            let mut one = Vec::new();
            write_layer(
                &layer,
                &contents,
                Output::Stream(&mut one),
                &WriteOptions::default(),
            )
            .unwrap();
            one.truncate(one.len() - 1024);
            out.extend(one);
        }
        out.extend([0; 1024]);
        out
    }

    #[test]
    fn a_directory_comes_through_as_tar_made_it() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let top = from.path();
        fs_err::create_dir(top.join("d")).unwrap();
        fs_err::write(top.join("d/file"), vec![7; 200_000]).unwrap();
        fs_err::set_permissions(top.join("d/file"), PermissionsExt::from_mode(0o6754)).unwrap();
        fs_err::hard_link(top.join("d/file"), top.join("d/same")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", top.join("d/link")).unwrap();
        fs_err::set_permissions(top.join("d"), PermissionsExt::from_mode(0o750)).unwrap();
        let made = Command::new("tar")
            .args(["--format=pax", "-C", top.to_str().unwrap(), "-cf", "-", "d"])
            .output()
            .unwrap();
        unpack(&made.stdout, to.path(), 1 << 20).unwrap();
        let seen = |name: &str| fs_err::symlink_metadata(to.path().join(name)).unwrap();
        // Set-id bits are rights, and owners were not asked for.
        assert_eq!(seen("d/file").mode() & 0o7777, 0o754);
        assert_eq!(seen("d/file").ino(), seen("d/same").ino());
        assert_eq!(seen("d").mode() & 0o7777, 0o750);
        let before = fs_err::symlink_metadata(top.join("d")).unwrap();
        assert_eq!(seen("d").mtime_nsec(), before.mtime_nsec());
        assert!(seen("d/link").is_symlink());
        // Once more over what is there.
        unpack(&made.stdout, to.path(), 1 << 20).unwrap();
        assert!(matches!(
            unpack(&made.stdout, to.path(), 199_999),
            Err(StreamError::TooLarge(199_999))
        ));
    }

    #[test]
    fn nothing_gets_out_of_the_directory() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs_err::write(&secret, "untouched").unwrap();
        let to = outside.path().join("to");
        fs_err::create_dir(&to).unwrap();
        fs_err::write(to.join("mine"), "mine").unwrap();
        let symlink = |target: &[u8]| {
            let (uid, gid) = owner();
            let meta = Meta {
                mode: 0o777,
                uid,
                gid,
                ..Meta::default()
            };
            Change::Node(Inode::new(meta, Kind::Symlink(target.into())))
        };
        let bad: [&[(&[u8], Change)]; 6] = [
            &[(b"up", symlink(b"..")), (b"up/secret", file(b"x", 0o600))],
            &[
                (b"abs", symlink(outside.path().to_str().unwrap().as_bytes())),
                (b"abs/secret", file(b"x", 0o600)),
            ],
            &[
                (b"l", symlink(b"../secret")),
                (b"h", Change::HardLink(b"l/x".to_vec())),
            ],
            // Not a file of the archive, so not its to share.
            &[(b"h", Change::HardLink(b"mine".to_vec()))],
            &[(b"h", Change::HardLink(b"nothing".to_vec()))],
            &[(b"d/x", file(b"x", 0o600)), (b"d", file(b"y", 0o600))],
        ];
        for entries in bad {
            let outcome = unpack(&archive(entries), &to, 1 << 20);
            assert!(
                outcome.is_err(),
                "{:?}",
                entries.iter().map(|(path, _)| path).collect::<Vec<_>>()
            );
        }
        // A link in the way of a file gives way itself.
        let entries: [(&[u8], Change); 2] =
            [(b"s", symlink(b"../secret")), (b"s", file(b"new", 0o600))];
        unpack(&archive(&entries), &to, 1 << 20).unwrap();
        assert_eq!(fs_err::read_to_string(to.join("s")).unwrap(), "new");
        assert_eq!(fs_err::read_to_string(&secret).unwrap(), "untouched");
        assert_eq!(fs_err::read_to_string(to.join("mine")).unwrap(), "mine");
        let names: Vec<_> = fs_err::read_dir(outside.path()).unwrap().collect();
        assert_eq!(names.len(), 2);
        let mut climbing = archive(&[(b"xx/secret", file(b"x", 0o600))]);
        climbing[0..2].copy_from_slice(b"..");
        // The checksum of the header has to hold for its path to be looked at.
        let sum: u32 = climbing[..512]
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u32::from(*byte)
                }
            })
            .sum();
        climbing[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(matches!(
            unpack(&climbing, &to, 1 << 20),
            Err(StreamError::Tar(_))
        ));
    }
}
