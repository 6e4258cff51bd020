//! Cache mounts: a directory of the guest while the build runs, an archive of the host between builds.
//!
//! The archive lies in the directory that the caller keeps for the mount, beside what the sandbox keeps there; the two do
//! not share content, since the sandbox would have to unpack what a guest wrote. It is made anew after each step that has
//! the mount. Where steps share one at the same time, the later one wins.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use firebuild_build::cancel::Cancel;
use firebuild_build::chain::Chain;
use firebuild_build::exec::{ExecError, ExecErrorKind};
use firebuild_build::sandbox::subtree;
use firebuild_rootfs::tree::Follow;
use firebuild_sandbox::task::{SCRATCH, Task};
use firebuild_store::Store;

use super::task::{self, With};
use super::vm::Vm;
use super::{host, layers};

/// The archive in the directory of a mount.
const ARCHIVE: &str = "microvm.tar";

/// A cache that a guest has.
#[derive(Debug)]
pub(super) struct Cache {
    /// Its directory in the guest.
    path: PathBuf,
    /// The archive that says the same.
    archive: Option<Stamp>,
}

/// Inode and time of an archive: another one has others.
type Stamp = (u64, i64, i64);

fn stamp(directory: &Path) -> Option<Stamp> {
    let found = fs_err::symlink_metadata(directory.join(ARCHIVE)).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec()))
}

/// The directory of the guest for a cache mount; what the host has of it is sent when the guest does not have it yet.
pub(super) fn enter(
    store: &Store,
    vm: &Vm,
    directory: &Path,
    seed: Option<&(Arc<Chain>, String)>,
    cancel: &Cancel,
) -> Result<PathBuf, ExecError> {
    let mut held = vm.held.lock().unwrap_or_else(PoisonError::into_inner);
    let archive = stamp(directory);
    // Another build may have made another archive, or somebody removed it.
    if let Some(cache) = held.caches.get(directory)
        && cache.archive == archive
    {
        return Ok(cache.path.clone());
    }
    let number = vm.number();
    let path = Path::new(SCRATCH).join(format!("caches/{number}"));
    match fs_err::File::open(directory.join(ARCHIVE)) {
        Ok(file) => {
            let mut file = file.into_file();
            let task = Task::Unpack {
                directory: path.clone(),
                is_layer: false,
            };
            let mut archive = |to: &mut dyn std::io::Write| std::io::copy(&mut file, to).map(drop);
            let with = With {
                archive: Some(&mut archive),
                ..With::default()
            };
            task::run(vm, number, &task, with, cancel)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some((chain, source)) = seed {
                plant(store, vm, number, chain, source, &path, cancel)?;
            }
        }
        Err(error) => return Err(host("cannot read a cache", error)),
    }
    let cache = Cache {
        path: path.clone(),
        archive,
    };
    held.caches.insert(directory.to_owned(), cache);
    Ok(path)
}

/// Fills a new cache with what `source` of a chain holds.
fn plant(
    store: &Store,
    vm: &Vm,
    number: u32,
    chain: &Arc<Chain>,
    source: &str,
    path: &Path,
    cancel: &Cancel,
) -> Result<(), ExecError> {
    let step = |text: String| ExecError::new(ExecErrorKind::Step, text);
    let tree = chain.tree(store).map_err(layers::base)?;
    let id = tree
        .lookup(source.as_bytes(), Follow::All)
        .map_err(|error| {
            ExecError::caused(
                ExecErrorKind::Step,
                format!("cannot seed a cache with {source}"),
                error,
            )
        })?;
    if !tree[id].is_dir() {
        return Err(step(format!(
            "cannot seed a cache with {source}, which is no directory"
        )));
    }
    let layer = subtree(&tree, id);
    layers::send(store, vm, number, &layer, path, false, cancel)
}

/// Brings what the guest has of a cache back to the host.
pub(super) fn leave(
    vm: &Vm,
    directory: &Path,
    path: &Path,
    cancel: &Cancel,
) -> Result<(), ExecError> {
    let failed = |error: std::io::Error| host("cannot keep a cache", error);
    let number = vm.number();
    let aside = directory.join(format!(
        "{ARCHIVE}-{}-{number}",
        rustix::process::getpid().as_raw_nonzero()
    ));
    let task = Task::Pack {
        directory: path.to_owned(),
    };
    let mut file = crate::sparse::create(&aside).map_err(failed)?;
    let with = With {
        spool: Some((&mut file, vm.disk_bytes)),
        ..With::default()
    };
    let packed = task::run(vm, number, &task, with, cancel)
        .and_then(|_| whole(&file).map_err(failed))
        .and_then(|()| fs_err::rename(&aside, directory.join(ARCHIVE)).map_err(failed));
    if packed.is_err() {
        let _ = fs_err::remove_file(&aside);
    }
    let mut held = vm.held.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cache) = held.caches.get_mut(directory)
        && cache.path == path
    {
        cache.archive = stamp(directory);
    }
    packed
}

/// An archive that was cut would give less to the next build than there was.
fn whole(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let length = file.metadata()?.len();
    let mut end = [1; 1024];
    let at = length
        .checked_sub(end.len() as u64)
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    file.read_exact_at(&mut end, at)?;
    if end == [0; 1024] {
        Ok(())
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}
