//! Making and reading snapshots with the ids of the namespace.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use firebuild_rootfs::layer::Layer;
use firebuild_rootfs::tree::{Content, Contents, Opened};
use firebuild_rootfs::unpack::{Marks, Unmapped, UnpackOptions, unpack_layer};
use firebuild_rootfs::walk::{WalkOptions, open_root, walk};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::Result;
use crate::codec;
use crate::job::{Ask, Failure, FailureKind, Reply, Scope, UnpackJob};
use crate::skipped;
use crate::wire::{Kind, Link, MAX_FDS};

#[allow(clippy::needless_pass_by_value)] // For map_err.
fn gone(error: io::Error) -> Failure {
    Failure::caused(
        FailureKind::Cancelled,
        "nobody waits for the sandbox",
        &error,
    )
}

/// Makes the files of a layer, which is received, and says what could not be made.
pub(super) fn unpack(link: &Link, job: &UnpackJob, scope: Scope) -> Result<()> {
    fn base<E: std::error::Error + 'static>(message: String) -> impl FnOnce(E) -> Failure {
        Failure::because(FailureKind::Base, message)
    }
    let mut layer = Layer::default();
    loop {
        let frame = link.receive().map_err(gone)?;
        match frame {
            Some(frame) if frame.kind == Kind::Entries && frame.body.is_empty() => break,
            Some(frame) if frame.kind == Kind::Entries => {
                layer
                    .entries
                    .extend(codec::decode(&frame.body).map_err(gone)?);
            }
            _ => {
                return Err(Failure::new(
                    FailureKind::Cancelled,
                    "the sandbox was given up while it unpacked",
                ));
            }
        }
    }
    let directory = &job.directory;
    match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => {
            return Err(base(format!(
                "cannot make the snapshot {}",
                directory.display()
            ))(error));
        }
    }
    let root = open_root(directory).map_err(base(format!(
        "cannot open the snapshot {}",
        directory.display()
    )))?;
    let contents = Blobs {
        directory: job.blobs.clone(),
        open: Mutex::default(),
    };
    let options = match scope {
        Scope::Host => UnpackOptions {
            unmapped: Unmapped::Refuse,
            marks: Marks::Trusted,
        },
        Scope::Mapped | Scope::Single => UnpackOptions {
            unmapped: Unmapped::SquashToRoot,
            marks: Marks::User,
        },
    };
    let missing = unpack_layer(&layer, &contents, root.as_fd(), &options)
        .map_err(base(format!("cannot unpack into {}", directory.display())))?;
    link.say(
        &Reply::Unpacked {
            skipped: skipped::to_text(&missing),
        },
        &[],
    )
    .map_err(gone)
}

/// The name of a blob: its digest in hexadecimal.
fn hex(id: &[u8]) -> String {
    use std::fmt::Write;
    id.iter()
        .fold(String::with_capacity(2 * id.len()), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a String takes everything");
            text
        })
}

/// Blobs of the store, opened by their digest.
struct Blobs {
    directory: PathBuf,
    open: Mutex<HashMap<[u8; 32], Arc<std::fs::File>>>,
}

impl Contents for Blobs {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the content is in no blob");
        if let firebuild_rootfs::tree::Source::Bytes(bytes) = &content.source {
            return Ok(Opened::Bytes(Arc::clone(bytes)));
        }
        let id = content.blob().ok_or_else(missing)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match open.get(&id) {
            Some(file) => Arc::clone(file),
            None => {
                let path = self.directory.join(hex(&id));
                let file: Arc<std::fs::File> = Arc::new(fs_err::File::open(path)?.into());
                // A layer's files are mostly in one blob; a flattened image's in as many as it has layers.
                if open.len() >= 256 {
                    open.clear();
                }
                open.insert(id, Arc::clone(&file));
                file
            }
        };
        content.opened_in(&file).ok_or_else(missing)
    }
}

/// Tells what a directory holds, then hands out its files until the parent has seen enough.
pub(super) fn capture(link: &Link, upper: &OwnedFd) -> Result<()> {
    let tree = walk(upper.as_fd(), WalkOptions::default()).map_err(Failure::because(
        FailureKind::Layer,
        "cannot read what the step has changed",
    ))?;
    codec::send(link, &Layer::of_tree(&tree)).map_err(gone)?;
    drop(tree);
    link.say(&Reply::Captured, &[]).map_err(gone)?;
    loop {
        match link.hear::<Ask>().map_err(gone)? {
            Some((Ask::Open(paths), _)) => hand_out(link, upper.as_fd(), &paths)?,
            Some((Ask::Finish, _)) => return Ok(()),
            None => {
                return Err(Failure::new(
                    FailureKind::Cancelled,
                    "the sandbox was given up",
                ));
            }
        }
    }
}

fn hand_out(link: &Link, upper: BorrowedFd<'_>, paths: &[Vec<u8>]) -> Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut fds = Vec::with_capacity(MAX_FDS);
    for path in paths.iter().take(MAX_FDS) {
        let fd = openat2(upper, path.as_slice(), flags, Mode::empty(), resolve).map_err(
            Failure::because(
                FailureKind::Layer,
                format!(
                    "cannot open {} of the step's changes",
                    String::from_utf8_lossy(path)
                ),
            ),
        )?;
        fds.push(fd);
    }
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    link.say(&Reply::Files, &borrowed).map_err(gone)
}
