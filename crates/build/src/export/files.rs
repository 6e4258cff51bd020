//! Outputs that are the files of an image: tar, directory, initrd, EROFS.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use firebuild_rootfs::tree::{InodeId, Kind, Time, Tree};
use firebuild_rootfs::unpack::{Skipped, export_dir};
use firebuild_rootfs::walk::open_root;
use firebuild_rootfs::{cpio, erofs, tar};

use super::compress::squeeze_whole;
use super::dest::{StoppableContents, beside, cannot_write, path_of, stream};
use super::{Compression, Dest, ExportError, ExportErrorKind, Packing};
use crate::cancel::Cancel;
use crate::content::StoreContents;

fn unfit(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> ExportError {
    ExportError::caused(ExportErrorKind::Content, what, error)
}

/// The tree with the time of the build at every file, as BuildKit gives it to what it writes for the user.
pub(super) fn at_epoch(mut tree: Arc<Tree>, epoch: Option<i64>) -> Arc<Tree> {
    if let Some(secs) = epoch {
        let ids: BTreeSet<InodeId> = tree.walk().map(|(_, id)| id).collect();
        let tree = Arc::make_mut(&mut tree);
        for id in ids {
            tree.meta_mut(id).mtime = Time { secs, nanos: 0 };
        }
    }
    tree
}

/// Writes all files as one tar.
pub(super) fn write_tar(
    tree: &Tree,
    contents: &StoppableContents<'_, StoreContents<'_>>,
    dest: &Dest,
) -> Result<(), ExportError> {
    let options = tar::WriteOptions {
        gnu_acls: true,
        ..tar::WriteOptions::default()
    };
    stream(dest, contents.cancel, |out| {
        tar::write_tree(tree, contents, tar::Output::Stream(out), &options)
            .map(|_| ())
            .map_err(|error| unfit("cannot write the tar", error))
    })
}

/// Writes all files into a directory; they belong to who runs this. With `delete` it then holds nothing else.
pub(super) fn write_dir(
    mut tree: Arc<Tree>,
    contents: &StoppableContents<'_, StoreContents<'_>>,
    dest: &Dest,
    delete: bool,
) -> Result<(), ExportError> {
    let path = path_of(dest)?;
    fs_err::create_dir_all(path).map_err(|error| {
        ExportError::io("cannot make the output directory", error).full_at(path)
    })?;
    let root = open_root(path)
        .map_err(|error| ExportError::io("cannot open the output directory", error))?;
    own(Arc::make_mut(&mut tree));
    if delete {
        if fs_err::canonicalize(path).is_ok_and(|path| path.parent().is_none()) {
            return Err(ExportError::io(
                "mode=delete would empty the root directory of this machine",
                io::ErrorKind::InvalidInput.into(),
            ));
        }
        remove_others(path, &tree, InodeId::ROOT, contents.cancel)
            .map_err(|error| cannot_write(path, error))?;
    }
    export_dir(&tree, contents, root.as_fd())
        .map(|_| ())
        .map_err(|error| {
            let message = format!("cannot write to {}", path.display());
            ExportError::caused(ExportErrorKind::Dest, message, error).full_at(path)
        })
}

/// Gives all files to who runs this: what a build makes for a user belongs to the user.
fn own(tree: &mut Tree) {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let ids: BTreeSet<InodeId> = tree.walk().map(|(_, id)| id).collect();
    for id in ids {
        let meta = tree.meta_mut(id);
        (meta.uid, meta.gid) = (uid, gid);
    }
}

/// Removes what is in a directory and not in the tree. Links are not followed.
fn remove_others(path: &Path, tree: &Tree, dir: InodeId, cancel: &Cancel) -> io::Result<()> {
    let mut todo = vec![(path.to_path_buf(), dir)];
    while let Some((path, dir)) = todo.pop() {
        for entry in fs_err::read_dir(&path)? {
            if cancel.is_raised() {
                return Err(super::dest::stopped());
            }
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            let child = tree.child(dir, entry.file_name().as_bytes());
            match child {
                Some(id) if is_dir && tree[id].is_dir() => todo.push((entry.path(), id)),
                Some(id) if is_dir == tree[id].is_dir() => {}
                _ if is_dir => fs_err::remove_dir_all(entry.path())?,
                _ => fs_err::remove_file(entry.path())?,
            }
        }
    }
    Ok(())
}

/// Writes all files as an initrd. Gives what a person should know about it.
pub(super) fn write_initrd(
    tree: &Tree,
    contents: &StoppableContents<'_, StoreContents<'_>>,
    dest: &Dest,
    packing: Packing,
) -> Result<Vec<String>, ExportError> {
    let failed = |error| unfit("cannot write the initrd", error);
    let mut skipped = Skipped::default();
    stream(dest, contents.cancel, |out| {
        if packing.compression == Compression::Uncompressed {
            skipped = cpio::write_tree(tree, contents, out).map_err(failed)?;
            return Ok(());
        }
        // The archive is made by one thread and compressed by this one.
        let (reader, writer) =
            io::pipe().map_err(|error| ExportError::io("cannot compress the initrd", error))?;
        let (made, squeezed) = std::thread::scope(|scope| {
            let maker = scope.spawn(move || {
                let mut writer = io::BufWriter::with_capacity(1 << 20, writer);
                let skipped = cpio::write_tree(tree, contents, &mut writer)?;
                Ok::<_, cpio::CpioError>(skipped)
            });
            let squeezed = squeeze_whole(reader, &mut &mut *out, packing);
            let made = maker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (made, squeezed)
        });
        // When compressing failed, the maker found nobody to read: the first is the reason.
        squeezed.map_err(|error| ExportError::io("cannot compress the initrd", error))?;
        skipped = made.map_err(failed)?;
        Ok(())
    })?;
    let mut notes = Vec::new();
    if !boots(tree) {
        notes.push(
            "the initrd has no executable /init: a kernel boots it with rdinit=PROGRAM".to_owned(),
        );
    }
    if let Some(first) = skipped.entries.first() {
        notes.push(format!(
            "an initrd holds no extended attributes: {} are left out, the first of /{}",
            skipped.entries.len(),
            String::from_utf8_lossy(&first.path)
        ));
    }
    Ok(notes)
}

/// Whether the kernel finds the program that it starts first.
fn boots(tree: &Tree) -> bool {
    tree.lookup(b"init", firebuild_rootfs::tree::Follow::All)
        .is_ok_and(|id| matches!(tree[id].kind, Kind::File(_)) && tree[id].meta.mode & 0o111 != 0)
}

/// Writes all files as an EROFS image.
pub(super) fn write_erofs(
    tree: &Tree,
    contents: &StoppableContents<'_, StoreContents<'_>>,
    dest: &Dest,
    epoch: Option<i64>,
) -> Result<(), ExportError> {
    let path = path_of(dest)?;
    beside(path, |aside| {
        let file = fs_err::File::create_new(aside).map_err(|error| cannot_write(path, error))?;
        let options = erofs::Options {
            epoch,
            ..erofs::Options::default()
        };
        erofs::write(tree, contents, file.file(), &options)
            .map(|_| ())
            .map_err(|error| unfit("cannot make the EROFS image", error))
    })
}
